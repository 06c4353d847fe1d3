"""The forward passes of one loaded model in one precision: token ids or pixels to unit vectors, nothing checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from models.artifact import ModelFolder
from models.dense import load_dense
from models.faults import Vectors
from models.loading import load_model

#: Architectures that take a padded batch's mask as attention does, (n, 1, 1, tokens). One of (n, tokens) they look into
#: on the host, which waits for all that the device still has to compute before.
TAKE_WIDE_MASKS = frozenset({
    "albert", "bert", "camembert", "distilbert", "electra", "ernie", "nomic_bert", "roberta", "xlm-roberta",
})  # fmt: skip


class Runner(Protocol):
    """Where batches are computed: `models.cores.Cores` or `models.flights.Flights`."""

    @property
    def most(self) -> int:
        """Most batches between their launch and their end."""

    def launch(self, values: npt.NDArray[np.generic], forward: Callable[[torch.Tensor], torch.Tensor]) -> Vectors:
        """Begin a batch: what `forward` makes of `values` on the device."""


class Network:
    """
    A model on a device.

    Attributes
    ----------
    model
        transformers' module.
    pad
        Token id of padding.
    image_tokens
        Patches of an image and one token more; 1 of a model that takes none.

    Raises
    ------
    ModelError
        As `load_model`.

    """

    def __init__(
        self, folder: ModelFolder, dtype: torch.dtype, device: torch.device, tokenizer: Tokenizer, runner: Runner
    ) -> None:
        self.model, self.pad = load_model(folder, dtype, device, tokenizer)
        self._folder = folder
        self._device = device
        self._dense = [load_dense(layer, device) for layer in folder.dense]
        self._runner = runner
        self.image_tokens = 1
        if (preprocessing := folder.preprocessing) is not None:
            mean, std = (
                torch.tensor(values, device=device)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
            )
            self.image_tokens += (preprocessing.size // self.model.config.vision_config.patch_size) ** 2
            self._scale, self._shift = preprocessing.rescale / std, mean / std

    def texts(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Launch one batch of texts; it gives (n, dim) float32, normalised."""
        lengths = [len(ids) for ids in tokens]
        width = max(lengths)
        # One copy to the device: each row's length, then its ids.
        values = np.full((len(tokens), 1 + width), self.pad, np.int64)
        values[:, 0] = lengths
        for row, row_ids in zip(values, tokens, strict=True):
            row[1 : 1 + len(row_ids)] = row_ids
        padded = min(lengths) < width
        return self._runner.launch(values, lambda there: self._texts(there[:, 1:], there[:, 0], padded=padded))

    def images(self, pixels: npt.NDArray[np.uint8]) -> Vectors:
        """Launch one batch of images, (n, 3, size, size) uint8; it gives (n, dim) float32, normalised."""
        return self._runner.launch(pixels, self._images)

    def _texts(self, ids: torch.Tensor, ends: torch.Tensor, *, padded: bool) -> torch.Tensor:
        """(n, tokens) int64 ids and (n,) int64 lengths to (n, dim) float32."""
        input_ids = ids.contiguous()
        mask = torch.arange(ids.shape[1], device=self._device) < ends[:, None]
        # Without a mask attention takes its fastest kernel; texts of one length need none.
        attention = None
        if padded:
            attention = mask[:, None, None] if self._folder.architecture in TAKE_WIDE_MASKS else mask.long()
        if self._folder.pooling == "projection":
            features = self.model.get_text_features(input_ids=input_ids, attention_mask=attention)
            return self._unit(features.pooler_output)
        states = self.model(input_ids=input_ids, attention_mask=attention)
        return self._unit(self._pool(states.last_hidden_state.float(), mask, ends))

    def _images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, size, size) uint8 to (n, dim) float32."""
        values = pixels.float() * self._scale - self._shift
        return self._unit(self.model.get_image_features(pixel_values=values).pooler_output)

    def _pool(self, states: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """(n, tokens, dim) float32 states to (n, dim)."""
        if self._folder.pooling == "cls":
            return states[:, 0]
        if self._folder.pooling == "lasttoken":
            return states[torch.arange(len(ends), device=self._device), ends - 1]
        return (states * mask[:, :, None]).sum(1) / ends[:, None]

    def _unit(self, pooled: torch.Tensor) -> torch.Tensor:
        pooled = pooled.float()
        for apply in self._dense:
            pooled = apply(pooled)
        if self._folder.dim < self._folder.full_dim:
            pooled = pooled[:, : self._folder.dim]  # a Matryoshka model has said the most by then
        return torch.nn.functional.normalize(pooled, dim=1)
