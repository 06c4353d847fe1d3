"""`freshet erase`: have a user forgotten, and wait for the receipt."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

import msgspec
import orjson
import typer

from streams.commands.common import err, examples, guarded, out
from streams.commands.common import settings as read_settings
from streams.errors import DependencyError, FreshetError
from streams.settings import Settings
from streams.wire.erasures import Erasure, Receipt, decode_receipt
from streams.wire.limits import RejectedError, check_id

#: How long one call waits for a receipt, and so how long Ctrl-C may take.
_POLL_S = 0.2


@guarded
def erase(
    *,
    user: Annotated[str, typer.Argument(metavar="USER", help="User id, as in your events.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the receipt.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Longest wait for the receipt, in seconds.")] = 60.0,
    request_id: Annotated[
        str | None, typer.Option(help="Key of the receipt, random unless given; nothing that names the user.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one object.")] = False,
) -> None:
    """
    Forget a user: state, lists and what Redis holds, for everything sent until now. It cannot be taken back.

    Events that come later make a new user; what is read again from before does not bring this one back. The receipt,
    on erasure-receipts, is committed together with the erasure. With --wait the exit code is 4 when it does not come in
    time: the request stands all the same and is served when a worker runs.
    """
    settings = read_settings()
    erasure = _request(user, request_id)
    receipts = Receipts(settings, erasure.request_id) if wait else None
    try:
        _send(settings, erasure)
        if not as_json:
            err.print(f"request {erasure.request_id} sent", style="dim", markup=False, highlight=False)
        receipt = receipts.wait(timeout) if receipts is not None else None
    finally:
        if receipts is not None:
            receipts.close()
    _tell(erasure, receipt, as_json=as_json)


def _request(user: str, request_id: str | None) -> Erasure:
    try:
        user_id = check_id(user, "USER")
        named = check_id(request_id, "--request-id") if request_id is not None else uuid.uuid4().hex
    except RejectedError as error:
        raise FreshetError(error.rejected.error) from error
    return Erasure(user_id, named, round(time.time() * 1000))


def _send(settings: Settings, erasure: Erasure) -> None:
    from streams.commands.lookup import partition_counts
    from streams.commands.sending import Sender
    from streams.topics import full_name

    partition_counts(settings, "user-erasures")
    with Sender(settings) as sender:
        sender.send(full_name(settings, "user-erasures"), erasure.user_id.encode(), erasure.encode())
    if sender.refused:
        raise DependencyError(f"Kafka refused the request: {sender.refused[0]}")


class Receipts:
    """Receipts of one request id from now on: opened before the request is sent, so that none is missed."""

    def __init__(self, settings: Settings, request_id: str) -> None:
        from confluent_kafka import TopicPartition

        from streams.commands.lookup import partition_counts
        from streams.kafka.bulk_read import reader
        from streams.kafka.partitioner import partition_of
        from streams.topics import full_name

        self._key = request_id.encode()
        count = partition_counts(settings, "erasure-receipts")["erasure-receipts"]
        place = TopicPartition(full_name(settings, "erasure-receipts"), partition_of(self._key, count))
        self._consumer = reader(settings, queued_min_messages=1_000, fetch_wait_max_ms=100)
        try:
            place.offset = _end(self._consumer, place, settings.kafka_timeout_s)
        except DependencyError:
            self._consumer.close()
            raise
        self._consumer.assign([place])

    def wait(self, timeout_s: float) -> Receipt:
        """
        Return the receipt once it is committed.

        Raises
        ------
        DependencyError
            When it does not come in time, or Kafka cannot be read.

        """
        from confluent_kafka import KafkaError

        end_s = time.monotonic() + timeout_s
        with err.status("waiting for the receipt"):
            while time.monotonic() < end_s:
                message: Any = self._consumer.poll(_POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is not None:
                    if not error.retriable() and error.code() not in {
                        KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 -- public constants
                    }:  # fmt: skip
                        raise DependencyError(f"reading erasure-receipts failed: {error.str()}")
                elif message.key() == self._key:
                    return _decoded(message.value())
        raise DependencyError(
            f"no receipt for {self._key.decode()} within {timeout_s:g} s; the request stands: is an interest worker "
            "running? A refused request is in `freshet dead-letters list --topic user-erasures`"
        )

    def close(self) -> None:
        """Close the reader."""
        self._consumer.close()


def _end(consumer: Any, place: Any, timeout_s: float) -> int:
    """Return where a partition ends; one that has just been made has no leader for a moment."""
    from confluent_kafka import KafkaError, KafkaException

    end_s = time.monotonic() + timeout_s
    while True:
        try:
            _, end = consumer.get_watermark_offsets(place, timeout=timeout_s)
        except KafkaException as error:
            young = error.args[0].code() in {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
            if not young or time.monotonic() > end_s:
                raise DependencyError(f"reading erasure-receipts failed: {error.args[0].str()}") from error
            time.sleep(_POLL_S)
        else:
            return int(end)


def _decoded(value: bytes | None) -> Receipt:
    try:
        return decode_receipt(value or b"")
    except msgspec.DecodeError as error:
        raise FreshetError(f"the receipt cannot be read: {error}") from error


def _tell(erasure: Erasure, receipt: Receipt | None, *, as_json: bool) -> None:
    from streams.commands.lookup import local_time, printable

    if as_json:
        receipted = None if receipt is None else msgspec.to_builtins(receipt)
        shown = {"user_id": erasure.user_id, "request_id": erasure.request_id, "receipt": receipted}
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
        return
    user = printable(erasure.user_id)
    if receipt is None:
        text = f"user {user} will be forgotten; the receipt will be on erasure-receipts"
    else:
        place = f"user-erasures:{receipt.partition}:{receipt.offset}"
        text = f"user {user} is forgotten: what was sent until {local_time(receipt.erased_at)} is gone ({place})"
    out.print(text, markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add `erase` to the command line."""
    app.command(
        rich_help_panel="Kafka",
        epilog=examples("freshet erase 42 --wait", "freshet erase 42 --wait --json | jq .receipt.erased_at"),
    )(erase)
