"""F25: damaged records on the changelog cost the users they belong to their history, and nobody else anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.kafka.partitioner import partition_of
from streams.topics import full_name
from tests.support.compaction import compact
from tests.support.roles import RoleProcess
from tests.support.scene import Fault, Scene, rows
from tests.support.shop import producer
from tests.support.states import check_states
from tests.support.verifier import check_everything, read_topic

pytestmark = [pytest.mark.integration, pytest.mark.faults]

_DAMAGED = ("u0", "u1", "u2", "u3", "u4")


def plant(scene: Scene) -> RoleProcess:
    """
    Write records nobody can read over those of some users, behind the back of a worker that has stopped.

    Cut, altered, of another version, empty, and not a record at all. Returns the worker.
    """
    worker = scene.worker()
    scene.send(2_000)
    scene.settle()
    worker.process.terminate()
    worker.wait(30)
    settings = scene.settings
    newest = {read.key: read.value or b"" for read in read_topic(settings, "user-state")}
    whole, altered, other = newest[b"u0"], newest[b"u1"], newest[b"u2"]
    planted = (
        whole[: len(whole) // 2],
        altered[:40] + bytes([altered[40] ^ 1]) + altered[41:],
        other[:2] + b"\xff" + other[3:],
        b"",
        b"not a state",
    )
    out = producer(settings)
    for user, value in zip(_DAMAGED, planted, strict=True):
        key = user.encode()
        out.produce(full_name(settings, "user-state"), value, key, partition_of(key, settings.partitions))
    assert out.flush(30) == 0
    return worker


def told(worker: RoleProcess) -> None:
    """Hold that every damaged record was counted."""
    assert len(_DAMAGED) == worker.metric("freshet_state_records_damaged_total")


def damaged(scene: Scene) -> None:
    """The record before the damaged one is still there, and stands."""
    worker = plant(scene)
    told(worker.start().ready())
    scene.send(1_500)


def damaged_and_compacted(scene: Scene) -> None:
    """Only the damaged ones are left: those users begin again."""
    worker = plant(scene)
    compact(scene.settings, "user-state")
    told(worker.start().ready())
    for user in _DAMAGED:
        scene.oracle.forget(user)
    scene.send(1_500)


_HOLDS = "I1 I2 I4 I5 I12"


@rows(
    Fault("F25", "changelog records damaged", "planted bytes, restart", _HOLDS, damaged, quick=True),
    Fault(
        "F25", "changelog records damaged, nothing behind them", "planted bytes, compaction, restart", _HOLDS,
        damaged_and_compacted,
    ),
)  # fmt: skip
def test_damage_is_told_and_stays_where_it_is(fault: Fault, staged_scene: Callable[[Fault], Scene]) -> None:
    """The damaged are counted and begin again from what is left of them; all others keep every event."""
    scene = staged_scene(fault)
    fault.inject(scene)
    scene.settle()
    check_everything(scene.settings, scene.oracle)
    check_states(scene.settings, scene.oracle)
