"""Rolling interest vectors: following events in place gives what the definition gives, whenever item vectors come."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings

from streams.catalogue.matrix import Catalogue
from streams.interests.slab import Slab
from streams.interests.state import UserState
from streams.interests.vectors import InterestVectors
from streams.settings import EVENT_TYPES, Settings
from tests.support.batches import batch_of
from tests.support.strategies import LATENESS_MS, Log, batches, logs, seeds

DIM = 12
SETTINGS = Settings(lateness_s=LATENESS_MS / 1000)


def by_definition(state: UserState, catalogue: Catalogue, options: Settings) -> npt.NDArray[np.float64]:
    """Return (3, dim): short, long and negative as the module's docstring defines them, by plain loops."""
    sums = np.zeros((3, catalogue.dim))
    now = state.newest_ts_ms
    for ts_ms, _, item_id, code in state.recent:
        vector = catalogue.vectors[catalogue.row(item_id)].astype(np.float64)
        weight = options.weights[EVENT_TYPES[code]]
        age_s = (now - ts_ms) / 1000
        if EVENT_TYPES[code] == "dislikes":
            sums[2] += weight * 0.5 ** (age_s / options.half_life_negative_s) * vector
        else:
            sums[0] += weight * 0.5 ** (age_s / options.half_life_short_s) * vector
            sums[1] += weight * 0.5 ** (age_s / options.half_life_long_s) * vector
    for item_id, tally in state.items.items():
        vector = catalogue.vectors[catalogue.row(item_id)].astype(np.float64)
        sums[1] += tally.mass * 0.5 ** ((now - tally.last_ts_ms) / 1000 / options.half_life_long_s) * vector
    return sums


def assert_same(expected: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> None:
    """Cosine of at least 1 - 1e-6 and the same length; zero is exactly zero."""
    for one, other in zip(expected, actual, strict=True):
        length = np.linalg.norm(one)
        # float32 has no such small numbers left; no list depends on them.
        if length < 1e-30:
            assert np.linalg.norm(other) <= 1e-30
            continue
        assert one @ other / (length * np.linalg.norm(other)) >= 1 - 1e-6
        assert abs(np.linalg.norm(other) / length - 1) <= 1e-5


def unit(rng: random.Random, dim: int = DIM) -> npt.NDArray[np.float32]:
    """Return a unit vector; every few are opposite, so that sums cancel."""
    vector = np.array([rng.gauss(0, 1) for _ in range(dim)])
    if rng.random() < 0.2:
        vector = np.eye(dim)[0] * rng.choice((-1, 1))
    scaled: npt.NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return scaled


def gathered(slab: Slab, users: list[str]) -> npt.NDArray[np.float64]:
    """Return (users, 3, dim)."""
    rows = [row for user_id in users if (row := slab.row(user_id)) is not None]
    return InterestVectors(slab).gather(np.array(rows, np.int64)).swapaxes(0, 1).astype(np.float64)


@settings(max_examples=40, deadline=None)
@given(logs(), seeds)
def test_incremental_equals_recomputed(log: Log, seed: int) -> None:
    """Through disorder, copies, departures, late and changing item vectors, every gathered sum is the defined one."""
    rng = random.Random(seed)
    catalogue = Catalogue(DIM)
    slab = Slab(SETTINGS, catalogue)
    ids = sorted({event.item_id for event in log.events})
    for item_id in ids[::2]:
        catalogue.set_vector(item_id, unit(rng))
    for part in batches(log.arrival(seed), seed):
        slab.fold(batch_of(part))
        if rng.random() < 0.3:
            catalogue.set_vector(rng.choice(ids), unit(rng))
        if rng.random() < 0.1:
            catalogue.drop_vector(rng.choice(ids))
        if rng.random() < 0.1 and len(slab):
            user_id = rng.choice(list(slab))
            record = slab.encode(user_id)
            slab.restore(user_id.encode(), record)
        if rng.random() < 0.4:
            users = rng.sample(list(slab), rng.randint(1, len(slab)))
            for user_id, actual in zip(users, gathered(slab, users), strict=True):
                state = slab.get(user_id)
                assert state is not None
                assert_same(by_definition(state, catalogue, SETTINGS), actual)


@settings(max_examples=15, deadline=None)
@given(logs(), seeds)
def test_restored_user_has_the_same_vectors(log: Log, seed: int) -> None:
    """Sums that followed every event equal those made anew from restored records."""
    rng = random.Random(seed)
    catalogue = Catalogue(DIM)
    for item_id in {event.item_id for event in log.events}:
        catalogue.set_vector(item_id, unit(rng))
    slab = Slab(SETTINGS, catalogue)
    for part in batches(list(log.events), seed):
        slab.fold(batch_of(part))
        users = list(slab)
        live = gathered(slab, users)
    restored = Slab(SETTINGS, catalogue)
    for user_id in users:
        restored.restore(user_id.encode(), slab.encode(user_id))
    for expected, actual in zip(live, gathered(restored, users), strict=True):
        assert_same(expected, actual)
