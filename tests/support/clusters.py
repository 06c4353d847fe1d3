"""Ward's clustering from its definition."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt


def ward(points: npt.NDArray[np.float64], count: int) -> list[list[int]]:
    """Return clusters of points (n, d): again and again the two whose union adds least to the squares are merged."""
    clusters = [[place] for place in range(len(points))]

    def squares(cluster: list[int]) -> float:
        return float(((points[cluster] - points[cluster].mean(axis=0)) ** 2).sum())

    while len(clusters) > count:
        one, other = min(
            itertools.combinations(clusters, 2),
            key=lambda pair: squares(pair[0] + pair[1]) - squares(pair[0]) - squares(pair[1]),
        )
        clusters = [cluster for cluster in clusters if cluster not in (one, other)] + [one + other]
    return clusters
