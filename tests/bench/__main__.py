"""
Benchmarks, each a table and `--json FILE`: `python -m tests.bench --help`.

They measure a running Freshet or compare it with peers; none of them is a test and none is timed in CI.
"""

from __future__ import annotations

from tests.bench.cli import app

if __name__ == "__main__":
    app()
