"""
What can go wrong, as the person who runs Freshet sees it.

Bad input is not here: a record that cannot be used is a value (`streams.wire.events.Rejected`), never an
exception. A broken dependency is an exception below; a bug is any other exception and ends the process.
"""

from __future__ import annotations


class FreshetError(Exception):
    """Base of every error Freshet raises on purpose; its text is a sentence for the operator."""

    exit_code = 1


class ConfigurationError(FreshetError):
    """A setting is missing, malformed or contradicts another; the message names the setting."""

    exit_code = 2


class InstanceFencedError(ConfigurationError):
    """Another process is a static member of the group under the same instance id; the older one ends."""


class TopicMismatchError(FreshetError):
    """A topic is missing or differs from `streams.topics` (partitions, cleanup); nothing was consumed."""

    exit_code = 3


class AssignmentError(FreshetError):
    """The event topics' assigned partition numbers are not the same set, so users would be torn apart."""

    exit_code = 3


class DependencyError(FreshetError):
    """Kafka, Redis or a file did not answer within its deadline."""

    exit_code = 4


class GroupBusyError(FreshetError):
    """A consumer group still has members, so it cannot be deleted."""


class CommitError(DependencyError):
    """A transaction failed and was aborted; the process ends and the records are read again."""


class BrokenTransactionError(CommitError):
    """The open transaction takes no more records; its commit, which asks the coordinator, says what became of it."""


class FencedError(FreshetError):
    """Another worker has taken this partition, or may have; it is dropped at once, nothing of ours was committed."""


class RecordFormatError(FreshetError):
    """A durable record (state, vector, signal) is damaged or of a version this build cannot read."""


class UnsupportedFaustError(ConfigurationError):
    """The installed Faust or aiokafka is outside the versions the batched transport was checked with."""


class ModelError(FreshetError):
    """A model folder is incomplete, altered, of a refused architecture, or gave a vector that is not finite."""

    exit_code = 5
