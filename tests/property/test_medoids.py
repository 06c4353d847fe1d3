"""Interests against scipy's clustering and plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from models.medoids import CLUSTERED, INTERESTS, find_medoids
from models.ranking import unit
from models.users import Owned

ITEMS, DIM = 60, 6


def owned(items: list[int], masses: list[float]) -> Owned:
    """Return the items of one user."""
    count = len(items)
    return Owned(np.array(items, np.int32), np.array(masses), np.zeros(count, np.bool_), np.array([count]))


@given(st.integers(0, 2**32 - 1), st.integers(0, ITEMS))
def test_interests_are_wards_clusters(seed: int, count: int) -> None:
    """The heaviest items in the clusters of scipy, the medoid of each, heaviest first, in whatever order they come."""
    random = np.random.default_rng(seed)
    vectors = unit(random.standard_normal((ITEMS, DIM)).astype(np.float32))
    vectors[::7] = 0
    items, masses = random.permutation(ITEMS)[:count].tolist(), random.integers(0, 9, count).astype(float).tolist()
    order = random.permutation(ITEMS)
    found = find_medoids(owned(items, masses), np.ones(1), vectors, order)
    turned = find_medoids(owned(items[::-1], masses[::-1]), np.ones(1), vectors, order)
    assert [one.tolist() for one in found] == [one.tolist() for one in turned]
    heaviest = sorted((-mass, order[item], item) for item, mass in zip(items, masses, strict=True) if mass and item % 7)
    expected = [item for _, _, item in heaviest[:CLUSTERED]]
    clustered = [item for item in found.clustered[0].tolist() if item >= 0]
    assert expected == clustered
    if not clustered:
        assert [-1] * INTERESTS == found.items[0].tolist()
        return
    points = vectors[clustered].astype(np.float64)
    labels = fcluster(linkage(points, "ward"), INTERESTS, "maxclust") if len(points) > 1 else np.ones(1, np.int32)
    of_items = found.of_items[0][: len(clustered)]
    assert (labels[:, None] == labels).tolist() == (of_items[:, None] == of_items).tolist()
    mass_of = dict(zip(items, masses, strict=True))
    weights = []
    for number, medoid in enumerate(item for item in found.items[0].tolist() if item >= 0):
        members = np.flatnonzero(of_items == number)
        squares = ((points[members, None] - points[members]) ** 2).sum(axis=(1, 2))
        assert squares[members.tolist().index(clustered.index(medoid))] <= squares.min() + 1e-6
        weights.append(sum(mass_of[clustered[member]] for member in members))
    assert sorted(weights, reverse=True) == weights
    np.testing.assert_allclose(found.importance[0, : len(weights)], np.array(weights) / weights[0])


def test_who_does_not_want_interests_has_none() -> None:
    """Nothing is clustered for weight 0."""
    vectors = np.eye(4, dtype=np.float32)
    found = find_medoids(owned([0, 1], [1.0, 2.0]), np.zeros(1), vectors, np.arange(4))
    assert [-1] * INTERESTS == found.items[0].tolist()
