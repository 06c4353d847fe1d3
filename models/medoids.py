"""
What a user is interested in for long: a few items that stand for the kinds of items in the history.

Ward clustering of the heaviest items, the medoid of each cluster, its importance by decayed mass: Pal et al.,
"PinnerSage: Multi-Modal User Embedding Framework for Recommendations at Pinterest", KDD 2020. One vector for all of a
history lies between its kinds and near to none of them.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.compiled import compiled
from models.contenders import Rows
from models.events import Weighing
from models.ranking import Barred
from models.reasons import Groups, dot
from models.scan import exact_top, interests
from models.users import Owned

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

#: Interests of a user at most.
INTERESTS: Final = 3
#: The heaviest items of a history that are clustered: their distances are half of what this costs, some 60 us a user.
CLUSTERED: Final = 32


class Medoids(NamedTuple):
    """
    The interests of n users, the heaviest first.

    Attributes
    ----------
    items
        (n, INTERESTS) int32, the medoids; -1 behind the last.
    importance
        (n, INTERESTS) float64, mass as a share of that of the heaviest.
    heaviest
        (n,) float64, the mass of the heaviest.
    clustered
        (n, CLUSTERED) int32, the items that were clustered, heaviest first; -1 behind the last.
    of_items
        (n, CLUSTERED) int64, the interest of each.

    """

    items: Int32
    importance: Doubles
    heaviest: Doubles
    clustered: Int32
    of_items: Ints


class _Desk(NamedTuple):
    """Scratch of one user: (CLUSTERED,) each, and (CLUSTERED, CLUSTERED)."""

    masses: Doubles
    sizes: Ints
    of_clusters: Doubles
    apart: Doubles
    merged: Doubles


def no_medoids(users: int) -> Medoids:
    """Return users without interests."""
    return Medoids(
        np.full((users, INTERESTS), -1, np.int32), np.zeros((users, INTERESTS)), np.zeros(users),
        np.full((users, CLUSTERED), -1, np.int32), np.zeros((users, CLUSTERED), np.int64),
    )  # fmt: skip


def find_medoids(owned: Owned, wanted: Doubles, vectors: Floats, order: Ints) -> Medoids:
    """
    Return the interests of users by the items they own; those with whom it counts nothing have none.

    Parameters
    ----------
    wanted
        (n,) float64, what it counts.
    vectors
        (rows, d) unit vectors, zeros for items without, which are passed over.
    order
        (rows,) int64: of items of one mass the one of the smaller comes first.

    """
    found = no_medoids(len(wanted))
    if (wanted > 0).any():
        desk = _Desk(
            np.zeros(CLUSTERED), np.zeros(CLUSTERED, np.int64), np.zeros(CLUSTERED),
            np.zeros((CLUSTERED, CLUSTERED)), np.zeros((CLUSTERED, CLUSTERED)),
        )  # fmt: skip
        _find(owned, wanted, vectors, order, found, desk)
    return found


def near_medoids(medoids: Medoids, searched: Rows, barred: Barred, count: int) -> Int32:
    """Return the items (n, INTERESTS * count) that are nearest to each interest, -1 behind the last of each."""
    users = len(medoids.heaviest)
    places = np.flatnonzero(medoids.items >= 0)
    if not len(places):
        return np.empty((users, 0), np.int32)
    starts = np.append(0, barred.ends)
    mine = [barred.columns[starts[user] : starts[user + 1]] for user in (places // INTERESTS).tolist()]
    ends = np.cumsum([len(columns) for columns in mine], dtype=np.int64)
    asked = interests(searched.vectors[medoids.items.reshape(-1)[places]])
    found = np.full((users * INTERESTS, count), -1, np.int32)
    found[places] = exact_top(asked, searched, count, Barred(np.concatenate(mine), ends)).columns
    return found.reshape(users, INTERESTS * count)


@compiled
def _find(owned: Owned, wanted: Doubles, vectors: Floats, order: Ints, found: Medoids, desk: _Desk) -> None:
    for user in range(len(wanted)):
        if wanted[user] <= 0.0:
            continue
        count = _heaviest(owned, user, vectors, order, found.clustered[user], desk.masses)
        _compare(vectors, found.clustered[user], count, desk.apart)
        _cluster(desk, count, found.of_items[user])
        _tell(found, user, count, desk)


@compiled
def _heaviest(owned: Owned, user: int, vectors: Floats, order: Ints, items: Int32, masses: Doubles) -> int:
    """Choose a user's heaviest items that have a vector; return how many there are."""
    count = 0
    for place in range(owned.ends[user - 1] if user else 0, owned.ends[user]):
        item, mass = owned.items[place], owned.masses[place]
        if item >= len(vectors) or mass <= 0.0 or dot(vectors[item], vectors[item]) == 0.0:
            continue
        at = count
        while at > 0 and (mass > masses[at - 1] or (mass == masses[at - 1] and order[item] < order[items[at - 1]])):
            if at < len(items):
                items[at], masses[at] = items[at - 1], masses[at - 1]
            at -= 1
        if at < len(items):
            items[at], masses[at] = item, mass
            count = min(count + 1, len(items))
    return count


