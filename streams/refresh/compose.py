"""Composing the published list from what was ranked and what it was ranked from."""

from __future__ import annotations

import msgspec

from streams.refresh.rank import Ranked
from streams.wire.recommendations import AsOf, Assigned, Trigger, WrittenRecommendation


def recommendation_id(partition: int, version: int) -> str:
    """
    Return the short id of a list; versions count per partition, so it is unique within a namespace.

    >>> recommendation_id(3, 2**32 + 10)
    '3-10000000a'
    """
    return f"{partition:x}-{version:x}"


def compose(
    ranked: Ranked, *, user_id: str, surface: str, partition: int, version: int, generated_at_ms: int,
    event_ts_ms: int, ingested_at_ms: int, policy: str, model: str, as_of: AsOf, experiments: dict[str, Assigned],
    trigger: Trigger, events_applied: dict[str, int], stale: bool = False,
) -> WrittenRecommendation:  # fmt: skip
    """
    Return the list as it is published.

    Parameters
    ----------
    user_id
        Empty for the list of visitors without events.
    generated_at_ms, event_ts_ms, ingested_at_ms
        Now; time of the user's newest event; timestamp of the record that made the list due.

    """
    return WrittenRecommendation(
        version=version,
        user_id=user_id,
        surface=surface,
        recommendation_id=recommendation_id(partition, version),
        generated_at=generated_at_ms,
        event_ts=event_ts_ms,
        ingested_at=ingested_at_ms,
        policy=policy,
        model=model,
        as_of=as_of,
        experiments=experiments,
        items=msgspec.Raw(ranked.items_json),
        trigger=trigger,
        events_applied=events_applied,
        stale=stale,
    )
