"""Decoded events as the columns that a slab folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.segments import device_code
from streams.interests.batch import EventBatch, Texts
from streams.wire.events import IMPRESSION, Event


def batch_of(events: Sequence[Event], devices: Sequence[str] = ()) -> EventBatch:
    """Return events in the order of (time, hash), as `streams.interests.ingest` gives them where it knows devices."""
    ordered = sorted(events, key=lambda event: (event.ts_ms, event.event_hash))
    acted = [event for event in ordered if event.type_code != IMPRESSION]
    count = len(acted)
    return EventBatch(
        users=Texts.of([event.user_id for event in acted]),
        items=Texts.of([event.item_id for event in acted]),
        event_ids=Texts.of([event.event_id for event in acted]),
        ts=np.array([event.ts_ms for event in acted], np.int64),
        event_hash=np.array([event.event_hash for event in acted], np.uint64),
        kind=np.array([event.type_code for event in acted], np.uint8),
        device=np.array([device_code(event.device, devices) for event in acted], np.uint8),
        offset=np.arange(count),
        record_ms=np.array([event.ts_ms for event in acted], np.int64),
        impressions=[event for event in ordered if event.type_code == IMPRESSION],
    )
