"""
Texts to unit vectors with one transformers model on one device.

The caller decides when to encode and what becomes of the vectors; here a batch is tokenised, padded within a token
budget, run, pooled in float32 and checked row by row. One bad text costs that text, never the batch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding

from models.artifact import ModelFolder
from models.batching import plan_batches, smallest_saturating
from models.errors import ModelError
from models.loading import device_of, first_line, load_model, load_tokenizer
from models.precision import CANARIES, Precision, Trial, choose, try_out
from models.text import TEMPLATE_VERSION

#: fp32, fp16 and bf16 agree to a cosine of 0.999 and better, so their vectors are one space: a GPU and a CPU worker
#: may share a fingerprint. An integer precision would not and gets a class of its own.
PRECISION_CLASS = "float"

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

#: MiniLM-L6 on CPU, texts a second of one core by budget: fp32 333 at 512, 341 at 2,048, 300 at 4,096; bf16 914, 1,049,
#: 970. Below, layers wait for their start; above, their states leave the cache.
CPU_BATCH_TOKENS = 2_048
#: What another batch costs on CPU, in tokens: 256 at a time instead of 2,048 are 6 % slower in fp32 (15 tokens a batch)
#: and 40 % in bf16 (100). Films of MovieLens-100K are padded by 0.9 % then instead of 4.7 %.
_CPU_BATCH_COST_TOKENS = 64
#: Where the search for a GPU's budget begins and ends. Small models on large GPUs wait for kernel launches below 16k.
_GPU_BATCH_TOKENS = (4_096, 262_144)
#: Tokens of a text in that search: what items have.
_TRIAL_LENGTH = 32
_TRIAL_ROUNDS = 3

#: Encoded at start and again after any fault: tells a bad text from a broken model or device.
_CANARIES = ("a blue ceramic mug", "canary")

#: float32 normalisation is exact to about 1e-7; anything further off is not a unit vector.
_UNIT_TOLERANCE = 1e-3


class Encoded(NamedTuple):
    """
    Vectors of a batch, in the order of its texts.

    Attributes
    ----------
    vectors
        (n, dim) float32, unit rows; the row of a fault is zero.
    faults
        Position of a text without a usable vector, to the reason.

    """

    vectors: npt.NDArray[np.float32]
    faults: dict[int, str]


class Tokenized(NamedTuple):
    """
    Token ids of texts, in their order.

    Attributes
    ----------
    tokens
        Of each text, special tokens included, at most `max_tokens`; none of a fault.
    faults
        Position of a text that the tokenizer refused, to the reason.

    """

    tokens: list[list[int]]
    faults: dict[int, str]


class Encoder:
    """
    A loaded model.

    One thread may call `tokenize` or `tokenize_texts` while another calls `encode_tokens`; no other calls may overlap.

    Parameters
    ----------
    folder
        Checked by `models.artifact.load_spec`.
    device
        `auto` (a GPU when there is one), `cpu`, `cuda` or `cuda:N`.
    max_tokens
        Longer texts are cut; never above what the model allows.
    threads
        CPU threads of the forward pass; 0 takes every core this process may use.
    precision
        `auto` is fp16 on GPU (bf16 where the check texts overflow fp16), and on CPU fp32 or bf16, by a measurement that
        takes about a second. Pooling is fp32 always.

    Attributes
    ----------
    fingerprint
        16 hex characters that name the vector space.
    batch_tokens
        Token budget of one forward pass; halved when memory runs out.
    batch_cost_tokens
        As in `plan_batches`.
    precision
        What the model runs in.
    trials
        What was measured to choose it; empty where nothing was.
    truncated
        Texts cut so far.

    Raises
    ------
    ModelError
        When the model cannot be loaded or its check texts give no usable vector.

    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str = "auto",
        max_tokens: int = 256,
        threads: int = 0,
        *,
        precision: Precision | Literal["auto"] = "auto",
        batch_tokens: int = 0,
    ) -> None:
        self.folder = folder
        self.dim = folder.dim
        self.max_tokens = min(max_tokens, folder.max_tokens)
        self.device = device_of(device)
        self.fingerprint = fingerprint(folder, self.max_tokens)
        self.batch_tokens = batch_tokens or CPU_BATCH_TOKENS
        self.batch_cost_tokens = None if self.device.type == "cuda" else _CPU_BATCH_COST_TOKENS
        self.truncated = 0
        self.trials: list[Trial] = []
        torch.set_num_threads(threads or _cores())
        self._tokenizer = load_tokenizer(folder, self.max_tokens)
        self._load(precision)
        if not batch_tokens and self.device.type == "cuda":
            self.batch_tokens = smallest_saturating(self._tokens_per_s, *_GPU_BATCH_TOKENS)

    def _load(self, precision: Precision | Literal["auto"]) -> None:
        wanted: tuple[Precision, ...]
        if precision != "auto":
            wanted = (precision,)
        elif self.device.type == "cuda":
            wanted = ("fp16", "bf16")
        else:
            wanted = ("fp32",)
        problem = None
        for name in wanted:
            self.precision = name
            self._model, self._pad = load_model(self.folder, _DTYPES[name], self.device, self._tokenizer)
            problem = self._self_check()
            if problem is None:
                if precision == "auto" and self.device.type == "cpu":
                    self._try_bf16()
                return
        raise ModelError(f"the model in {self.folder.path} cannot encode on {self.device}: {problem}")

    def _try_bf16(self) -> None:
        """Take bf16 instead of fp32 where the canary texts show that it is faster and as good."""
        exact = self._model
        half, _ = load_model(self.folder, torch.bfloat16, self.device, self._tokenizer)
        tokens = [encoding.ids for encoding in self._encodings(CANARIES)]
        plan = plan_batches([len(ids) for ids in tokens], self.batch_tokens, self.batch_cost_tokens)

        def run(model: Any) -> npt.NDArray[np.float32]:
            self._model = model
            vectors = np.empty((len(tokens), self.dim), np.float32)
            for rows in plan:
                vectors[rows] = self._forward([tokens[row] for row in rows])
            return vectors

        try:
            self.trials = try_out([("fp32", lambda: run(exact)), ("bf16", lambda: run(half))])
        except (RuntimeError, MemoryError):  # a processor or a layer without bf16
            self._model = exact
            return
        self.precision = choose(self.trials)
        self._model = half if self.precision == "bf16" else exact

    def _tokens_per_s(self, budget: int) -> float:
        """Measure full batches of a budget; 0 when they do not fit into memory."""
        length = min(_TRIAL_LENGTH, self.max_tokens)
        batch = [[self._pad] * length] * (budget // length)
        try:
            self._forward(batch)
            began = time.perf_counter()
            for _ in range(_TRIAL_ROUNDS):
                self._forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            self._free()
            return 0.0
        return _TRIAL_ROUNDS * length * len(batch) / (time.perf_counter() - began)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, at most `max_tokens`; counts what is cut."""
        encodings = self._encodings(texts)
        self.truncated += sum(1 for encoding in encodings if encoding.overflowing)
        return [encoding.ids for encoding in encodings]

    def _encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise as the model was trained: behind its prompt."""
        folder = self.folder
        prompted = [folder.prompt + (text.lower() if folder.lower_case else text) for text in texts]
        found: list[Encoding] = self._tokenizer.encode_batch_fast(prompted)
        return found

    def tokenize_texts(self, texts: Sequence[str]) -> Tokenized:
        """Tokenise as `tokenize`, but let a text on which the tokenizer fails cost that text alone."""
        try:
            return Tokenized(self.tokenize(texts), {})
        except BaseException as error:  # Rust raises plain Exception, and what it calls a panic is none
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if len(texts) == 1:
                return Tokenized([[]], {0: f"the tokenizer refused it: {first_line(error)}"})
        middle = len(texts) // 2
        first, second = self.tokenize_texts(texts[:middle]), self.tokenize_texts(texts[middle:])
        later = {middle + place: reason for place, reason in second.faults.items()}
        return Tokenized(first.tokens + second.tokens, first.faults | later)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """
        Return (n, dim) float32 unit vectors of texts.

        Raises
        ------
        ModelError
            When a text has no usable vector.

        """
        encoded = self.encode_tokens(self.tokenize(texts))
        if encoded.faults:
            position, reason = min(encoded.faults.items())
            raise ModelError(f"{len(encoded.faults)} of {len(texts)} texts have no vector; text {position}: {reason}")
        return encoded.vectors

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> Encoded:
        """
        Encode token ids in batches of `batch_tokens`.

        A batch that fails is halved until it passes or is one text, which is then reported; where memory was the
        reason, `batch_tokens` is halved for the batches to come too.

        Raises
        ------
        ModelError
            When the check texts fail as well: then it is the model or the device, not the texts.

        """
        vectors = np.zeros((len(tokens), self.dim), np.float32)
        faults: dict[int, str] = {}
        waiting = plan_batches([len(ids) for ids in tokens], self.batch_tokens, self.batch_cost_tokens)
        while waiting:
            rows = waiting.pop()
            try:
                vectors[rows] = self._forward([tokens[row] for row in rows])
            except (RuntimeError, IndexError, MemoryError) as error:
                if _is_out_of_memory(error):
                    self._shrink(len(rows) * max(len(tokens[row]) for row in rows))
                if len(rows) == 1:
                    faults[rows[0]] = f"the model refused it: {first_line(error)}"
                else:
                    waiting += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        for row in np.flatnonzero(~_usable(vectors)).tolist():
            faults.setdefault(row, "its vector is not finite or has no length")
        vectors[list(faults)] = 0
        if faults and (problem := self._self_check()) is not None:
            raise ModelError(f"the model on {self.device} stopped working: {problem}")
        return Encoded(vectors, faults)

    def _self_check(self) -> str | None:
        """Encode the check texts; return what is wrong, None when nothing is."""
        tokens = [encoding.ids for encoding in self._encodings(_CANARIES)]
        try:
            vectors = self._forward(tokens)
        except (RuntimeError, IndexError, MemoryError) as error:
            return first_line(error)
        if vectors.shape != (len(tokens), self.dim):
            return f"its vectors have {vectors.shape[1]} elements, its configuration says {self.dim}"
        return None if bool(_usable(vectors).all()) else "its vectors are not finite"

    @torch.inference_mode()
    def _forward(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Run one batch; return (n, dim) float32, normalised, unchecked."""
        lengths = [len(ids) for ids in tokens]
        width = max(lengths)
        ids = np.full((len(tokens), width), self._pad, np.int64)
        for row, row_ids in zip(ids, tokens, strict=True):
            row[: len(row_ids)] = row_ids
        input_ids = torch.from_numpy(ids).to(self.device)
        ends = torch.tensor(lengths, device=self.device)
        mask = torch.arange(width, device=self.device) < ends[:, None]
        # Without a mask attention takes its fastest kernel; texts of one length need none.
        padded = min(lengths) < width
        states = self._model(input_ids=input_ids, attention_mask=mask.long() if padded else None)
        pooled = self._pool(states.last_hidden_state.float(), mask, ends)
        if self.dim < self.folder.full_dim:
            pooled = pooled[:, : self.dim]  # a Matryoshka model has said the most by then
        unit = torch.nn.functional.normalize(pooled, dim=1)
        vectors: npt.NDArray[np.float32] = unit.cpu().numpy()
        return vectors

    def _pool(self, states: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """(n, tokens, dim) float32 states to (n, dim)."""
        if self.folder.pooling == "cls":
            return states[:, 0]
        if self.folder.pooling == "lasttoken":
            return states[torch.arange(len(ends), device=self.device), ends - 1]
        return (states * mask[:, :, None]).sum(1) / ends[:, None]

    def _shrink(self, failed_tokens: int) -> None:
        self.batch_tokens = max(1, min(self.batch_tokens, failed_tokens) // 2)
        self._free()

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def fingerprint(folder: ModelFolder, max_tokens: int) -> str:
    """
    Name the vector space: blake2b-64, in hex, of everything that decides what vector a given item gets.

    Two workers with equal fingerprints may write each other's vectors; a changed model, tokenizer, prompt, pooling,
    size, limit or text template is another space with its own keys.
    """
    parts = {
        "weights": folder.weights_sha256,
        "tokenizer": folder.tokenizer_sha256,
        "pooling": folder.pooling,
        "normalise": "l2",
        "max_tokens": min(max_tokens, folder.max_tokens),
        "template": TEMPLATE_VERSION,
        "dim": folder.dim,
        "precision": PRECISION_CLASS,
    }
    # Named only where they change a vector, so that other models keep the names they had.
    if folder.prompt:
        parts["prompt"] = repr(folder.prompt)
    if folder.lower_case:
        parts["case"] = "lower"
    text = "\n".join(f"{name}={value}" for name, value in parts.items())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _usable(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows are finite and of unit length: (n,) bool."""
    # einsum keeps non-finite values quiet, where norm would warn on overflow.
    squares = np.einsum("ij,ij->i", vectors, vectors)
    usable: npt.NDArray[np.bool_] = np.abs(squares - 1) <= _UNIT_TOLERANCE
    return usable


def _cores() -> int:
    """Cores this process may use; a container's CPU set counts, the machine's total does not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error)  # torch's CPU allocator raises RuntimeError
