"""Reading a role's /metrics: values by name and labels, quantiles of histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from streams.errors import DependencyError
from streams.local.stack import http_get

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every sample of one scrape, by sample name and labels."""

    samples: Mapping[tuple[str, Labels], float]

    def total(self, name: str, **labels: str) -> float:
        """Sum the samples of a name whose labels include these; 0 when there are none."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sum the samples of a name by one label, leaving out zeros."""
        sums: dict[str, float] = {}
        for (found, has), value in self.samples.items():
            if found == name and value:
                key = dict(has).get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return dict(sorted(sums.items()))

    def since(self, earlier: Metrics) -> Metrics:
        """Return what was added to each sample since an earlier scrape of the same process (counters, histograms)."""
        return Metrics({key: value - earlier.samples.get(key, 0.0) for key, value in self.samples.items()})

    def quantile(self, name: str, fraction: float) -> float | None:
        """
        Return a quantile of a histogram without labels, linear within its bucket, as Prometheus does.

        None when nothing was observed; the last finite bound when it lies above that.
        """
        buckets = sorted(
            (float(dict(labels)["le"]), value)
            for (found, labels), value in self.samples.items()
            if found == f"{name}_bucket"
        )
        if not buckets or buckets[-1][1] <= 0:
            return None
        rank = fraction * buckets[-1][1]
        below_s, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= rank:
                if math.isinf(bound) or count == below:
                    return below_s
                return below_s + (bound - below_s) * (rank - below) / (count - below)
            below_s, below = bound, count
        raise AssertionError("the +Inf bucket counts everything")


def scrape(port: int) -> Metrics:
    """
    Read /metrics of a role on this machine.

    Raises
    ------
    DependencyError
        When it does not answer.

    """
    try:
        status, body = http_get(port, "/metrics")
    except OSError as error:
        raise DependencyError(f"/metrics on port {port} does not answer ({error})") from error
    if status != 200:
        raise DependencyError(f"/metrics on port {port} answered {status}")
    return parse(body)


def parse(text: str) -> Metrics:
    """Read Prometheus' text format."""
    return Metrics(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )
