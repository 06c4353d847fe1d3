"""What a role keeps for one partition, as its owner sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from confluent_kafka import Message

from streams.kafka.alignment import Slice
from streams.kafka.outgoing import OutRecord, OutRecords

if TYPE_CHECKING:
    from streams.kafka.owner import Owner

#: Key of a partition's control record on a role's changelog; no user id or item id can hold a control character.
CONTROL_KEY = b"\x00partition"


class Work(Protocol):
    """
    What a role keeps for one partition.

    `restore` runs in a thread before anything else; every other method runs on the event loop and must not block.
    The order of calls is `restore`, `opened`, then `fold` and `gather`, then `suspend` or `close`. A partition that
    comes back to the process that gave it up, with nobody else having written in between, goes on as it was: after
    `suspend` comes `opened` again and nothing is restored. What is held in between is committed, for nothing was
    folded after the last `gather`; whose list was owed then is told by `caught_up`. `close` may come at any time.
    """

    #: Kafka's name of the topic this state is restored from.
    changelog: str
    #: Kafka's ids of the topics this state was made from, by name. `restore` takes them from the control record that
    #: `opened` writes; the owner compares them with what is there, and tells those before `opened`.
    topic_ids: dict[str, str]

    @property
    def waits(self) -> bool:
        """Whether a commit is due though nothing was folded since the last."""

    def restore(self, messages: Sequence[Message]) -> None:
        """Take in changelog records, in offset order."""

    def opened(self, owner: Owner) -> Iterable[OutRecord]:
        """Begin; return the records that the first transaction writes (the control record)."""

    def fold(self, pieces: Sequence[Slice]) -> None:
        """Take in records, in offset order within a topic."""

    def caught_up(self) -> None:
        """Everything that lay in the topics when the partition was taken has been folded."""

    def gather(self) -> Iterable[OutRecord | OutRecords]:
        """Copy what the next transaction must hold, changed state and what is owed with it; a thread iterates it."""

    def suspend(self) -> None:
        """The partition is no longer ours and may come back: send nothing more, hold the state."""

    def close(self) -> None:
        """The partition is no longer ours: send nothing more, let the state go."""


class Kept(NamedTuple):
    """
    What a partition's last owner in this process left, whole and committed.

    Attributes
    ----------
    changelog_end
        The changelog's end behind the last commit. Whoever takes a partition writes there, so while the topic still
        ends here, nobody else had it.
    consumed
        The offsets committed with it.

    """

    work: Work
    changelog_end: int
    consumed: dict[str, int]
