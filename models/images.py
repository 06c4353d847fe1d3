"""
Image files to the pixels that an image tower takes: as transformers' CLIPImageProcessor and SiglipImageProcessor do.

Files come from strangers. Format, size and shape are looked at before anything is decoded, and whatever a decoder makes
of a bad file is one error.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from models.errors import ImageError, ModelError

FORMATS = ("JPEG", "PNG", "WEBP")

#: Scale the shorter side and cut the middle out, or scale to a square.
_CUTTING = frozenset({"CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"})
_SQUEEZING = frozenset({"SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"})

#: What CLIPImageProcessor does where its file says nothing: the values that OpenAI trained CLIP with.
_DEFAULTS: dict[str, Any] = {
    "resample": int(Image.Resampling.BICUBIC),
    "rescale_factor": 1 / 255,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
#: SiglipImageProcessor where it differs.
_SQUEEZING_DEFAULTS: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
#: Passes over a progressive JPEG: cameras and editors write about ten. Each costs time for all pixels and next to no
#: bytes, so that a small file could take hours. The second is what a pass begins with.
_MOST_SCANS = 100
_SCAN = b"\xff\xda"
#: Tiles along one side of a check image: large enough that each lies over several patches.
_TILES = 4
#: A step that is left out would need another rule for sizes or values; no CLIP or SigLIP model does so.
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
_CUT = "do_center_crop"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """
    What becomes of an image before the image tower.

    Attributes
    ----------
    shortest_edge
        Pixels of the shorter side after scaling; None scales to a square of `size`, whatever the shape was.
    size
        Height and width that the tower takes; what is larger is cut to its middle.
    resample
        Pillow's number of the filter that scales.
    rescale, mean, std
        A channel's value 0..255 becomes `(value * rescale - mean) / std`.

    """

    shortest_edge: int | None
    size: int
    resample: int
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def image_bytes(self) -> int:
        """Bytes of an image between its file and the device."""
        return 3 * self.size * self.size


def read_preprocessing(config: Any, size: int, source: object, processor: str = "CLIPImageProcessor") -> Preprocessing:
    """
    Read what `preprocessor_config.json` says.

    Parameters
    ----------
    config
        Its JSON object.
    size
        Height and width that the image tower takes.
    source
        Names the file in errors.
    processor
        transformers' class where it names none.

    Raises
    ------
    ModelError
        When it asks for something that is not done here, or for another size than the tower's.

    >>> read_preprocessing({"size": 224, "crop_size": 224}, 224, "preprocessor_config.json").shortest_edge
    224

    """
    if not isinstance(config, dict):
        raise ModelError(f"{source} is not a JSON object")
    kind = config.get("image_processor_type", config.get("feature_extractor_type", processor))
    if kind not in _CUTTING | _SQUEEZING:
        raise ModelError(
            f"{source} is made for {kind!r}; images are prepared as by CLIPImageProcessor or SiglipImageProcessor only"
        )
    cuts = kind in _CUTTING
    if left_out := [step for step in (*_STEPS, *([_CUT] if cuts else [])) if config.get(step) is False]:
        raise ModelError(f"{source} leaves out {left_out[0]}, which Freshet does always")
    if not cuts and config.get(_CUT):
        raise ModelError(f"{source} asks for {_CUT}, which {kind} does not do")
    defaults = _DEFAULTS if cuts else _DEFAULTS | _SQUEEZING_DEFAULTS
    given = defaults | {name: value for name, value in config.items() if value is not None}
    if given["resample"] not in {int(one) for one in Image.Resampling}:
        raise ModelError(f"{source} names a filter {given['resample']!r} that is not known")
    shortest_edge = _shortest_edge(given, size, source) if cuts else None
    if shortest_edge is None and _sides(given.get("size", size), source) != (size, size):
        raise ModelError(f"{source} scales images to another size than the model's {size} x {size}")
    return Preprocessing(
        shortest_edge=shortest_edge,
        size=size,
        resample=given["resample"],
        rescale=_number(given["rescale_factor"], source),
        mean=_channels(given["image_mean"], source),
        std=_channels(given["image_std"], source),
    )


def _shortest_edge(given: dict[str, Any], size: int, source: object) -> int | None:
    """Return to what the shorter side is scaled before the middle is cut out; None scales to a square."""
    crop = _sides(given.get("crop_size", size), source)
    if crop != (size, size):
        raise ModelError(f"{source} makes images of {crop[0]} x {crop[1]} pixels, the model takes {size} x {size}")
    scaled = given.get("size", size)
    edge = scaled.get("shortest_edge") if isinstance(scaled, dict) else scaled
    if edge is not None and not (isinstance(edge, int) and size <= edge <= 2 * size):
        raise ModelError(f"{source} scales the shorter side to {edge!r}; it must be {size} to {2 * size}")
    return edge


def _sides(given: Any, source: object) -> tuple[int, int]:
    """Return (height, width)."""
    height, width = (given.get("height"), given.get("width")) if isinstance(given, dict) else (given, given)
    if not isinstance(height, int) or not isinstance(width, int):
        raise ModelError(f"{source} gives a size as {given!r}, which is not known")
    return height, width


def _channels(given: Any, source: object) -> tuple[float, float, float]:
    if not isinstance(given, list) or len(given) != 3:
        raise ModelError(f"{source} must give mean and std of three channels")
    red, green, blue = (_number(value, source) for value in given)
    return red, green, blue


def _number(given: Any, source: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given) or given <= 0:
        raise ModelError(f"{source} has {given!r} where a positive number belongs")
    return float(given)


def pixels_of(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> npt.NDArray[np.uint8]:
    """
    Decode an image file, scale it and cut out its middle.

    Parameters
    ----------
    data
        A JPEG, PNG or WebP file; of several pictures in it the first counts.
    max_pixels
        More, as its header says or after scaling, are refused before they take memory.

    Returns
    -------
    (3, size, size) uint8, red first, not normalised yet: a quarter of what float32 would take.

    Raises
    ------
    ImageError
        When it is no such file, too large, or damaged.

    """
    try:
        # Opening reads the header; Pillow's own alarm about the size is an error or, in tests, a warning that is one.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height, preprocessing, max_pixels)
            if image.format not in {"PNG", "WEBP"}:
                _check_scans(data)
            return _prepared(image, preprocessing)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", f"it has more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("format", f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImageError("broken", f"it cannot be decoded: {error}") from error


def _check_size(width: int, height: int, preprocessing: Preprocessing, max_pixels: int) -> None:
    if not width or not height:
        raise ImageError("broken", "it has no pixels")
    if width * height > max_pixels:
        raise ImageError("too_large", f"it has {width} x {height} pixels, {max_pixels} are allowed")
    # One line of a million pixels would be scaled to the shorter side times a million.
    edge = preprocessing.shortest_edge
    if edge is not None and edge * edge * max(width, height) // min(width, height) > max_pixels:
        raise ImageError("too_large", f"{width} x {height} pixels are too narrow to be scaled to {edge}")


def _check_scans(data: bytes) -> None:
    if data.count(_SCAN) > _MOST_SCANS:
        raise ImageError("too_large", f"it has more than {_MOST_SCANS} scans")


def _prepared(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    # Cameras note how they were held, as transformers' own loader heeds; a palette may carry transparency, which
    # Pillow warns about on the direct way.
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "P":
        upright = upright.convert("RGBA")
    rgb = upright.convert("RGB")
    edge, size = preprocessing.shortest_edge, preprocessing.size
    if edge is None:
        wanted = (size, size)
    elif rgb.width <= rgb.height:
        wanted = (edge, int(edge * rgb.height / rgb.width))
    else:
        wanted = (int(edge * rgb.width / rgb.height), edge)
    scaled = rgb.resize(wanted, Image.Resampling(preprocessing.resample))
    left, top = (scaled.width - size) // 2, (scaled.height - size) // 2
    cut = scaled.crop((left, top, left + size, top + size))
    pixels: npt.NDArray[np.uint8] = np.ascontiguousarray(np.asarray(cut, np.uint8).transpose(2, 0, 1))
    return pixels


def canary_images(number: int, size: int) -> npt.NDArray[np.uint8]:
    """
    Return (number, 3, size, size) uint8 images of coloured tiles, the same ones always.

    >>> canary_images(2, 32).shape
    (2, 3, 32, 32)
    """
    tiles = np.random.default_rng(0).integers(0, 256, (number, 3, _TILES, _TILES), np.uint8)
    each = -(-size // _TILES)
    return np.ascontiguousarray(tiles.repeat(each, axis=2).repeat(each, axis=3)[..., :size, :size])
