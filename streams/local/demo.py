"""
The demo: a whole log goes through a running stack as live traffic, and what came out is summed up.

A year of events passes in a minute, so the worker accepts lateness of a month of event time; all else is as in
production.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import redis

from streams.datasets.log import Log
from streams.datasets.replay import load_items, replay
from streams.errors import DependencyError
from streams.kafka.admin import group_lags
from streams.local.kafka import PROJECT_ROOT
from streams.local.scrape import Metrics, scrape
from streams.local.stack import SHIFTS, Stack
from streams.refresh.cache import connect
from streams.wire.items import Item
from streams.wire.recommendations import Recommendation, decode_recommendation

#: Settings of the demo's worker; what the environment says wins.
WORKER_OPTIONS = {
    "FRESHET_ACCEPT_ITEMS_FROM_EVENTS": "true",
    "FRESHET_LATENESS_S": str(30 * 86400),
    "FRESHET_EXPERIMENTS_FILE": str(PROJECT_ROOT / "deploy" / "local" / "experiments.json"),
}

#: Nothing moved for so long: something is broken, and the person should read the logs.
_STALL_S = 90.0
_POLL_S = 0.25
_SHOWN_USERS = 3
_SHOWN_ITEMS = 5

Track = Callable[[str, int, int], None]


def run(stack: Stack, log: Log, *, limit: int | None, speed: float | None, track: Track) -> dict[str, Any]:
    """
    Load the items, replay the log, wait until every list is out, and return the summary as plain JSON values.

    Parameters
    ----------
    stack
        Up, with its roles ready.
    limit
        Replay only so many events; times are those of the whole log.
    track
        Called with a step's name, what is done and the total.

    Raises
    ------
    DependencyError
        When a role dies, or nothing moves for 90 s.

    """
    started = time.monotonic()
    _encode(stack, log, track)
    encoded = time.monotonic()
    before = scrape(stack.health_port("worker"))
    part = log.first(limit)
    total = len(part.entries)
    sent = replay(
        stack.settings,
        part,
        speed=speed,
        shift_ms=_shift_ms(stack, log),
        progress=lambda done: track("events replayed", done, total),
    )
    replayed = time.monotonic()
    _settle(stack, track)
    worked = scrape(stack.health_port("worker")).since(before)
    users = sorted({str(entry.fields["user_id"]) for entry in part.entries})
    lists = _lists(stack, users)
    return {
        "dataset": log.name,
        "events": {"sent": sent, "outcomes": _whole(worked.by("freshet_events_total", "outcome"))},
        "rejected": int(worked.total("freshet_events_total", outcome="rejected")),
        "lists_published": int(worked.total("freshet_lists_total", kind="user")),
        "freshness_s": _freshness(worked),
        "items_encoded": int(scrape(stack.health_port("worker")).total("freshet_catalogue_items", state="with_vector")),
        "users": {"in_log": len(users), "with_list": len(lists)},
        "lists": _shown(log, part, lists),
        "experiments": _buckets(lists),
        "seconds": {
            "encode": round(encoded - started, 1),
            "replay": round(replayed - encoded, 1),
            "settle": round(time.monotonic() - replayed, 1),
        },
    }


class _Patience:
    """Raises when what is watched stays the same for too long, or a role has died."""

    def __init__(self, stack: Stack, step: str) -> None:
        self._stack = stack
        self._step = step
        self._last: object = None
        self._since = time.monotonic()

    def watch(self, state: object) -> None:
        self._stack.check_alive()
        if state != self._last:
            self._last, self._since = state, time.monotonic()
        elif time.monotonic() - self._since > _STALL_S:
            logs = self._stack.settings.state_dir / "logs"
            raise DependencyError(
                f"{self._step}: nothing moved for {_STALL_S:g} s (at {state}); see the logs in {logs}"
            )
        time.sleep(_POLL_S)


def _encode(stack: Stack, log: Log, track: Track) -> None:
    """Load the items and wait until the encoder has been through them and the worker has their vectors."""
    if not log.items:
        return
    total = len({item.item_id for item in log.items})
    load_items(stack.settings, log.items)
    patience = _Patience(stack, "items encoded")
    while True:
        vectors = int(scrape(stack.health_port("worker")).total("freshet_catalogue_items", state="with_vector"))
        track("items encoded", min(vectors, total), total)
        waiting = _lag(stack, "encoder")
        if vectors >= total and waiting == 0:
            return
        patience.watch((vectors, waiting))


def _settle(stack: Stack, track: Track) -> None:
    """Wait until every event is folded and committed and every list is published and in Redis."""
    patience = _Patience(stack, "lists published")
    while True:
        metrics = scrape(stack.health_port("worker"))
        owed = int(metrics.total("freshet_dirty_users") + metrics.total("freshet_cache_owed"))
        unread = int(metrics.total("freshet_lag_records"))
        uncommitted = _lag(stack, "interest")
        track("events and lists waiting", owed + unread + (uncommitted or 0), 0)
        if owed == 0 and unread == 0 and uncommitted == 0:
            return
        patience.watch((owed, unread, uncommitted))


def _lag(stack: Stack, role: str) -> int | None:
    """Return the uncommitted records of a role's groups; None while it has committed nothing."""
    name = stack.settings.group(role)
    lags = [lag.total for lag in group_lags(stack.settings) if lag.group.startswith(name) and lag.by_topic]
    return sum(lags) if lags else None


