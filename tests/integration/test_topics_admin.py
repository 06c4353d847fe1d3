"""Topics in a real Kafka: created once, differences named, a silent Kafka told in a sentence."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from kafka import KafkaAdminClient

from streams.errors import DependencyError
from streams.kafka.admin import check_topics, create_topics, group_lags, topic_partitions
from streams.kafka.clients import kafka_python_config, librdkafka_config
from streams.local.processes import free_port
from streams.settings import Settings
from streams.topics import TOPICS, full_name

pytestmark = pytest.mark.integration


def test_created_topics_pass_the_check(settings_for: Callable[..., Settings]) -> None:
    """All topics of the code are created with the asked partitions, and a second call creates nothing."""
    settings = settings_for(partitions=3)

    assert {topic.full_name(settings): 3 for topic in TOPICS.values()} == topic_partitions(settings)
    assert [] == check_topics(settings)
    assert [] == create_topics(settings)


def test_each_difference_is_one_sentence(settings_for: Callable[..., Settings]) -> None:
    """A missing topic, an odd partition count, a wrong cleanup and too small messages are named with the topic."""
    settings = settings_for(partitions=2)
    clicks, carts, items = (full_name(settings, name) for name in ("clicks", "carts", "items"))
    admin = AdminClient(librdkafka_config(settings))
    admin.create_partitions([NewPartitions(clicks, 5)])[clicks].result(timeout=10)
    client = KafkaAdminClient(**kafka_python_config(settings))
    client.delete_topics([carts, items])
    changed = {"cleanup.policy": "delete", "max.message.bytes": "1000"}
    while items in client.list_topics():
        time.sleep(0.05)
    client.create_topics({items: {"num_partitions": 2, "configs": changed}}, wait_for_metadata=True)
    client.close()

    problems = check_topics(settings)

    assert f"topic {carts} is missing; `freshet topics create` makes it" in problems
    assert f"topic {items} has cleanup.policy=delete, expected compact" in problems
    assert f"topic {items} has max.message.bytes=1000, at least 1048576 are needed" in problems
    assert f"{clicks} 5" in problems[-1]
    assert 4 == len(problems)


def test_lag_counts_what_a_group_has_not_committed(settings_for: Callable[..., Settings]) -> None:
    """Lag is the distance of a group's commits to the ends of its topics; other namespaces do not show."""
    settings = settings_for(partitions=1)
    topic = full_name(settings, "views")
    producer = Producer(librdkafka_config(settings))
    for _ in range(10):
        producer.produce(topic, value=b"x")
    assert 0 == producer.flush(10)
    consumer = Consumer(librdkafka_config(settings, group_id=settings.group("interest")))
    consumer.commit(offsets=[TopicPartition(topic, 0, 4)], asynchronous=False)
    consumer.close()

    (lag,) = group_lags(settings)

    assert (settings.group("interest"), {topic: 6}, 6) == (lag.group, lag.by_topic, lag.total)
    assert [] == group_lags(settings_for(partitions=1))


def test_a_silent_kafka_is_told_in_a_sentence() -> None:
    """Kafka away for longer than its timeout is a dependency error that names the address."""
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{free_port()}", kafka_timeout_s=0.3)

    with pytest.raises(DependencyError, match=rf"Kafka at {settings.kafka_bootstrap} did not answer within 0\.3 s"):
        check_topics(settings)
