"""
The images of items: files below one folder, found by `image_url`, read and prepared beside the tokenizer.

Nothing is fetched, and nothing outside the folder is opened: links are resolved first. What cannot be used is told
and counted, and costs its item the image, not its vector.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import structlog

from models.errors import ImageError
from models.images import Preprocessing, pixels_of
from streams import metrics
from streams.errors import ConfigurationError, DependencyError
from streams.settings import Settings

_LOG = structlog.get_logger(__name__)

Pixels = npt.NDArray[np.uint8]

#: Decoding leaves the interpreter, so that threads share the work; each may hold an image of `image_max_pixels`.
_MOST_THREADS = 4


class FoundImage(NamedTuple):
    """
    A file that is there, not opened yet.

    Attributes
    ----------
    identity
        Its place below the folder, its size and when it was written: another file there has another identity. Bytes
        are not read for it, because every item that is told again would cost a whole image then.

    """

    path: Path
    identity: bytes


class Images:
    """
    The folder of images.

    Parameters
    ----------
    settings
        `image_root`, which is set, and the limits of an image.
    preprocessing
        What becomes of an image before the model.

    Raises
    ------
    ConfigurationError
        When there is no such folder.

    """

    def __init__(self, settings: Settings, preprocessing: Preprocessing) -> None:
        assert settings.image_root is not None
        self._preprocessing = preprocessing
        self._max_bytes = settings.image_max_bytes
        self._max_pixels = settings.image_max_pixels
        try:
            self._root = settings.image_root.expanduser().resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f"FRESHET_IMAGE_ROOT: {settings.image_root} cannot be found: {error}") from error
        if not self._root.is_dir():
            raise ConfigurationError(f"FRESHET_IMAGE_ROOT: {self._root} is not a folder")
        self._place = self._root_place()
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="image")

    @property
    def image_bytes(self) -> int:
        """Bytes of one image in memory once it is prepared."""
        return self._preprocessing.image_bytes

    def find(self, url: str) -> FoundImage:
        """
        Look an `image_url` up: a `file:` URL, or a path, which may be relative to the folder.

        Raises
        ------
        ImageError
            When it is no such address, leads out of the folder, or no file of an allowed size is there.
        DependencyError
            When the folder itself is gone.

        """
        try:
            path = (self._root / _path_of(url)).resolve()
            if not path.is_relative_to(self._root):
                raise ImageError("refused", "it lies outside FRESHET_IMAGE_ROOT")
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError) as error:
            self._check_root()
            raise ImageError("missing", "no such file") from error
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a null byte
            raise ImageError("unreadable", f"its file cannot be looked up: {error}") from error
        self._check_file(status)
        name = os.fsencode(path.relative_to(self._root))
        return FoundImage(path, b"%b\0%d\0%d" % (name, status.st_size, status.st_mtime_ns))

    def load(self, found: Sequence[FoundImage | None]) -> dict[int, Pixels | ImageError]:
        """
        Read and prepare images, several at a time.

        Returns
        -------
        Position of an image to its pixels, (3, size, size) uint8, or to why there are none.

        """
        there = {place: image for place, image in enumerate(found) if image is not None}
        return dict(zip(there, self._pool.map(self._load_one, there.values()), strict=True))

    def close(self) -> None:
        """End the threads when they have done what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _load_one(self, image: FoundImage) -> Pixels | ImageError:
        try:
            return pixels_of(self._read(image), self._preprocessing, self._max_pixels)
        except ImageError as error:
            return error

    def _read(self, image: FoundImage) -> bytes:
        try:
            # A link or a pipe in the place of the file that was found is not followed and not waited for.
            descriptor = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                self._check_file(os.fstat(descriptor))
                data = file.read(self._max_bytes + 1)
        except FileNotFoundError as error:
            self._check_root()
            raise ImageError("missing", "its file is gone") from error
        except OSError as error:
            raise ImageError("unreadable", f"its file cannot be read: {error.strerror}") from error
        if len(data) > self._max_bytes:
            raise ImageError("too_large", f"its file has more than {self._max_bytes} bytes")
        return data

    def _check_file(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("unreadable", "it is not a file")
        if status.st_size > self._max_bytes:
            raise ImageError("too_large", f"its file has {status.st_size} bytes, {self._max_bytes} are allowed")

    def _root_place(self) -> tuple[int, int]:
        status = self._root.stat()
        return status.st_dev, status.st_ino

    def _check_root(self) -> None:
        """Tell a missing file from a missing mount: without it the whole catalogue would lose its images."""
        try:
            gone = self._root_place() != self._place
        except OSError:
            gone = True
        if gone:
            raise DependencyError(f"the folder {self._root} (FRESHET_IMAGE_ROOT) is gone or another one")


def _path_of(url: str) -> str:
    """
    Return the path that an address means.

    >>> _path_of("file:///images/a%20mug.jpg"), _path_of("shoes/1.png")
    ('/images/a mug.jpg', 'shoes/1.png')
    """
    if not url.startswith("file:"):
        scheme, apart, _ = url.partition("://")
        if apart or url.startswith("data:"):
            raise ImageError("refused", f"{scheme[:20]!r} addresses are not fetched; mount the files and name those")
        return url
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise ImageError("refused", "a file: URL must not name a host")
    return unquote(parts.path, errors="strict")


def report(problems: Sequence[tuple[str, ImageError]]) -> None:
    """Count images that could not be used, by (item id, reason), and log one of them: there may be thousands."""
    for _, problem in problems:
        metrics.IMAGES.labels(problem.outcome).inc()
    if problems:
        item_id, problem = problems[0]
        _LOG.warning("images_unusable", images=len(problems), item=item_id, reason=str(problem))
