"""What Faust loads for `freshet://`, and the topic that goes with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import faust
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.enums import ProcessingGuarantee
from packaging.version import Version

from streams.errors import UnsupportedFaustError
from streams.kafka.transport.consumer import Consumer
from streams.kafka.transport.runs import Run

#: What the overrides were read against; both bounds are checked when a transport is made.
_CHECKED = {"faust-streaming": ("0.15.3", "0.16"), "aiokafka": ("0.14.0", "0.15")}

#: What they override or lean on.
_LEANT_ON = (
    (driver.Consumer, ("getmany", "force_commit", "wait_empty", "perform_seek", "verify_event_path")),
    (driver.Consumer, ("_drain_messages", "_get_active_partitions", "_getmany", "_commit")),
    (driver.AIOKafkaConsumerThread, ("_create_worker_consumer", "_fetch_records", "_seek_wait")),
    (fetcher.Fetcher, ("_proc_fetch_request", "fetched_records")),
    (fetcher.PartitionRecords, ("_unpack_records", "_consumer_record")),
    (fetcher.FetchResult, ("getall", "check_assignment", "_update_position")),
    (TopicPartitionState, ("await_reset", "has_valid_position", "position", "pause", "resume")),
    (GroupCoordinator, ("_send_req",)),
)


class Transport(driver.Transport):  # type: ignore[misc]  # Faust ships no types
    """
    Faust's aiokafka transport with the batched consumer; the scheme is `freshet://`.

    Attributes
    ----------
    batched
        Names of the topics that come in runs.
    caller_commits
        Those of them that the caller releases and commits.
    max_buffered_runs
        Runs that may be out before fetching of batched topics waits.
    fetch_pause_s
        Pause before the next fetch while records trickle in; what the second of two records may wait for.

    """

    Consumer = Consumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_versions()
        self.batched: set[str] = set()
        self.caller_commits: set[str] = set()
        self.max_buffered_runs = 32
        self.fetch_pause_s = 0.005
        super().__init__(*args, **kwargs)


class _HandWatch(faust.Sensor):  # type: ignore[misc]  # Faust ships no types
    """Marks the runs that agents have in hand."""

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: Any) -> None:
        """Note that an agent took the event."""
        del tp, offset, stream
        if isinstance(event.value, Run):
            event.value.taken = event.value.in_hand = True

    def on_stream_event_out(self, tp: TP, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        """Note that the agent went on from the event."""
        del tp, offset, stream, state
        if isinstance(event.value, Run):
            event.value.in_hand = False


class _RunSchema(faust.Schema):  # type: ignore[misc]  # Faust ships no types
    """Hands a run to the agent as it is: bytes are decoded by the agent, for a whole run at once."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            del propagate
            return app.create_event(None, message.value, {}, message)

        return decode


def batched_topic(app: faust.App, *names: str, caller_commits: bool = False) -> Any:
    """
    Return a Faust topic over `names` whose agent receives `Run`s; give it to one agent.

    Parameters
    ----------
    app
        Its broker has a `freshet://` address.
    names
        Kafka's topic names.
    caller_commits
        Nothing is committed here, and every assigned partition waits for `Consumer.release`.

    Raises
    ------
    UnsupportedFaustError
        When the app's broker is not a `freshet://` address, so that runs would never come; when it uses Faust's own
        transactions, which are not supported; when a topic is batched already.

    """
    transport = app.transport
    if not isinstance(transport, Transport):
        raise UnsupportedFaustError("a batched topic needs the broker address freshet://host:port")
    if app.conf.processing_guarantee == ProcessingGuarantee.EXACTLY_ONCE:
        raise UnsupportedFaustError("a batched topic cannot be used with processing_guarantee='exactly_once'")
    if twice := sorted(transport.batched.intersection(names)):
        raise UnsupportedFaustError(f"{', '.join(twice)} is a batched topic already; it has one agent")
    if not transport.batched:
        app.sensors.add(_HandWatch())
    transport.batched.update(names)
    if caller_commits:
        transport.caller_commits.update(names)
    return app.topic(*names, schema=_RunSchema(key_type=bytes, value_type=bytes), acks=False)


def check_versions() -> None:
    """
    Refuse versions of Faust and aiokafka that the overrides were not checked with.

    Raises
    ------
    UnsupportedFaustError
        Naming the package and the range.

    """
    for package, (lowest, above) in _CHECKED.items():
        installed = Version(version(package))
        if not Version(lowest) <= installed < Version(above):
            raise UnsupportedFaustError(
                f"{package} {installed} is installed; the batched transport was checked with >={lowest},<{above}"
            )
    for owner, names in _LEANT_ON:
        for name in names:
            if not hasattr(owner, name):
                raise UnsupportedFaustError(f"{owner.__name__} has no {name}; the batched transport needs it")
