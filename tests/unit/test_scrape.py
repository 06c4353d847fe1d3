"""Reading Prometheus' text: sums, differences, quantiles."""

from __future__ import annotations

import pytest

from streams.local.scrape import parse

_TEXT = """\
# TYPE e counter
e_total{type="clicks",outcome="applied"} 7
e_total{type="views",outcome="applied"} 3
e_total{type="views",outcome="rejected"} 2
e_total{type="carts",outcome="rejected"} 0
# TYPE h histogram
h_bucket{le="0.1"} 0
h_bucket{le="0.2"} 50
h_bucket{le="0.4"} 90
h_bucket{le="+Inf"} 100
h_count 100
h_sum 20
"""


def test_samples_sum_over_labels() -> None:
    """`total` sums what has the given labels, `by` groups by one and leaves out zeros."""
    metrics = parse(_TEXT)

    assert 12 == metrics.total("e_total")
    assert 5 == metrics.total("e_total", type="views")
    assert 0 == metrics.total("e_total", type="none")
    assert {"applied": 10, "rejected": 2} == metrics.by("e_total", "outcome")


@pytest.mark.parametrize(("fraction", "seconds"), [(0.25, 0.15), (0.5, 0.2), (0.7, 0.3), (0.9, 0.4), (0.99, 0.4)])
def test_quantiles_are_linear_within_a_bucket(fraction: float, seconds: float) -> None:
    """As Prometheus' histogram_quantile; above the last bound the bound is given."""
    assert seconds == pytest.approx(parse(_TEXT).quantile("h", fraction))


def test_a_difference_counts_what_was_added() -> None:
    """Between two scrapes that are equal nothing was observed, so there is no quantile."""
    metrics = parse(_TEXT)
    nothing = metrics.since(metrics)

    assert 0 == nothing.total("e_total")
    assert nothing.quantile("h", 0.5) is None
    assert metrics.quantile("unknown", 0.5) is None
