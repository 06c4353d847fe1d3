"""
The `encoder-changes` benchmark: what is encoded twice or lost when an encoder is killed, or a catalogue told anew.

A real worker with the default model is killed in the middle of a catalogue of Complete Journey texts and started again.
Then the shop tells all items once more, a share of them with another text. What counts is how many items were encoded,
not how fast, so that the machine may be busy: `out_before` have the vector of their text before each row, and of those
none should be encoded again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from models.text import content_hash
from streams.encoding.backlog import text_of
from streams.kafka.admin import group_lags
from streams.settings import Settings
from streams.wire.items import Item
from tests.bench.encoder.texts import numbered
from tests.bench.stream.broker import services
from tests.support.encoders import put, vectors
from tests.support.roles import RoleProcess
from tests.support.verifier import read_topic

#: A producer's queue holds 100,000 records.
_PUT = 20_000
_GIVE_UP_S = 3_600.0


def measure(count: int, share: float, threads: int) -> list[dict[str, Any]]:
    """Return a row of the kill and one of the changes."""
    with services() as bench:
        settings = bench.settings_for(device="cpu", encoder_threads=threads, cache_dir=bench.cache_dir)
        items = numbered(bench.cache_dir, count)
        _tell(settings, items)
        with RoleProcess("encoder", settings, bench.folder) as role:
            role.ready()
            return [_killed(role, settings, items), _changed(role, settings, items, share)]


def _killed(role: RoleProcess, settings: Settings, items: list[Item]) -> dict[str, Any]:
    """Kill the worker when half of the items are out, and let it begin again."""
    _wait(lambda: _count(role) >= len(items) / 2)
    role.kill()
    out = len(read_topic(settings, "item-vectors"))
    began = time.perf_counter()
    role.start().ready()
    _wait(lambda: _is_done(settings))
    took_s = time.perf_counter() - began
    written = [record.key for record in read_topic(settings, "item-vectors")]
    return {
        "name": "kill -9 in the middle",
        "items": len(items),
        "out_before": out,
        "encoded": _count(role),
        "written_twice": len(written) - len(set(written)),
        "without_their_vector": _without(settings, items),
        "seconds": round(took_s, 1),
    }


def _changed(role: RoleProcess, settings: Settings, items: list[Item], share: float) -> dict[str, Any]:
    """Tell everything anew, a share of it with another text."""
    before = _count(role)
    written = len(read_topic(settings, "item-vectors"))
    renamed = set(random.Random(7).sample(range(len(items)), round(share * len(items))))
    told = [
        replace(item, title=f"{item.title} anew") if number in renamed else item for number, item in enumerate(items)
    ]
    began = time.perf_counter()
    _tell(settings, told)
    _wait(lambda: _is_done(settings))
    took_s = time.perf_counter() - began
    return {
        "name": f"{share:.0%} changed",
        "items": len(items),
        "out_before": len(items) - len(renamed),
        "encoded": _count(role) - before,
        "written_twice": len(read_topic(settings, "item-vectors")) - written - len(renamed),
        "without_their_vector": _without(settings, told),
        "seconds": round(took_s, 1),
    }


def _without(settings: Settings, items: list[Item]) -> int:
    """Return how many items lack the vector of their newest text."""
    found = {item_id: vector.content_hash for item_id, vector in vectors(settings).items()}
    return sum(found.get(item.item_id) != content_hash(text_of(item)) for item in items)


def _tell(settings: Settings, items: list[Item]) -> None:
    for start in range(0, len(items), _PUT):
        put(settings, *items[start : start + _PUT])


def _count(role: RoleProcess) -> int:
    """Return the items that this process has encoded."""
    return round(role.metric("freshet_encoder_items_total", outcome="encoded"))


def _is_done(settings: Settings) -> bool:
    """Whether all that was told is encoded and committed."""
    return all(lag.total == 0 for lag in group_lags(settings))


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _GIVE_UP_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {_GIVE_UP_S:g} s")
        time.sleep(0.2)
