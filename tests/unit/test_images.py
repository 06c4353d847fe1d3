"""Image files become the pixels that transformers would make of them, or a reason; nothing large is decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from models.errors import ImageError, ModelError
from models.images import Preprocessing, pixels_of, read_preprocessing
from tests.support.pictures import bomb, file_of, picture

SIZE = 24
MANY = 1_000_000
PLAIN = read_preprocessing({}, SIZE, "file")


def normalised(data: bytes, preprocessing: Preprocessing) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return (3, size, size) float32 as the image tower gets them."""
    pixels = pixels_of(data, preprocessing, MANY)
    assert (pixels.shape, pixels.dtype.name) == ((3, preprocessing.size, preprocessing.size), "uint8")
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (pixels.astype(np.float32) * np.float32(preprocessing.rescale) - mean) / std


@pytest.mark.parametrize("shape", [(60, 40), (40, 61), (24, 24), (10, 15), (25, 24), (200, 33)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"size": 31, "crop_size": SIZE, "resample": 2},
        {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
    ],
)
def test_pixels_are_those_of_transformers(shape: tuple[int, int], mode: str, config: dict[str, Any]) -> None:
    """Scaling, cutting and normalising agree with CLIPImageProcessor, value by value."""
    data = file_of(picture(1, *shape, mode=mode))
    given = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}} | config
    expected = CLIPImageProcessorPil(**given)(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(normalised(data, read_preprocessing(given, SIZE, "file")), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(60, 40), (40, 61), (24, 24), (10, 15), (200, 33)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("config", [{}, {"resample": 2, "image_mean": [0.5, 0.4, 0.3]}])
def test_squeezed_pixels_are_those_of_transformers(shape: tuple[int, int], mode: str, config: dict[str, Any]) -> None:
    """SigLIP's images lose their shape instead of their edges, as SiglipImageProcessor makes them."""
    data = file_of(picture(1, *shape, mode=mode))
    given = {"size": {"height": SIZE, "width": SIZE}} | config
    opened = Image.open(io.BytesIO(data))
    expected = SiglipImageProcessorPil(**given)(opened, return_tensors="np")["pixel_values"][0]
    steps = read_preprocessing(given, SIZE, "file", "SiglipImageProcessor")
    np.testing.assert_allclose(normalised(data, steps), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_formats_are_read(kind: str) -> None:
    """By what is in the file; no name is looked at."""
    assert pixels_of(file_of(picture(), kind), PLAIN, MANY).any()


def test_an_image_is_turned_as_its_camera_was_held() -> None:
    """As transformers' loader does: the note in the file counts."""
    image = picture(2)
    note = Image.Exif()
    note[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "PNG", exif=note)
    turned = file_of(image.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(pixels_of(turned, PLAIN, MANY), pixels_of(out.getvalue(), PLAIN, MANY))


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        (b"", "format", "none of JPEG, PNG, WEBP"),
        (b"<svg/>", "format", "none of JPEG, PNG, WEBP"),
        (file_of(picture(), "BMP"), "format", "none of JPEG, PNG, WEBP"),
        (file_of(picture(), "GIF"), "format", "none of JPEG, PNG, WEBP"),
        (file_of(picture(), "JPEG")[:-200], "broken", "cannot be decoded"),
        (file_of(picture())[:200], "broken", "cannot be decoded"),
        (bomb(30_000, 2), "too_large", "too narrow"),
        (bomb(1_001, 1_000), "too_large", "1001 x 1000 pixels, 1000000 are allowed"),
        (bomb(12_000, 12_000), "too_large", "more than 1000000 pixels"),
        (bomb(60_000, 60_000), "too_large", "more than 1000000 pixels"),
    ],
)
def test_a_bad_file_is_a_reason(data: bytes, outcome: str, reason: str) -> None:
    """Other formats, damaged files and bombs are told apart; of a bomb only the header is read."""
    with pytest.raises(ImageError, match=reason) as caught:
        pixels_of(data, PLAIN, MANY)
    assert caught.value.outcome == outcome


def test_a_jpeg_of_endless_passes_is_refused() -> None:
    """Each pass takes time for every pixel, and a few bytes; usual ones have some ten."""
    out = io.BytesIO()
    picture().save(out, "JPEG", progressive=True)
    data = out.getvalue()
    assert pixels_of(data, PLAIN, MANY).any()
    last = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="more than 100 scans") as caught:
        pixels_of(data[:-2] + data[last:-2] * 100 + data[-2:], PLAIN, MANY)
    assert caught.value.outcome == "too_large"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ([], "not a JSON object"),
        ({"image_processor_type": "ViTImageProcessor"}, "made for 'ViTImageProcessor'"),
        ({"do_center_crop": False}, "leaves out do_center_crop"),
        ({"crop_size": 25}, "makes images of 25 x 25 pixels, the model takes 24 x 24"),
        ({"crop_size": {"height": 24}}, "which is not known"),
        ({"size": {"height": 30, "width": 30}}, "another size"),
        ({"size": 23}, "must be 24 to 48"),
        ({"size": {"shortest_edge": 10**6}}, "must be 24 to 48"),
        ({"size": "large"}, "must be 24 to 48"),
        ({"resample": 17}, "names a filter 17"),
        ({"image_std": [0.2, 0.2]}, "three channels"),
        ({"image_std": [0.2, 0, 0.2]}, "positive number"),
        ({"rescale_factor": "1/255"}, "positive number"),
        ({"image_processor_type": "SiglipImageProcessor", "size": {"shortest_edge": 24}}, "which is not known"),
        ({"image_processor_type": "SiglipImageProcessor", "size": {"height": 24, "width": 30}}, "another size"),
        ({"image_processor_type": "SiglipImageProcessor", "do_center_crop": True}, "does not do"),
    ],
)
def test_other_preparations_are_refused(config: Any, reason: str) -> None:
    """Steps that would not be done as the model was trained with give wrong vectors quietly."""
    with pytest.raises(ModelError, match=reason):
        read_preprocessing(config, SIZE, Path("preprocessor_config.json"))
