"""
The topics of one namespace: create what is missing, say what differs.

`freshet topics create|check`, `freshet up` and the tests' fixtures use this; a role only checks.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import KafkaError as BrokerError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from kafka.net.compat import KafkaNetClient

from streams.errors import DependencyError, GroupBusyError, TopicMismatchError
from streams.kafka.clients import kafka_python_config, librdkafka_config, ssl_context
from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import TOPICS, Topic

R = TypeVar("R")

#: Kafka's own limit on one attempt to connect, so that a silent address does not use up the whole deadline.
_CONNECT_S = 3.0
#: A restarted KRaft broker was seen to know no topic for some seconds on a loaded machine.
_METADATA_S = 10.0


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a consumer group's commits stand behind the ends of its topics, in records (offsets)."""

    group: str
    by_topic: dict[str, int]

    @property
    def total(self) -> int:
        """Sum over topics."""
        return sum(self.by_topic.values())


def create_topics(settings: Settings) -> list[str]:
    """
    Create every topic of `streams.topics` that is missing; return their full names, sorted.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s` or refuses a topic.

    """
    with _client(settings) as client:
        existing = set(_ask(settings, client.list_topics))
        missing = {
            topic.full_name(settings): {
                "num_partitions": settings.partitions,
                "replication_factor": settings.replication,
                "configs": topic.kafka_config(),
            }
            for topic in TOPICS.values()
            if topic.full_name(settings) not in existing
        }
        if not missing:
            return []
        reply = _ask(settings, lambda: client.create_topics(missing, raise_errors=False))
        created = []
        for entry in reply["topics"]:
            error = for_code(entry["error_code"])
            if error is TopicAlreadyExistsError:  # somebody else was faster
                continue
            if entry["error_code"]:
                reason = entry.get("error_message") or error.description
                raise DependencyError(f"Kafka refused the topic {entry['name']}: {reason}")
            created.append(entry["name"])
        _ask(settings, lambda: client.wait_for_topics(list(missing), timeout_ms=_timeout_ms(settings)))
    return sorted(created)


def check_topics(settings: Settings) -> list[str]:
    """
    Return one sentence for each topic that is missing or unfit; an empty list means all is well.

    Checked: presence, equal partition counts where users must line up, the cleanup policy, and room for the largest
    message. Other settings are the operator's choice.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    return _check(settings)[0]


def _check(settings: Settings) -> tuple[list[str], dict[str, int]]:
    """Return the problems, and the partition counts they were looked for in."""
    with _client(settings) as client:
        partitions = _partition_counts(settings, client)
        present = [topic for topic in TOPICS.values() if topic.full_name(settings) in partitions]
        configs = _configs(settings, client, present)
    problems = [
        f"topic {topic.full_name(settings)} is missing; `freshet topics create` makes it"
        for topic in TOPICS.values()
        if topic not in present
    ]
    for topic in present:
        problems += _config_problems(topic, topic.full_name(settings), configs[topic.full_name(settings)])
    return problems + _count_problems(settings, partitions), partitions


def require_topics(settings: Settings) -> dict[str, int]:
    """
    Return the partition count of every topic, by full name, once every topic is as it must be.

    A broker that has just started may serve metadata before it has caught up with the controller, so what is missing
    is looked for again for a while.

    Raises
    ------
    TopicMismatchError
        With one sentence for each topic that is missing or unfit.
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    deadline = Deadline(_METADATA_S)
    while True:
        problems, partitions = _check(settings)
        if not problems:
            return partitions
        if deadline.passed:
            raise TopicMismatchError("; ".join(problems))
        time.sleep(0.5)


