"""Users who are kept as the bytes of their record, those met longest ago first."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from streams.interests import codec
from streams.interests.budget import Budget

#: Bytes that Python keeps around a record: two objects and a place in a dict.
_OVERHEAD: Final = 250


class ColdUsers:
    """Checked records by user id; every byte is counted in the budget."""

    def __init__(self, budget: Budget) -> None:
        self._records: dict[str, bytes] = {}
        self._budget = budget
        self.get = self._records.get

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._records

    def __getitem__(self, user_id: str) -> bytes:
        return self._records[user_id]

    def head(self, user_id: str) -> bytes:
        """Return the head of a user's record; the one that stands for no list where the user is not kept here."""
        record = self._records.get(user_id)
        return codec.NO_HEAD if record is None else codec.head_of(record)

    def put(self, user_id: str, record: bytes) -> None:
        """Keep a user who is not kept here, behind all others."""
        self._records[user_id] = record
        self._budget.add_bytes(len(record) + _OVERHEAD)

    def drop(self, user_id: str) -> None:
        """Drop a user, if kept here."""
        record = self._records.pop(user_id, None)
        if record is not None:
            self._budget.add_bytes(-(len(record) + _OVERHEAD))

    def put_all(self, user_ids: Sequence[str], records: Iterable[bytes]) -> None:
        """Keep users who are not kept here, behind all others."""
        came = dict(zip(user_ids, records, strict=True))
        self._records |= came
        self._budget.add_bytes(sum(map(len, came.values())) + _OVERHEAD * len(came))

    def drop_all(self, user_ids: Iterable[str]) -> None:
        """Drop users, those who are kept here."""
        gone = [record for user_id in user_ids if (record := self._records.pop(user_id, None)) is not None]
        self._budget.add_bytes(-(sum(map(len, gone)) + _OVERHEAD * len(gone)))

    def pending(self) -> list[str]:
        """Return the users whose records say that a list is owed."""
        return [user_id for user_id, record in self._records.items() if codec.is_pending(record)]

    def drop_idle(self, before_ms: int, most: int) -> list[str]:
        """
        Drop users without an event since a time, and while states take too much those idle longest.

        Only the users met longest ago are looked at, `most` of them: called often, it keeps up.
        """
        gone: list[str] = []
        for user_id, record in itertools.islice(self._records.items(), most):
            newest_ms = codec.newest_ts_ms(record)
            if not (self._budget.over or 0 < newest_ms < before_ms):
                break
            gone.append(user_id)
            self._budget.add_bytes(-(len(record) + _OVERHEAD))
        for user_id in gone:
            del self._records[user_id]
        return gone

    def clear(self) -> None:
        """Give everything back to the budget."""
        self._budget.add_bytes(-(sum(map(len, self._records.values())) + _OVERHEAD * len(self._records)))
        self._records.clear()
