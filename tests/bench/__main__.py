"""
Benchmarks, each a table and `--json FILE`: `python -m tests.bench --help`.

They measure a running Freshet or compare it with peers; none of them is a test and none is timed in CI.
"""

from __future__ import annotations

import sys

from streams.errors import FreshetError
from tests.bench.cli import app

if __name__ == "__main__":
    try:
        app()
    except (FreshetError, RuntimeError) as error:
        sys.exit(str(error))
