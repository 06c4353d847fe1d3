"""Checks of what Freshet leans on, for `freshet doctor`: Kafka, its topics and producers, Redis, the clock."""

from __future__ import annotations

import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from streams.kafka.deadline import Deadline
from streams.settings import Settings
from streams.topics import EVENT_TOPICS, TOPICS, full_name

Status = Literal["ok", "warn", "fail"]

#: Kafka answers a healthy client in milliseconds; this leaves time for what follows within the doctor's deadline.
_KAFKA_S = 10.0
#: Newest records looked at per event topic: a wrong partitioner shows in a few, and old mistakes should not count.
_SAMPLE = 200
#: librdkafka's offsets "so many before the end" count down from here (RD_KAFKA_OFFSET_TAIL_BASE).
_TAIL = -2_000
#: Behind by more than this, lists are seconds old.
_MUCH_LAG = 10_000
#: Local clock against Redis and records: freshness is measured in milliseconds, event times are judged in minutes.
_SKEW_OK_S = 1.0
_SKEW_BAD_S = 30.0
#: A list should be in Redis within milliseconds.
_SLOW_REDIS_S = 0.02


class Check(NamedTuple):
    """One answer: the name of what was checked, how it is, and a sentence."""

    name: str
    status: Status
    message: str


def check_kafka(settings: Settings, deadline: Deadline) -> Iterator[Check]:
    """Check the cluster, the topics, who is behind, and the newest records."""
    from streams.kafka.admin import check_topics, topic_partitions, wait_for_kafka

    settings = settings.model_copy(update={"kafka_timeout_s": min(_KAFKA_S, settings.kafka_timeout_s)})
    wait_for_kafka(settings)
    yield _cluster(settings)
    problems = check_topics(settings)
    yield (
        Check("topics", "fail", "; ".join(problems))
        if problems
        else Check("topics", "ok", f"all {len(TOPICS)} topics are as streams.topics says")
    )
    partitions = topic_partitions(settings)
    yield _co_partitioned(settings, partitions)
    yield _lag(settings)
    yield from _producers(settings, partitions, deadline)


def _cluster(settings: Settings) -> Check:
    from kafka import KafkaAdminClient

    from streams.kafka.clients import kafka_python_config

    client = KafkaAdminClient(
        **kafka_python_config(settings, request_timeout_ms=round(settings.kafka_timeout_s * 1000))
    )
    try:
        started = time.perf_counter()
        cluster = client.describe_cluster()
        took_ms = (time.perf_counter() - started) * 1000
        brokers = cluster["brokers"]
        version = client.get_broker_version_data(brokers[0]["broker_id"]).broker_version
    finally:
        client.close()
    told = ".".join(str(part) for part in version)
    return Check(
        "kafka",
        "ok",
        f"{settings.kafka_bootstrap} answers in {took_ms:.0f} ms: {len(brokers)} broker(s), protocol of Kafka {told}, "
        f"cluster {cluster['cluster_id']}",
    )


def _co_partitioned(settings: Settings, partitions: dict[str, int]) -> Check:
    counts = {
        name: partitions[full_name(settings, name)]
        for name, topic in TOPICS.items()
        if topic.co_partitioned and full_name(settings, name) in partitions
    }
    if not counts:
        return Check("partitions", "fail", "no topic keyed by user exists; `freshet topics create` makes them")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        return Check("partitions", "fail", f"topics keyed by user must have equal partition counts: {told}")
    return Check("partitions", "ok", f"{next(iter(counts.values()))} on each of the {len(counts)} topics keyed by user")


def _lag(settings: Settings) -> Check:
    from streams.kafka.admin import group_lags

    # What was replayed of dead letters is a position too, and no worker.
    lags = [lag for lag in group_lags(settings) if lag.group != settings.group("dead-letters-replay")]
    if settings.group("interest") not in {lag.group for lag in lags}:
        return Check("lag", "warn", "no interest worker has committed anything yet; `freshet worker` runs one")
    told = ", ".join(f"{lag.group} {lag.total}" for lag in lags)
    behind = any(lag.total > _MUCH_LAG for lag in lags)
    return Check("lag", "warn" if behind else "ok", f"records behind: {told}")


class _Sample:
    """The newest records of the event topics, counted by how they were partitioned."""

    def __init__(self, partitions: dict[str, int]) -> None:
        self.partitions = partitions
        self.seen: Counter[str] = Counter()
        self.without_key: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.crc32: Counter[str] = Counter()
        self.newest_ms = 0

    def add(self, topic: str, partition: int, key: bytes | None, timestamp_ms: int) -> None:
        """Count one record."""
        from streams.kafka.partitioner import partition_of

        self.newest_ms = max(self.newest_ms, timestamp_ms)
        self.seen[topic] += 1
        if key is None:
            self.without_key[topic] += 1
        elif partition_of(key, self.partitions[topic]) != partition:
            self.wrong[topic] += 1
            self.crc32[topic] += zlib.crc32(key) % self.partitions[topic] == partition

    def check(self) -> Check:
        """Judge the producers."""
        if not self.seen:
            return Check("partitioner", "warn", "no events yet, so no producer could be checked")
        told = []
        for topic in sorted(self.wrong | self.without_key):
            wrong, without = self.wrong[topic], self.without_key[topic]
            if wrong:
                cause = (
                    "its producer uses librdkafka's default; set partitioner=murmur2_random"
                    if self.crc32[topic] == wrong
                    else "its producer does not partition by murmur2 of the key"
                )
                told.append(f"{wrong} of the newest {self.seen[topic]} on {topic} are on a wrong partition: {cause}")
            if without:
                told.append(f"{without} of the newest {self.seen[topic]} on {topic} have no key")
        if not told:
            return Check("partitioner", "ok", f"the newest {self.seen.total()} events lie where murmur2 puts them")
        bad = any(self.wrong[topic] * 10 >= self.seen[topic] for topic in self.wrong)
        return Check("partitioner", "fail" if bad else "warn", "; ".join(told))


