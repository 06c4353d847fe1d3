"""Image files for tests: small, different from each other, and bad ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(seed: int = 0, width: int = 60, height: int = 40, *, mode: str = "RGB") -> Image.Image:
    """Return coloured tiles with some noise: two seeds are two images for any model."""
    random = np.random.default_rng(seed)
    tiles = random.integers(0, 256, (4, 4, 3), np.uint8).repeat(-(-height // 4), axis=0).repeat(-(-width // 4), axis=1)
    noise = random.integers(0, 20, (height, width, 3), np.uint8)
    return Image.fromarray(tiles[:height, :width] // 2 + noise, "RGB").convert(mode)


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return the image as a file."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of some bytes whose header promises so many pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
