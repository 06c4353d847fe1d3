"""infinity's engine, in process: texts in memory to vectors in memory, through its queue and its batching."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from line import TASK, serve

torch.set_num_threads(TASK["threads"])
LOOP = asyncio.new_event_loop()
_ENGINES: dict[int, Any] = {}


def _engine(batch: int) -> Any:
    """Return the running engine of a batch size; only one at a time."""
    if batch not in _ENGINES:
        for other in list(_ENGINES):
            LOOP.run_until_complete(_ENGINES.pop(other).astop())
        engine = AsyncEmbeddingEngine.from_args(
            EngineArgs(
                model_name_or_path=TASK["model"],
                engine="torch",
                device="cpu",
                dtype={"fp32": "float32", "bf16": "bfloat16"}[TASK["precision"]],
                batch_size=batch,
                bettertransformer=False,
                model_warmup=False,
                lengths_via_tokenize=True,
            )
        )
        LOOP.run_until_complete(engine.astart())
        _ENGINES[batch] = engine
        LOOP.run_until_complete(engine.embed(sentences=["warm"] * batch))
    return _ENGINES[batch]


def encode(texts: list[str], batch: int) -> Any:
    """Hand over all texts at once, as its server does with concurrent requests."""
    vectors, _ = LOOP.run_until_complete(_engine(batch).embed(sentences=texts))
    return np.stack(vectors).astype(np.float32)


serve(encode)