@compiled
def _compare(vectors: Floats, items: Int32, count: int, apart: Doubles) -> None:
    """Fill the squared distances between items; their vectors have length 1."""
    for one in range(count):
        apart[one, one] = 0.0
        for other in range(one):
            apart[one, other] = max(2.0 - 2.0 * dot(vectors[items[one]], vectors[items[other]]), 0.0)
            apart[other, one] = apart[one, other]


@compiled
def _cluster(desk: _Desk, count: int, of_items: Ints) -> None:
    """
    Merge the two clusters that are nearest by Ward's criterion until so few are left as there may be interests.

    By the recurrence of Lance and Williams over squared distances. A cluster is named after its first item. Of equal
    pairs the first is merged.
    """
    merged, sizes = desk.merged, desk.sizes
    for one in range(count):
        of_items[one], sizes[one] = one, 1
        for other in range(count):
            merged[one, other] = desk.apart[one, other]
    for _ in range(count - INTERESTS):
        first, second, least = 0, 0, math.inf
        for one in range(count):
            for other in range(one + 1, count):
                if sizes[one] > 0 and sizes[other] > 0 and merged[one, other] < least:
                    first, second, least = one, other, merged[one, other]
        for other in range(count):
            if sizes[other] > 0 and other not in (first, second):
                whole = np.float64(sizes[first] + sizes[second] + sizes[other])
                apart = (sizes[first] + sizes[other]) * merged[first, other]
                apart += (sizes[second] + sizes[other]) * merged[second, other] - sizes[other] * least
                merged[first, other] = merged[other, first] = apart / whole
        sizes[first] += sizes[second]
        sizes[second] = 0
        for item in range(count):
            if of_items[item] == second:
                of_items[item] = first


@compiled
def _tell(found: Medoids, user: int, count: int, desk: _Desk) -> None:
    """Name the medoids of a user's clusters, the heaviest first, and number the clusters in that order."""
    items, of_items = found.clustered[user], found.of_items[user]
    for cluster in range(count):
        desk.of_clusters[cluster] = 0.0
    for item in range(count):
        desk.of_clusters[of_items[item]] += desk.masses[item]
    for number in range(min(count, INTERESTS)):
        heaviest = 0
        for cluster in range(count):
            if desk.of_clusters[cluster] > desk.of_clusters[heaviest]:
                heaviest = cluster
        mass = desk.of_clusters[heaviest]
        if number == 0:
            found.heaviest[user] = mass
        found.importance[user, number] = mass / found.heaviest[user]
        found.items[user, number] = items[_medoid(desk.apart, of_items, heaviest, count)]
        for item in range(count):
            if of_items[item] == heaviest:
                # No cluster is named so.
                of_items[item] = CLUSTERED + number
        desk.of_clusters[heaviest] = -1.0
    for item in range(count):
        of_items[item] -= CLUSTERED


@compiled
def _medoid(apart: Doubles, of_items: Ints, cluster: int, count: int) -> int:
    """Return the item of a cluster with the least sum of squared distances to the others; the first of equals."""
    best, least = 0, math.inf
    for item in range(count):
        if of_items[item] != cluster:
            continue
        total = 0.0
        for other in range(count):
            if of_items[other] == cluster:
                total += apart[item, other]
        if total < least:
            best, least = item, total
    return best


@compiled
def nearest(medoids: Medoids, user: int, vectors: Floats, item: int) -> int:
    """Return which interest of a user an item is nearest to; -1 without any."""
    best, most = -1, -math.inf
    for number in range(INTERESTS):
        medoid = medoids.items[user, number]
        if medoid < 0:
            break
        likeness = dot(vectors[medoid], vectors[item])
        if likeness > most:
            best, most = number, likeness
    return best


@compiled
def likeness(medoids: Medoids, user: int, vectors: Floats, item: int) -> float:
    """Return how like an item is to the nearest interest, by that one's importance; unlikeness counts nothing."""
    number = nearest(medoids, user, vectors, item)
    if number < 0:
        return 0.0
    near = dot(vectors[medoids.items[user, number]], vectors[item])
    return float(max(near, 0.0) * medoids.importance[user, number])


@compiled
def attribute_interests(
    medoids: Medoids, user: int, vectors: Floats, items: Int32, groups: Groups, count: int, weighing: Weighing,
    weight: float,
) -> None:  # fmt: skip
    """
    Add to `groups.contributed` what each group of events adds to the importance of the interest an item is near to.

    Parameters
    ----------
    items
        (k,) rows of the items; -1 behind the last.
    weight
        Of likeness to an interest.

    """
    for rank in range(len(items)):
        if items[rank] < 0:
            break
        number = nearest(medoids, user, vectors, items[rank])
        if number < 0:
            break
        near = max(dot(vectors[medoids.items[user, number]], vectors[items[rank]]), 0.0)
        scale = weight * near / medoids.heaviest[user]
        for at in range(count):
            for place in range(CLUSTERED):
                if medoids.clustered[user, place] == groups.items[at]:
                    if medoids.of_items[user, place] == number:
                        said = weighing.of_kind[groups.kinds[at]] * groups.long[at]
                        groups.contributed[rank, at] += scale * said
                    break
