"""Records that are written and sealed many at once are those that `codec.seal` makes one by one."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.interests import codec, layout, sealing
from streams.interests.state import EXCLUDING_TYPES
from streams.interests.writing import Copied, RecordWriter
from streams.wire.events import IMPRESSION
from tests.property.test_interests import folded
from tests.support.strategies import Log, logs

NO_BODY = {IMPRESSION, *EXCLUDING_TYPES}
BYTES = st.one_of(st.binary(max_size=40), st.integers(0, 3000).map(lambda size: (bytes(range(256)) * 12)[:size]))


@settings(deadline=None)
@given(st.lists(st.tuples(BYTES, BYTES, st.booleans(), st.booleans()), max_size=8))
def test_any_records_are_sealed(parts: list[tuple[bytes, bytes, bool, bool]]) -> None:
    """Checksums of any length of head and body, wherever the record begins, and whatever stood in their place."""
    expected = [codec.seal(head, body, pending=pending, erased=erased) for head, body, pending, erased in parts]
    unsealed = np.frombuffer(bytes(1) + b"".join(expected) + bytes(8), np.uint8)[1:-8].copy()
    ends = np.cumsum([len(record) for record in expected], dtype=np.int64)
    for end, record in zip(ends.tolist(), expected, strict=True):
        unsealed[end - len(record) + 12 : end - len(record) + 16] = 0xAA
    if parts:
        sealing.seal(unsealed, layout.words(unsealed), ends)

    assert b"".join(expected) == unsealed.tobytes()


@settings(max_examples=40, deadline=None)
@given(logs(), st.data(), st.integers(16, 5_000))
def test_records_hold_what_stands_around_the_bodies(log: Log, data: st.DataObject, buffer_bytes: int) -> None:
    """Any heads, margins, debts and erasures, in buffers of any size."""
    slab = folded([[event for event in log.events if event.type_code not in NO_BODY]])
    user_ids = sorted(slab)
    bodies = [codec.split(slab.encode(user_id))[1] for user_id in user_ids]
    kinds = st.tuples(BYTES, BYTES, st.booleans(), st.sampled_from([0, 0, 1, 2**41, 2**63 - 1]))
    told = data.draw(st.lists(kinds, min_size=len(user_ids), max_size=len(user_ids)))
    writer = RecordWriter()
    writer._buffer = np.full(buffer_bytes, 0xAA, np.uint8)
    around = layout.Around(
        np.array([owed for _, _, owed, _ in told], np.bool_),
        np.array([erased_at_ms for _, _, _, erased_at_ms in told], np.int64),
        *layout.joined([head for head, _, _, _ in told]),
        *layout.joined([margin for _, margin, _, _ in told]),
    )
    rows = np.array([slab.row(user_id) for user_id in user_ids], np.int64)
    copied = Copied(user_ids, writer.write(slab.store, slab._items.names, rows, around))

    at = codec.ERASED_AT_AT
    expected = [
        codec.seal(
            head,
            body[:at] + struct.pack("<q", erased_at_ms) + body[at + 8 :] + margin,
            pending=owed,
            erased=erased_at_ms > 0,
        )
        for (head, margin, owed, erased_at_ms), body in zip(told, bodies, strict=True)
    ]
    assert list(zip((user_id.encode() for user_id in user_ids), expected, strict=True)) == list(copied.records())
