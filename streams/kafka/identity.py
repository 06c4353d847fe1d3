"""Which topic a name stands for: Kafka gives each an id, which one that is deleted and made anew does not keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.errors import DependencyError, TopicMismatchError
from streams.kafka.deadline import Deadline
from streams.kafka.patience import answered

#: What a broker that keeps no ids (before Kafka 2.8) tells: sixteen zero bytes.
_NO_ID = "A" * 22


def topic_ids(client: AdminClient, topics: Sequence[str], deadline: Deadline) -> dict[str, str]:
    """
    Return Kafka's id (KIP-516) of each topic that has one.

    Raises
    ------
    DependencyError
        When Kafka does not answer before the deadline.

    """

    def ask(timeout_s: float) -> dict[str, str]:
        described = client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
        return {topic: str(found.result().topic_id) for topic, found in described.items()}

    try:
        ids = answered(ask, deadline)
    except KafkaException as error:
        raise DependencyError(f"asking for the ids of topics failed: {error.args[0].str()}") from error
    return {topic: found for topic, found in ids.items() if found != _NO_ID}


def check_same(former: Mapping[str, str], present: Mapping[str, str], partition: int) -> None:
    """
    Hold the topics that a partition's offsets were committed on against those that bear their names now.

    Kafka deletes a group's offsets together with their topic, but a worker that runs meanwhile commits them once more.
    They lie past the new topic's end, which is refused, only until it has grown; then they would skip records of it.

    Parameters
    ----------
    former, present
        Ids by topic; those without a committed offset left out of `former`.

    Raises
    ------
    TopicMismatchError
        When one was deleted and made anew since.

    >>> check_same({"clicks": "a"}, {"clicks": "a", "views": "b"}, partition=3)
    >>> check_same({"clicks": "a"}, {"clicks": "c"}, partition=3)
    Traceback (most recent call last):
        ...
    streams.errors.TopicMismatchError: clicks was deleted and made anew (id a before, c now), but ...

    """
    for topic, known in former.items():
        if present.get(topic, known) != known:
            raise TopicMismatchError(
                f"{topic} was deleted and made anew (id {known} before, {present[topic]} now), but the group still has "
                f"a committed offset of the former one for partition {partition}: delete the group's offsets of "
                f"{topic} (kafka-consumer-groups.sh --delete-offsets) to read the new one from its start"
            )
