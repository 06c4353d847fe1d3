"""Which errors of Kafka's client pass by themselves."""

from __future__ import annotations

from confluent_kafka import KafkaError

#: A broker's refusals that pass by themselves, as while a partition's leader moves.
_PASSING = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)


def passes(error: KafkaError) -> bool:
    """
    Return whether a reader may go on: a broker's refusal that passes, or a report of the client's own (below 0).

    >>> passes(KafkaError(KafkaError.REQUEST_TIMED_OUT)), passes(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    (True, False)
    """
    return not error.fatal() and (error.code() < 0 or error.code() in _PASSING)
