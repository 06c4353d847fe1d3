"""The encoder's membership against a real Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from streams.encoding.intake import Intake
from streams.errors import InstanceFencedError
from streams.kafka.clients import librdkafka_config
from streams.settings import Settings
from streams.topics import full_name

pytestmark = pytest.mark.integration


def joined(settings: Settings) -> Intake:
    """A member that has partitions."""
    intake = Intake(settings, settings.group("encoder"))
    end = time.monotonic() + 30
    while not intake.held:
        assert time.monotonic() < end, "it got no partitions"
        intake.poll(0.2, full=False)
    return intake


def test_a_member_that_was_replaced_says_which_setting_is_wrong(settings_for: Callable[..., Settings]) -> None:
    """Two encoders with one instance id: the older one ends at its next commit, and says why."""
    settings = settings_for(kafka_group_instance_id="encoder-0")
    older = joined(settings)
    newer = joined(settings)
    try:
        with pytest.raises(InstanceFencedError, match="FRESHET_KAFKA_GROUP_INSTANCE_ID must differ"):
            older.commit(dict.fromkeys(older.held, 0))

        assert newer.commit(dict.fromkeys(newer.held, 0))
    finally:
        older.close()
        newer.close()


@pytest.mark.parametrize("wait_s", [0.0, 0.005, 0.2])
def test_added_partitions_come_however_short_the_polls(settings_for: Callable[..., Settings], wait_s: float) -> None:
    """
    A poll that ends while the group's leader joins again is not the last that looks at the join.

    Polls are as short as a busy encoder's until the join has begun, and wait from then on, as its do.
    """
    settings = settings_for(partitions=2)
    topic = full_name(settings, "items")
    admin = AdminClient(librdkafka_config(settings))
    intake = joined(settings)
    try:
        for count in range(3, 9):
            admin.create_partitions([NewPartitions(topic, count)])[topic].result(timeout=10)
            # kafka-python asks for all topics when it does not know one; otherwise it would take minutes to see.
            intake._consumer.partitions_for_topic("unknown")
            end = time.monotonic() + 10
            while intake.rebalancing or len(intake.shop_partitions) < count:
                assert time.monotonic() < end, f"partition {count} did not come"
                intake.poll(0.2 if intake.rebalancing else wait_s, full=False)
                intake._consumer.partitions_for_topic("unknown")
    finally:
        intake.close()


def test_a_start_joins_once(settings_for: Callable[..., Settings]) -> None:
    """The metadata is there before the first join, so that it need not be joined again."""
    intake = joined(settings_for())
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            intake.poll(0.1, full=False)

            assert not intake.rebalancing
        assert intake._consumer._coordinator.generation_if_stable().generation_id == 1
    finally:
        intake.close()


def test_a_join_that_does_not_end_is_begun_anew(settings_for: Callable[..., Settings]) -> None:
    """A rebalance of twice the session timeout is stuck: a new client joins, and everything held counts as lost."""
    intake = joined(settings_for())
    try:
        held, lost = set(intake.held), set[tuple[str, int]]()
        end = time.monotonic() + 30
        while not lost:
            # A second rebalance right after the first one may end in this poll: then it is not stuck.
            intake._changes.rebalancing = True
            intake._settled_at -= 1_000.0
            lost = intake.poll(0.2, full=False).lost

        assert held == lost
        while held != intake.held:
            assert time.monotonic() < end, "it did not join again"
            intake.poll(0.2, full=False)
        # The group may be settling still; a commit is refused until it has.
        while not intake.commit(dict.fromkeys(held, 0)):
            assert time.monotonic() < end, "it cannot commit"
            intake.poll(0.2, full=False)
    finally:
        intake.close()
