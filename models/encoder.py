"""
Texts, and images where the model takes them, to unit vectors with one transformers model on one device.

The caller decides when to encode and what becomes of the vectors; here a batch is tokenised, padded within a token
budget, run, pooled in float32 and checked row by row. One bad text or image costs that one, never the batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Encoding

from models.artifact import ModelFolder, preprocessing_of
from models.batching import plan_batches, smallest_saturating
from models.cores import Cores
from models.errors import ModelError
from models.faults import UNIT_TOLERANCE, Batches, Encoded, Tokenized, Vectors, is_out_of_memory, tokenize_each, usable
from models.fingerprint import fingerprint
from models.flights import CudaLink, Flights
from models.images import canary_images
from models.loading import device_of, first_line, load_tokenizer
from models.network import Network, Runner
from models.precision import CANARIES, Precision, Trial, choose, try_out

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

#: MiniLM-L6 on two cores with a batch each, texts a second by budget: fp32 315 at 256, 367 at 512, 347 at 1,024, 341 at
#: 2,048; bf16 655, 720, 748, 718. Below, layers wait for their start; above, their states leave the cache.
CPU_BATCH_TOKENS = 1_024
#: What another batch costs on CPU, in tokens: 256 at a time instead of 1,024 are 9 % slower in fp32 (30 tokens a batch)
#: and 12 % in bf16 (40). Films of MovieLens-100K are padded by 0.9 % then instead of 4.7 %.
_CPU_BATCH_COST_TOKENS = 64
#: Where the search for a GPU's budget begins and ends. Small models on large GPUs wait for kernel launches below 16k.
_GPU_BATCH_TOKENS = (4_096, 262_144)
#: Tokens of a text in that search: what items have.
_TRIAL_LENGTH = 32
_TRIAL_ROUNDS = 3

#: An image is some hundred tokens of a larger tower: a few fill a core.
_CPU_BATCH_IMAGES = 4
#: Where the search for a GPU's budget of images begins and ends.
_GPU_BATCH_IMAGES = (16, 1_024)

#: Encoded at start and again after any fault: tells a bad text from a broken model or device.
_CANARIES = ("a blue ceramic mug", "canary")
#: Beside the canary texts that judge a precision, where images count; more would take seconds of a large model.
_CANARY_IMAGES = 4


class Encoder:
    """
    A loaded model.

    One thread may call `tokenize` or `tokenize_texts` while another calls `encode_tokens`, `encode_items` or
    `begin_items` and what that returns; no other calls may overlap.

    Parameters
    ----------
    folder
        Checked by `models.artifact.load_spec`.
    device
        `auto` (a GPU when there is one), `cpu`, `cuda` or `cuda:N`.
    max_tokens
        Longer texts are cut; never above what the model allows.
    threads
        CPU cores that compute, a batch each; 0 takes every core this process may use.
    precision
        `auto` is fp16 on GPU (bf16 where the check texts overflow fp16), and on CPU fp32 or bf16, by a measurement that
        takes about a second. Pooling is fp32 always.
    batch_tokens, batch_images
        Budgets of one forward pass; 0 chooses by device.
    image_weight
        What an item's image counts beside its text, 0 to 1: 0 takes no images, 1 takes the text of no item that has
        an image.

    Attributes
    ----------
    fingerprint
        16 hex characters that name the vector space.
    batch_tokens, batch_images
        Budgets of one forward pass; halved when memory runs out.
    batch_cost_tokens
        As in `plan_batches`.
    image_tokens
        What an image is to its tower, in tokens; 1 of a model without one.
    in_flight
        Calls of `begin_items` that gain by standing open at once.
    precision
        What the model runs in.
    trials
        What was measured to choose it; empty where nothing was.
    truncated
        Texts cut so far.

    Raises
    ------
    ModelError
        When the model cannot be loaded, takes no images where they count, or its check texts give no usable vector.

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
        batch_images: int = 0,
        image_weight: float = 0.0,
    ) -> None:
        self.folder = folder
        self.dim = folder.dim
        self.max_tokens = min(max_tokens, folder.max_tokens)
        self.device = device_of(device)
        self.image_weight = image_weight
        self.fingerprint = fingerprint(folder, self.max_tokens, image_weight)
        self.batch_tokens = batch_tokens or CPU_BATCH_TOKENS
        self.batch_images = batch_images or _CPU_BATCH_IMAGES
        self.batch_cost_tokens = None if self.device.type == "cuda" else _CPU_BATCH_COST_TOKENS
        self.truncated = 0
        self.trials: list[Trial] = []
        on_gpu = self.device.type == "cuda"
        self._runner: Runner = Flights(CudaLink(self.device)) if on_gpu else Cores(threads or _cores())
        self.in_flight = self._runner.most
        self._tokenizer = load_tokenizer(folder, self.max_tokens)
        self._load(precision)
        self.image_tokens = self._network.image_tokens
        if not batch_tokens and self.device.type == "cuda":
            self.batch_tokens = smallest_saturating(self._tokens_per_s, *_GPU_BATCH_TOKENS)
        if image_weight and not batch_images and self.device.type == "cuda":
            self.batch_images = smallest_saturating(self._images_per_s, *_GPU_BATCH_IMAGES)

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
            self._network = Network(self.folder, _DTYPES[name], self.device, self._tokenizer, self._runner)
            problem = self._self_check()
            if problem is None:
                if precision == "auto" and self.device.type == "cpu":
                    self._try_bf16()
                return
        raise ModelError(f"the model in {self.folder.path} cannot encode on {self.device}: {problem}")

    def _try_bf16(self) -> None:
        """Take bf16 instead of fp32 where the canary texts show that it is faster and as good."""
        exact = self._network
        half = Network(self.folder, torch.bfloat16, self.device, self._tokenizer, self._runner)
        tokens = [encoding.ids for encoding in self._encodings(CANARIES)]
        plan = plan_batches([len(ids) for ids in tokens], self.batch_tokens, self.batch_cost_tokens)
        images = self._canary_images(_CANARY_IMAGES)

        def run(network: Network) -> npt.NDArray[np.float32]:
            self._network = network
            vectors = np.empty((len(tokens), self.dim), np.float32)
            for rows, batch in [(rows, self._launch([tokens[row] for row in rows])) for rows in plan]:
                vectors[rows] = batch.result()
            return vectors if images is None else np.concatenate([vectors, network.images(images).result()])

        try:
            self.trials = try_out([("fp32", lambda: run(exact)), ("bf16", lambda: run(half))])
        except (RuntimeError, MemoryError):  # a processor or a layer without bf16
            self._network = exact
            return
        self.precision = choose(self.trials)
        self._network = half if self.precision == "bf16" else exact

    def _canary_images(self, number: int) -> npt.NDArray[np.uint8] | None:
        """Return check images, None where images do not count."""
        return canary_images(number, preprocessing_of(self.folder).size) if self.image_weight else None

    def _tokens_per_s(self, budget: int) -> float:
        """Measure full batches of a budget; 0 when they do not fit into memory."""
        padding = self.folder.padding
        length = min(_TRIAL_LENGTH, self.max_tokens) if padding is None else padding.length
        batch = [[self._network.pad] * length] * (budget // length)
        return length * len(batch) * self._rounds_per_s(lambda: self._launch(batch))

    def _images_per_s(self, budget: int) -> float:
        """Measure batches of so many images; 0 when they do not fit into memory."""
        batch = canary_images(budget, preprocessing_of(self.folder).size)
        return budget * self._rounds_per_s(lambda: self._network.images(batch))

    def _rounds_per_s(self, launch: Callable[[], Vectors]) -> float:
        try:
            launch().result()
            began = time.perf_counter()
            for flight in [launch() for _ in range(_TRIAL_ROUNDS)]:
                flight.result()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._free()
            return 0.0
        return _TRIAL_ROUNDS / (time.perf_counter() - began)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """
        Return the token ids of each text, special tokens included; counts what is cut.

        They are at most `max_tokens`, and padded to the length that the model wants where it wants one.
        """
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
        return tokenize_each(self.tokenize, texts)

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
        return self._begin_tokens(tokens)()

    def encode_items(self, tokens: Sequence[Sequence[int]], images: Sequence[npt.NDArray[np.uint8] | None]) -> Encoded:
        """
        Encode items by their texts and images: both of an item, of unit length, are added by `image_weight`.

        Texts and images are encoded in batches of their own. An item whose image has no usable vector is its text's,
        and one that has no text is a fault then; a text without a usable vector is a fault of its item always.

        Parameters
        ----------
        tokens
            Token ids of each item's text; none where it has no text.
        images
            Pixels of each item's image as `models.images.pixels_of` returns them, or None.

        Raises
        ------
        ModelError
            As `encode_tokens`.

        """
        return self.begin_items(tokens, images)()

    def begin_items(
        self, tokens: Sequence[Sequence[int]], images: Sequence[npt.NDArray[np.uint8] | None]
    ) -> Callable[[], Encoded]:
        """
        Begin what `encode_items` does without waiting for it; the callable returned waits and gives the rest.

        Begun again before the first is waited for, the next is copied to the GPU and ready when the first has ended, or
        is computed by another core.
        """
        with_image = [row for row, pixels in enumerate(images) if pixels is not None]
        if not with_image:
            return self._begin_tokens(tokens)
        seen = self._begin_images([pixels for pixels in images if pixels is not None])
        return lambda: self._fuse(tokens, with_image, seen())

    def _fuse(self, tokens: Sequence[Sequence[int]], with_image: Sequence[int], seen: Encoded) -> Encoded:
        """Encode the texts and add what has been seen on the images of the rows `with_image`."""
        reasons = {with_image[place]: reason for place, reason in seen.faults.items()}
        good = [row for row in with_image if row not in reasons]
        alone = set(good) if self.image_weight == 1 else set()
        with_text = [row for row, ids in enumerate(tokens) if ids and row not in alone]
        read = self.encode_tokens([tokens[row] for row in with_text])
        faults = {with_text[place]: reason for place, reason in read.faults.items()}
        faults |= {row: f"its image: {reason}" for row, reason in reasons.items() if not tokens[row]}
        vectors = np.zeros((len(tokens), self.dim), np.float32)
        vectors[with_text] = read.vectors
        vectors[good] *= 1 - self.image_weight
        vectors[good] += self.image_weight * np.delete(seen.vectors, list(seen.faults), axis=0)
        lengths = np.linalg.norm(vectors[good], axis=1, keepdims=True)
        vectors[good] /= np.where(lengths > UNIT_TOLERANCE, lengths, 1)
        for row in np.flatnonzero(~usable(vectors)).tolist():
            faults.setdefault(row, "its text and its image cancel each other")
        vectors[list(faults)] = 0
        return Encoded(vectors, faults, {row: reason for row, reason in reasons.items() if row not in faults})

    def _begin_tokens(self, tokens: Sequence[Sequence[int]]) -> Callable[[], Encoded]:
        plan = plan_batches([len(ids) for ids in tokens], self.batch_tokens, self.batch_cost_tokens)

        def shrink(rows: Sequence[int]) -> None:
            self.batch_tokens = _halved(self.batch_tokens, len(rows) * max(len(tokens[row]) for row in rows))

        return self._begin(len(tokens), plan, lambda rows: self._launch([tokens[row] for row in rows]), shrink)

    def _begin(
        self,
        number: int,
        plan: Sequence[list[int]],
        launch: Callable[[list[int]], Vectors],
        shrink: Callable[[Sequence[int]], None],
    ) -> Callable[[], Encoded]:
        """Begin batches; faults are believed where the check texts pass."""

        def shrunk(rows: Sequence[int]) -> None:
            shrink(rows)
            self._free()

        batches = Batches(number, self.dim, plan, launch, shrunk)

        def finish() -> Encoded:
            encoded = batches.result()
            if encoded.faults and (problem := self._self_check()) is not None:
                raise ModelError(f"the model on {self.device} stopped working: {problem}")
            return encoded

        return finish

    def _begin_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> Callable[[], Encoded]:
        """Begin images as `_begin_tokens` does texts, in batches of `batch_images`."""
        rows = range(len(images))
        plan = [list(rows[start : start + self.batch_images]) for start in rows[:: self.batch_images]]

        def shrink(failed: Sequence[int]) -> None:
            self.batch_images = _halved(self.batch_images, len(failed))

        return self._begin(
            len(images), plan, lambda batch: self._network.images(np.stack([images[row] for row in batch])), shrink
        )

    def _self_check(self) -> str | None:
        """Encode the check texts; return what is wrong, None when nothing is."""
        tokens = [encoding.ids for encoding in self._encodings(_CANARIES)]
        try:
            vectors = self._forward(tokens)
            if (images := self._canary_images(1)) is not None:
                vectors = np.concatenate([vectors, self._network.images(images).result()])
        except (RuntimeError, IndexError, MemoryError) as error:
            return first_line(error)
        if vectors.shape[1] != self.dim:
            return f"its vectors have {vectors.shape[1]} elements, its configuration says {self.dim}"
        return None if bool(usable(vectors).all()) else "its vectors are not finite"

    def _forward(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Run one batch; return (n, dim) float32, normalised, unchecked."""
        return self._launch(tokens).result()

    def _launch(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Begin one batch of texts."""
        return self._network.texts(tokens)

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _halved(budget: int, failed: int) -> int:
    """Return the budget after a batch of `failed` did not fit; others of the same plan may have told so already."""
    return max(1, min(budget, failed // 2))


def _cores() -> int:
    """Cores this process may use; a container's CPU set counts, the machine's total does not."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
