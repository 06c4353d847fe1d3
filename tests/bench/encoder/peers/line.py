"""What a peer is told and how it answers: one JSON argument, then a line for each run. Shared by all peers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Arguments: `model` folder, `texts` (file of JSON lines), `threads`, `precision`, `batch` sizes to try.
TASK: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}

#: Texts that decide the batch size.
_SAMPLE = 768


def texts() -> list[str]:
    """Return the texts to encode."""
    return [json.loads(line) for line in Path(TASK["texts"]).read_text(encoding="utf-8").splitlines()]


def serve(encode: Callable[[list[str], int], Any]) -> None:
    """
    Find the best batch size, then encode all texts once for each line on stdin, and tell the seconds it took.

    `encode` takes texts and a batch size and returns (n, dim) vectors. The last ones stay in the file `vectors`.
    """
    given = texts()
    encode(given[:256], TASK["batch"][0])
    # Enough for several of the largest batches; every size sees the same texts.
    sample = given[:_SAMPLE]
    took = {batch: _seconds(encode, sample, batch)[0] for batch in TASK["batch"]}
    best = min(took, key=lambda batch: took[batch])
    print(json.dumps({"batch": best}), flush=True)
    for _ in sys.stdin:
        seconds, vectors = _seconds(encode, given, best)
        np.save(TASK["vectors"], np.asarray(vectors, np.float32))
        print(json.dumps({"seconds": seconds}), flush=True)


def _seconds(encode: Callable[[list[str], int], Any], given: list[str], batch: int) -> tuple[float, Any]:
    began = time.perf_counter()
    vectors = encode(given, batch)
    return time.perf_counter() - began, vectors
