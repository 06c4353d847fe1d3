"""Nothing but the forward pass: token ids made before, batches sorted by length, no Kafka, no checks. The roofline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from line import TASK, serve, texts

from models.artifact import load_spec
from models.batching import plan_batches
from models.encoder import Encoder

ENCODER = Encoder(
    load_spec(Path(TASK["model"])), "cpu", TASK["max_tokens"], TASK["threads"], precision=TASK["precision"]
)
TOKENS = ENCODER.tokenize(texts())


def encode(given: list[str], batch: int) -> npt.NDArray[np.float32]:
    """Run the batches; `batch` is a token budget here."""
    vectors = np.empty((len(given), ENCODER.dim), np.float32)
    lengths = [len(ids) for ids in TOKENS[: len(given)]]
    plan = plan_batches(lengths, batch, ENCODER.batch_cost_tokens)
    for rows, made in [(rows, ENCODER._launch([TOKENS[row] for row in rows])) for rows in plan]:
        vectors[rows] = made.result()
    return vectors


serve(encode)