def _producers(settings: Settings, partitions: dict[str, int], deadline: Deadline) -> Iterator[Check]:
    names = [full_name(settings, name) for name in EVENT_TOPICS]
    sample = _Sample({name: partitions[name] for name in names if name in partitions})
    for message in _newest(settings, sample.partitions, deadline):
        sample.add(message.topic(), message.partition(), message.key(), message.timestamp()[1])
    yield sample.check()
    ahead_s = sample.newest_ms / 1000 - time.time()
    if ahead_s > _SKEW_OK_S:
        yield Check("record times", "warn", f"the newest event's record is {ahead_s:.1f} s ahead of this clock")
    else:
        age = f"{-ahead_s:.0f} s old" if sample.newest_ms else "not there yet"
        yield Check("record times", "ok", f"no event's record comes from the future; the newest is {age}")


def _newest(settings: Settings, partitions: dict[str, int], deadline: Deadline) -> Iterator[Any]:
    from confluent_kafka import KafkaError, TopicPartition

    from streams.errors import DependencyError
    from streams.kafka.bulk_read import reader

    consumer = reader(settings, isolation_level="read_uncommitted", queued_min_messages=1_000)
    waiting = {(topic, number) for topic, count in partitions.items() for number in range(count)}
    each = {topic: max(1, _SAMPLE // count) for topic, count in partitions.items()}
    try:
        consumer.assign([TopicPartition(topic, number, _TAIL - each[topic]) for topic, number in sorted(waiting)])
        while waiting:
            if deadline.passed:
                raise DependencyError("the newest events could not be read in time")
            message = consumer.poll(min(0.2, deadline.remaining_s()))
            if message is None:
                continue
            if message.error() is None:
                yield message
            elif message.error().code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- public constant
                waiting.discard((message.topic(), message.partition()))
    finally:
        consumer.close()


def check_redis(settings: Settings, deadline: Deadline) -> Iterator[Check]:
    """Check that Redis answers, how it behaves when full, and its clock against this one."""
    from redis.exceptions import RedisError

    from streams.refresh.cache import connect

    # A slow Redis is told as slow, not as away.
    client = connect(settings.model_copy(update={"redis_timeout_s": min(3.0, deadline.remaining_s())}))
    try:
        client.ping()
        times_s = sorted(_ping_s(client) for _ in range(5))
        yield _redis_check(settings, client, times_s[2])
        yield _clock(client)
    except (RedisError, OSError) as error:
        yield Check("redis", "fail", f"Redis at {settings.redis_url} does not answer: {error}")
        yield Check("clock", "warn", "not checked: Redis would have told the time")
    finally:
        client.close()


def _ping_s(client: Any) -> float:
    started = time.perf_counter()
    client.ping()
    return time.perf_counter() - started


def _redis_check(settings: Settings, client: Any, median_s: float) -> Check:
    from redis.exceptions import ResponseError

    told = f"{settings.redis_url} answers in {median_s * 1000:.1f} ms"
    try:
        server, memory = client.info("server"), client.info("memory")
    except ResponseError as error:
        return Check("redis", "ok", f"{told}; its version and memory policy may not be read ({error})")
    limit, policy = int(memory.get("maxmemory", 0)), str(memory.get("maxmemory_policy", "?"))
    told += f", version {server.get('redis_version', '?')}, {memory.get('used_memory_human', '?')} used"
    if limit and policy == "noeviction":
        return Check("redis", "warn", f"{told}; maxmemory-policy noeviction refuses lists when full: set volatile-lru")
    told += f", maxmemory {'none' if not limit else f'{limit >> 20} MiB'}, policy {policy}"
    if median_s > min(_SLOW_REDIS_S, settings.redis_timeout_s):
        return Check("redis", "warn", f"{told}; that is slow for a cache that is asked before each page")
    return Check("redis", "ok", told)


def _clock(client: Any) -> Check:
    """Compare with Redis' TIME; half the round trip is the error bar."""
    before = time.time()
    seconds, microseconds = client.time()
    after = time.time()
    skew_s = (before + after) / 2 - (seconds + microseconds / 1e6)
    told = f"this clock is {abs(skew_s) * 1000:.0f} ms {'ahead of' if skew_s >= 0 else 'behind'} Redis'"
    return Check("clock", _skew_status(abs(skew_s) - (after - before) / 2), told)


def _skew_status(skew_s: float) -> Status:
    if skew_s < _SKEW_OK_S:
        return "ok"
    return "warn" if skew_s < _SKEW_BAD_S else "fail"


def worst(checks: Sequence[Check]) -> Status:
    """
    Return the worst status of some checks.

    >>> worst([Check("a", "ok", ""), Check("b", "warn", "")])
    'warn'
    """
    found: defaultdict[str, int] = defaultdict(int, Counter(check.status for check in checks))
    if found["fail"]:
        return "fail"
    return "warn" if found["warn"] else "ok"
