"""Prints a Parquet file's rows as JSON lines: Freshet has no reader of Parquet, the peers' environment has one."""

from __future__ import annotations

import json
import sys

from pyarrow import parquet

for row in parquet.read_table(sys.argv[1]).to_pylist():
    print(json.dumps(row))
