"""The users of one owned partition: decoded events in, changed states out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from streams.errors import RecordFormatError
from streams.interests import codec
from streams.interests.fold import Change, Folding, Outcome
from streams.interests.state import Interaction, UserState
from streams.settings import EVENT_TYPES, Settings
from streams.wire.events import IMPRESSION, Event


@dataclass(slots=True)
class FoldResult:
    """
    What one run of events did.

    Attributes
    ----------
    touched
        Users whose body changed and whose record is therefore to be written.
    dirty
        Users who are owed a list, each with the index in the run of the last event that made it so.
    accepted
        Indices of the events that were applied, in order of arrival: each event of a user is here once, ever.
    changes
        What happened to the interactions of each touched user, for `InterestVectors.fold`.
    applied, late, duplicates
        Events by type name and outcome.

    """

    touched: dict[str, UserState] = field(default_factory=dict)
    dirty: dict[str, int] = field(default_factory=dict)
    accepted: list[int] = field(default_factory=list)
    changes: dict[str, Change] = field(default_factory=dict)
    applied: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)


class Slab:
    """
    States of the users of one partition, in memory; used from one thread.

    A restored record stays bytes until its user is met again: restoring is as fast as checking checksums, and users
    who stay away cost no more than their record.
    """

    def __init__(self, settings: Settings) -> None:
        self._folding = Folding(settings)
        self._users: dict[str, UserState | bytes] = {}

    def fold(self, events: Sequence[Event]) -> FoldResult:
        """Apply a run of events of this partition, in any order and any number of times."""
        result = FoldResult()
        counts: Counter[tuple[int, Outcome]] = Counter()
        for index, event in enumerate(events):
            user_id = event.user_id
            state = self.get(user_id)
            if state is None:
                state = self._users[user_id] = UserState()
            change = result.changes.get(user_id)
            if change is None:
                change = result.changes[user_id] = Change(state.revision)
            before = state.revision
            type_code = event.type_code
            if type_code == IMPRESSION:
                outcome = self._folding.impress(state, event.ts_ms, event.event_hash, event.items)
            else:
                interaction = Interaction(event.ts_ms, event.event_hash, event.item_id, type_code)
                outcome = self._folding.interact(state, interaction, change)
            counts[type_code, outcome] += 1
            if outcome == "applied":
                result.accepted.append(index)
            if state.revision != before:
                result.touched[user_id] = state
                if type_code != IMPRESSION:
                    state.pending = True
                    result.dirty[user_id] = index
        result.changes = {user_id: result.changes[user_id] for user_id in result.touched}
        for (type_code, outcome), count in counts.items():
            by_type = {"applied": result.applied, "late": result.late, "duplicate": result.duplicates}[outcome]
            by_type[EVENT_TYPES[type_code]] += count
        return result

    def get(self, user_id: str) -> UserState | None:
        """
        Return the state of a user, None for one never met.

        Raises
        ------
        RecordFormatError
            When the restored record passed its checksum but does not hold a state.

        """
        state = self._users.get(user_id)
        if isinstance(state, bytes):
            state = self._users[user_id] = codec.decode(state)
        return state

    def restore(self, key: bytes, value: bytes | None) -> None:
        """
        Take one changelog record; the last one of a user wins and None forgets the user.

        Raises
        ------
        RecordFormatError
            When the record or its key is damaged, or of an unknown version.

        """
        try:
            user_id = key.decode()
        except UnicodeDecodeError as error:
            raise RecordFormatError("the key of a user record is not UTF-8") from error
        if value is None:
            self._users.pop(user_id, None)
            return
        codec.check(value)
        self._users[user_id] = value

    def encode(self, user_id: str) -> bytes:
        """
        Return the changelog record of a user, head and body.

        Raises
        ------
        KeyError
            For a user never met.

        """
        state = self._users[user_id]
        return state if isinstance(state, bytes) else codec.encode(state)

    def pending(self) -> list[str]:
        """Return the users who are owed a list: after a restore, those whose list was not committed in time."""
        return [
            user_id
            for user_id, state in self._users.items()
            if (codec.is_pending(state) if isinstance(state, bytes) else state.pending)
        ]

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[str]:
        return iter(self._users)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._users
