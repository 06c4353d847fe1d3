"""sentence-transformers' own `encode`: texts in memory to vectors in memory."""

from __future__ import annotations

from typing import Any

import torch
from line import TASK, serve
from sentence_transformers import SentenceTransformer

torch.set_num_threads(TASK["threads"])
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}[TASK["precision"]]
MODEL = SentenceTransformer(TASK["model"], device="cpu", model_kwargs={"dtype": DTYPE}, local_files_only=True)
MODEL.max_seq_length = TASK["max_tokens"]


def encode(texts: list[str], batch: int) -> Any:
    """Encode all texts in one call, as its users do."""
    with torch.inference_mode():
        return MODEL.encode(
            texts, batch_size=batch, show_progress_bar=False, normalize_embeddings=True, convert_to_tensor=True
        ).float()


serve(encode)
