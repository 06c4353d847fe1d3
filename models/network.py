"""The forward passes of one loaded model in one precision: token ids or pixels to unit vectors, nothing checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from models.artifact import ModelFolder
from models.dense import load_dense
from models.loading import load_model


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

    def __init__(self, folder: ModelFolder, dtype: torch.dtype, device: torch.device, tokenizer: Tokenizer) -> None:
        self.model, self.pad = load_model(folder, dtype, device, tokenizer)
        self._folder = folder
        self._device = device
        self._dense = [load_dense(layer, device) for layer in folder.dense]
        self.image_tokens = 1
        if (preprocessing := folder.preprocessing) is not None:
            mean, std = (
                torch.tensor(values, device=device)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
            )
            self.image_tokens += (preprocessing.size // self.model.config.vision_config.patch_size) ** 2
            self._scale, self._shift = preprocessing.rescale / std, mean / std

    @torch.inference_mode()
    def texts(self, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Run one batch of texts; return (n, dim) float32, normalised."""
        lengths = [len(ids) for ids in tokens]
        width = max(lengths)
        ids = np.full((len(tokens), width), self.pad, np.int64)
        for row, row_ids in zip(ids, tokens, strict=True):
            row[: len(row_ids)] = row_ids
        input_ids = torch.from_numpy(ids).to(self._device)
        ends = torch.tensor(lengths, device=self._device)
        mask = torch.arange(width, device=self._device) < ends[:, None]
        # Without a mask attention takes its fastest kernel; texts of one length need none.
        attention = mask.long() if min(lengths) < width else None
        if self._folder.pooling == "projection":
            features = self.model.get_text_features(input_ids=input_ids, attention_mask=attention)
            return self._unit(features.pooler_output)
        states = self.model(input_ids=input_ids, attention_mask=attention)
        return self._unit(self._pool(states.last_hidden_state.float(), mask, ends))

    @torch.inference_mode()
    def images(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run one batch of images, (n, 3, size, size) uint8; return (n, dim) float32, normalised."""
        values = torch.from_numpy(pixels).to(self._device).float() * self._scale - self._shift
        return self._unit(self.model.get_image_features(pixel_values=values).pooler_output)

    def _pool(self, states: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """(n, tokens, dim) float32 states to (n, dim)."""
        if self._folder.pooling == "cls":
            return states[:, 0]
        if self._folder.pooling == "lasttoken":
            return states[torch.arange(len(ends), device=self._device), ends - 1]
        return (states * mask[:, :, None]).sum(1) / ends[:, None]

    def _unit(self, pooled: torch.Tensor) -> npt.NDArray[np.float32]:
        pooled = pooled.float()
        for apply in self._dense:
            pooled = apply(pooled)
        if self._folder.dim < self._folder.full_dim:
            pooled = pooled[:, : self._folder.dim]  # a Matryoshka model has said the most by then
        unit = torch.nn.functional.normalize(pooled, dim=1)
        vectors: npt.NDArray[np.float32] = unit.cpu().numpy()
        return vectors