def topic_partitions(settings: Settings) -> dict[str, int]:
    """
    Return the partition count of every topic of this namespace that exists, by full name.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    with _client(settings) as client:
        return _partition_counts(settings, client)


def group_lags(settings: Settings) -> list[GroupLag]:
    """
    Return the lag of every consumer group of this namespace, by group name.

    Offsets are counted, so a transaction's markers count as records. A group that has committed nothing on a
    topic does not list it.

    Raises
    ------
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s`.

    """
    prefix = settings.group("")
    with _client(settings) as client:
        names = sorted(
            group["group_id"] for group in _ask(settings, client.list_groups) if group["group_id"].startswith(prefix)
        )
        if not names:
            return []
        offsets: dict[str, dict[TopicPartition, Any]] = _ask(settings, lambda: client.list_group_offsets(names))
        wanted = {partition for group in offsets.values() for partition in group}
        latest = dict.fromkeys(wanted, OffsetSpec.LATEST)
        ends = _ask(settings, lambda: client.list_partition_offsets(latest)) if wanted else {}
    lags = []
    for name in names:
        by_topic: dict[str, int] = {}
        for partition, committed in offsets.get(name, {}).items():
            behind = max(0, ends[partition].offset - committed.offset)
            by_topic[partition.topic] = by_topic.get(partition.topic, 0) + behind
        lags.append(GroupLag(name, dict(sorted(by_topic.items()))))
    return lags


def delete_group(settings: Settings, group: str) -> bool:
    """
    Delete a consumer group, and with it what it has committed; False where there is none.

    Raises
    ------
    GroupBusyError
        When the group has members.
    DependencyError
        When Kafka is away for longer than `kafka_timeout_s` or refuses.

    """
    _await_port(settings, time.monotonic() + settings.kafka_timeout_s)
    client = AdminClient(librdkafka_config(settings))
    (done,) = client.delete_consumer_groups([group], request_timeout=settings.kafka_timeout_s).values()
    try:
        done.result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == BrokerError.GROUP_ID_NOT_FOUND:
            return False
        if reason.code() == BrokerError.NON_EMPTY_GROUP:
            raise GroupBusyError(f"the consumer group {group} has members") from error
        raise DependencyError(f"Kafka did not delete the consumer group {group}: {reason.str()}") from error
    return True


def wait_for_kafka(settings: Settings) -> str:
    """
    Return the id of the Kafka cluster, once a broker answers.

    Raises
    ------
    DependencyError
        When none does within `kafka_timeout_s`.

    """
    deadline = time.monotonic() + settings.kafka_timeout_s
    _await_port(settings, deadline)
    # librdkafka, because a kafka-python client that gives up on a broker half started leaves its sockets open.
    client = AdminClient(librdkafka_config(settings) | {"log_level": 0})
    try:
        return str(client.list_topics(timeout=max(0.1, deadline - time.monotonic())).cluster_id)
    except KafkaException as error:
        raise _unreachable(settings, error) from error


@contextmanager
def _client(settings: Settings) -> Iterator[Any]:
    """Open an admin client under the deadline; a closed port is found here, before kafka-python retries in the log."""
    deadline = time.monotonic() + settings.kafka_timeout_s
    _await_port(settings, deadline)
    networks: list[KafkaNetClient] = []

    def network(**options: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**options))
        return networks[-1]

    try:
        client = KafkaAdminClient(
            **kafka_python_config(
                settings,
                bootstrap_timeout_ms=max(1, round((deadline - time.monotonic()) * 1000)),
                request_timeout_ms=_timeout_ms(settings),
                kafka_client=network,
            )
        )
    except (KafkaError, OSError) as error:
        # A constructor that fails leaves its connections and its thread behind.
        for left in networks:
            left.close()
            left._manager._net.stop()  # noqa: SLF001 -- there is no public way to it
        raise _unreachable(settings, error) from error
    try:
        yield client
    finally:
        client.close()


def _await_port(settings: Settings, deadline: float) -> None:
    """Wait until a broker accepts a connection, and TLS with its certificate checked where the settings say so."""
    servers = settings.kafka_bootstrap.split(",")
    context = ssl_context(settings)
    while True:
        for server in servers:
            timeout_s = min(_CONNECT_S, deadline - time.monotonic())
            try:
                _knock(server.strip(), context, max(0.05, timeout_s))
            except ssl.SSLCertVerificationError as error:  # waiting does not make it trusted
                raise DependencyError(
                    f"Kafka at {server} has a certificate that is not trusted ({error.verify_message}); "
                    "FRESHET_KAFKA_SSL_CA_FILE names the authority"
                ) from error
            except (OSError, ValueError) as error:
                reason = error
            else:
                return
        if time.monotonic() >= deadline:
            raise _unreachable(settings, reason) from reason
        time.sleep(0.1)


def _knock(server: str, context: ssl.SSLContext | None, timeout_s: float) -> None:
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        if context is not None:
            with context.wrap_socket(connection, server_hostname=host):
                pass


def _ask(settings: Settings, question: Callable[[], R]) -> R:
    try:
        return question()
    except (KafkaError, OSError) as error:
        raise _unreachable(settings, error) from error


def _unreachable(settings: Settings, error: BaseException) -> DependencyError:
    return DependencyError(
        f"Kafka at {settings.kafka_bootstrap} did not answer within {settings.kafka_timeout_s:g} s ({error})"
    )


def _timeout_ms(settings: Settings) -> int:
    return round(settings.kafka_timeout_s * 1000)


def _partition_counts(settings: Settings, client: Any) -> dict[str, int]:
    wanted = {topic.full_name(settings) for topic in TOPICS.values()}
    described = _ask(settings, client.describe_topics)
    return {entry["name"]: len(entry["partitions"]) for entry in described if entry["name"] in wanted}


def _configs(settings: Settings, client: Any, topics: list[Topic]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    names = ("cleanup.policy", "max.message.bytes")
    asked = [ConfigResource("topic", topic.full_name(settings), dict.fromkeys(names, "")) for topic in topics]
    reply = _ask(settings, lambda: client.describe_configs(asked, config_filter="all"))
    return {
        topic: {name: str(entry["value"]) for name, entry in configs.items()}
        for topic, configs in reply["topic"].items()
    }


def _config_problems(topic: Topic, name: str, found: dict[str, str]) -> list[str]:
    problems = []
    if set(found["cleanup.policy"].split(",")) != {topic.cleanup}:
        problems.append(f"topic {name} has cleanup.policy={found['cleanup.policy']}, expected {topic.cleanup}")
    if int(found["max.message.bytes"]) < topic.max_message_bytes:
        problems.append(
            f"topic {name} has max.message.bytes={found['max.message.bytes']}, "
            f"at least {topic.max_message_bytes} are needed"
        )
    return problems


def _count_problems(settings: Settings, partitions: dict[str, int]) -> list[str]:
    counts = {
        name: partitions[name]
        for topic in TOPICS.values()
        if topic.co_partitioned and (name := topic.full_name(settings)) in partitions
    }
    if len(set(counts.values())) <= 1:
        return []
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return [f"topics keyed by user must have equal partition counts, found {listed}"]