def _shift_ms(stack: Stack, log: Log) -> int:
    """
    Return the log's shift to now, the same for every run on the same Kafka.

    A second run then sends the very same events, which the worker knows as duplicates.
    """
    path = stack.settings.state_dir / SHIFTS
    kafka = stack.settings.kafka_bootstrap if stack.external_kafka else "local"
    name = f"{kafka}/{stack.settings.namespace}/{log.name}"
    shifts: dict[str, int] = orjson.loads(path.read_bytes()) if path.exists() else {}
    if name not in shifts:
        shifts[name] = log.shift_to(round(time.time() * 1000))
        path.write_bytes(orjson.dumps(shifts))
    return shifts[name]


def _whole(counts: dict[str, float]) -> dict[str, int]:
    return {name: int(count) for name, count in counts.items()}


def _freshness(worked: Metrics) -> dict[str, float | int | None]:
    name = "freshet_freshness_seconds"
    quantiles = {f"p{percent}": worked.quantile(name, percent / 100) for percent in (50, 95, 99)}
    rounded = {label: None if value is None else round(value, 4) for label, value in quantiles.items()}
    return {**rounded, "count": int(worked.total(f"{name}_count"))}


def _lists(stack: Stack, users: list[str]) -> dict[str, Recommendation]:
    """Return the lists that are in Redis, by user."""
    settings = stack.settings
    try:
        # Nobody waits for a list here, so Redis may take longer than for a worker.
        with connect(settings.model_copy(update={"redis_timeout_s": 5.0})) as client:
            found: dict[str, Recommendation] = {}
            for start in range(0, len(users), 500):
                some = users[start : start + 500]
                values = client.mget([f"{settings.redis_prefix}rec:{user}" for user in some])
                found |= {user: decode_recommendation(value) for user, value in zip(some, values, strict=True) if value}
    except redis.RedisError as error:
        raise DependencyError(f"Redis at {settings.redis_url} did not answer ({error})") from error
    return found


def _shown(log: Log, part: Log, found: dict[str, Recommendation]) -> list[dict[str, Any]]:
    """Return the head of the lists of the users with the most events, with titles instead of ids."""
    titles = {item.item_id: _title(item) for item in log.items}
    active = Counter(str(entry.fields["user_id"]) for entry in part.entries if str(entry.fields["user_id"]) in found)
    return [
        {
            "user_id": user,
            "events_applied": found[user].events_applied,
            "items": [
                {
                    "title": titles.get(item.item_id, item.item_id),
                    "score": round(item.score, 4),
                    "source": item.source,
                    "because": [
                        {"title": titles.get(why.item_id, why.item_id), "type": why.type, "share": round(why.share, 3)}
                        for why in item.because
                    ],
                }
                for item in found[user].items[:_SHOWN_ITEMS]
            ],
        }
        for user, _ in active.most_common(_SHOWN_USERS)
    ]


def _title(item: Item) -> str:
    year = dict(item.attributes).get("year")
    return f"{item.title} ({year})" if year else item.title


def _buckets(found: dict[str, Recommendation]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for made in found.values():
        for key, assigned in made.experiments.items():
            counts.setdefault(key, Counter())[assigned.variant] += 1
    return {key: dict(sorted(variants.items())) for key, variants in sorted(counts.items())}
