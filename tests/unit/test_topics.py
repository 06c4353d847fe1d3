"""Topics: names, configuration and the promises that the rest of the code builds on."""

from __future__ import annotations

import pytest

from streams.settings import EVENT_TYPES, Settings
from streams.topics import EVENT_TOPICS, TOPICS, full_name
from streams.wire.limits import MAX_EVENT_BYTES, MAX_ITEM_BYTES


def test_names_are_the_plans() -> None:
    """These are the topics; a new one is a decision, and is made here too."""
    expected = [
        "views", "clicks", "carts", "purchases", "dislikes", "impressions", "user-erasures", "erasure-receipts",
        "merges", "items", "item-sightings", "item-vectors", "item-events", "signal-state", "item-signals",
            "item-neighbours",
        "item-rules", "user-state", "recommendations", "experiments", "models", "dead-letters",
    ]  # fmt: skip

    assert expected == list(TOPICS)
    assert EVENT_TYPES == EVENT_TOPICS


def test_co_partitioned_topics() -> None:
    """Exactly the topics whose partition numbers mean the same users are marked as such."""
    expected = {*EVENT_TYPES, "user-erasures", "merges", "user-state", "recommendations"}

    assert expected == {name for name, topic in TOPICS.items() if topic.co_partitioned}


def test_namespace_stands_before_the_name() -> None:
    """Two namespaces in one cluster have different topics."""
    assert full_name(Settings(), "clicks") == "clicks"
    assert full_name(Settings(namespace="shop"), "clicks") == "shop.clicks"


def test_unknown_topic_is_a_bug() -> None:
    """A misspelt topic fails at once."""
    with pytest.raises(KeyError, match="click"):
        full_name(Settings(), "click")


@pytest.mark.parametrize("name", sorted(TOPICS))
def test_configuration_fits_the_cleanup(name: str) -> None:
    """A compacted topic never expires records by age; the others say how long they keep them."""
    topic = TOPICS[name]
    config = topic.kafka_config()

    assert config["cleanup.policy"] == topic.cleanup
    assert ("retention.ms" in config) == (topic.cleanup == "delete")
    assert all(isinstance(value, str) for value in config.values())


def test_records_fit_their_topics() -> None:
    """The broker takes whatever the decoder would judge, and a dead letter of the largest refused record."""
    for name in EVENT_TYPES:
        assert TOPICS[name].max_message_bytes > MAX_EVENT_BYTES
    assert TOPICS["items"].max_message_bytes > MAX_ITEM_BYTES
    assert TOPICS["dead-letters"].max_message_bytes > max(TOPICS[name].max_message_bytes for name in EVENT_TYPES)


def test_tombstones_outlive_a_long_outage() -> None:
    """A consumer that was away for a week still sees what was deleted."""
    for topic in TOPICS.values():
        if topic.cleanup == "compact":
            assert int(topic.kafka_config()["delete.retention.ms"]) >= 7 * 86_400_000
