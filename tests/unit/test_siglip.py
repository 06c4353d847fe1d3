"""A tiny SigLIP: texts padded to one length and images squeezed to a square, both as transformers encodes them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from models.artifact import load_spec, preprocessing_of
from models.encoder import Encoder
from models.errors import ModelError
from models.fingerprint import fingerprint
from models.images import pixels_of
from tests.support.pictures import file_of, picture
from tests.support.tiny_model import (
    DIM,
    IMAGE_SIZE,
    MAX_TOKENS,
    edit_json,
    make_tiny_siglip,
)

TEXTS = ["a blue mug", "Red cup of the gift film and drama, a comedy", "mug", "the FILM: comedy " * 9]
PAD, CLOSING, UNKNOWN = "[PAD]", "[SEP]", "<none>"
FILES = [file_of(picture(seed, 60, 40 + seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SigLIP, unchanged by the tests that share it."""
    return make_tiny_siglip(tmp_path_factory.mktemp("models") / "siglip")


def encoder_of(folder: Path, image_weight: float = 0.5) -> Encoder:
    """Load on CPU in fp32."""
    return Encoder(load_spec(folder), "cpu", threads=1, precision="fp32", image_weight=image_weight)


def texts_by_transformers(folder: Path, side: str) -> npt.NDArray[np.float32]:
    """Encode the texts as the model's page says: in lower case, padded to the model's length, without a mask."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")), pad_token=PAD, padding_side=side
    )
    lower = [text.lower() for text in TEXTS]
    ids = tokenizer(lower, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        return unit(SiglipModel.from_pretrained(folder).eval().get_text_features(input_ids=ids).pooler_output)


def images_by_transformers(folder: Path) -> npt.NDArray[np.float32]:
    """Encode the files with the image processor of the model."""
    processor = SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    opened = [Image.open(io.BytesIO(data)) for data in FILES]
    values = torch.from_numpy(np.stack(processor(opened, return_tensors="np")["pixel_values"]))
    with torch.inference_mode():
        return unit(SiglipModel.from_pretrained(folder).eval().get_image_features(pixel_values=values).pooler_output)


def unit(features: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return rows of length one."""
    rows: npt.NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1).numpy()
    return rows


def test_the_folder_says_what_is_in_it(folder: Path) -> None:
    """Sizes come from the towers' parts of the configuration, the preparation and the padding from their own files."""
    spec = load_spec(folder)
    assert (spec.architecture, spec.pooling, spec.dim, spec.max_tokens) == ("siglip", "projection", DIM, MAX_TOKENS)
    assert spec.lower_case
    assert (preprocessing_of(spec).size, preprocessing_of(spec).shortest_edge) == (IMAGE_SIZE, None)
    assert preprocessing_of(spec).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("side", "config"),
    [
        ("right", {}),
        ("right", {"pad_token": {"content": PAD}, "padding_side": "right", "tokenizer_class": "GemmaTokenizer"}),
        ("left", {"padding_side": "left"}),
        ("left", {"tokenizer_class": "GemmaTokenizerFast"}),
    ],
)
def test_texts_are_the_text_towers(tmp_path: Path, side: str, config: dict[str, Any]) -> None:
    """All of one length, whatever they are encoded with; what is too long is cut."""
    folder = make_tiny_siglip(tmp_path / "siglip", **config)
    expected = texts_by_transformers(folder, side)
    assert np.abs(expected @ expected.T - np.eye(len(TEXTS))).max() < 0.999  # the texts differ
    encoder = encoder_of(folder, 0.0)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in TEXTS]), expected, atol=1e-5)
    assert encoder.truncated == 2


def test_a_shorter_limit_still_pads_to_the_models_length(folder: Path) -> None:
    """`encoder_max_tokens` cuts texts; the last position stays the one that the model reads."""
    short = Encoder(load_spec(folder), "cpu", max_tokens=8, threads=1, precision="fp32")
    assert {len(ids) for ids in short.tokenize(TEXTS)} == {MAX_TOKENS}
    np.testing.assert_allclose(short.encode(["mug"]), encoder_of(folder).encode(["mug"]), atol=1e-5)


def test_images_are_the_image_towers(folder: Path) -> None:
    """Squeezed to a square, whatever their shape, and scaled to -1..1."""
    expected = images_by_transformers(folder)
    assert np.abs(expected @ expected.T - np.eye(len(FILES))).max() < 0.999  # the images differ
    steps = preprocessing_of(load_spec(folder))
    encoded = encoder_of(folder, 1.0).encode_items([[]] * 4, [pixels_of(data, steps, 10**6) for data in FILES])
    np.testing.assert_allclose(encoded.vectors, expected, atol=1e-5)


def test_text_and_image_are_fused(folder: Path) -> None:
    """As of any model that takes both."""
    encoder, steps = encoder_of(folder, 0.5), preprocessing_of(load_spec(folder))
    encoded = encoder.encode_items(encoder.tokenize(TEXTS), [pixels_of(data, steps, 10**6) for data in FILES])
    sums = encoder.encode(TEXTS) + images_by_transformers(folder)
    np.testing.assert_allclose(encoded.vectors, sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


def test_the_fingerprint_covers_the_padding(folder: Path, tmp_path: Path) -> None:
    """Another side or token gives other vectors of the same weights."""
    left = make_tiny_siglip(tmp_path / "left", padding_side="left")
    other = make_tiny_siglip(tmp_path / "other", pad_token=CLOSING)
    specs = [load_spec(one) for one in (folder, left, other)]
    assert len({spec.weights_sha256 for spec in specs}) == 1
    assert len({fingerprint(spec, 32) for spec in specs}) == 3


def test_what_is_not_said_is_refused(tmp_path: Path) -> None:
    """A guess about padding or sizes would give wrong vectors quietly."""
    folder = make_tiny_siglip(tmp_path / "siglip")
    edit_json(folder / "tokenizer_config.json", padding_side="middle")
    with pytest.raises(ModelError, match="on the side 'middle'"):
        load_spec(folder)
    edit_json(folder / "tokenizer_config.json", padding_side="right", pad_token=UNKNOWN)
    with pytest.raises(ModelError, match="does not know '<none>'"):
        encoder_of(folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="does not say what token"):
        load_spec(folder)
    apart = make_tiny_siglip(tmp_path / "apart")
    edit_json(apart / "config.json", text_config={"projection_size": DIM + 1})
    with pytest.raises(ModelError, match="cannot be compared"):
        load_spec(apart)
