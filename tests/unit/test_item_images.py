"""Images of items are found below one folder and nowhere else, told apart without being read, loaded with limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from models.errors import ImageError
from models.images import pixels_of, read_preprocessing
from streams.encoding.images import Images, report
from streams.errors import ConfigurationError, DependencyError
from streams.settings import Settings
from tests.support.pictures import bomb, file_of, picture

STEPS = read_preprocessing({}, 16, "file")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with an image, and a secret beside it."""
    folder = tmp_path / "images"
    (folder / "shoes").mkdir(parents=True)
    (folder / "shoes" / "a 1.png").write_bytes(file_of(picture()))
    (tmp_path / "secret.png").write_bytes(file_of(picture()))
    return folder


@pytest.fixture
def images(root: Path) -> Iterator[Images]:
    """The folder, with small limits."""
    found = Images(Settings(image_root=root, image_max_bytes=20_000, image_max_pixels=10_000), STEPS)
    yield found
    found.close()


@pytest.mark.parametrize(
    "url", ["shoes/a 1.png", "{root}/shoes/a 1.png", "file://{root}/shoes/a%201.png", "file://localhost{root}/shoes/a%201.png",
            "file:shoes/a%201.png", "shoes/../shoes/./a 1.png"],
)  # fmt: skip
def test_an_address_is_a_path_or_a_file_url(images: Images, root: Path, url: str) -> None:
    """Absolute or relative to the folder; all of them are the same image."""
    found = images.find(url.format(root=root))
    assert found == images.find("shoes/a 1.png")
    assert found.path == root / "shoes" / "a 1.png"


@pytest.mark.parametrize(
    ("url", "outcome", "reason"),
    [
        ("https://shop.example/a.png", "refused", "'https' addresses are not fetched"),
        ("http://169.254.169.254/a.png", "refused", "'http' addresses are not fetched"),
        ("s3://bucket/a.png", "refused", "'s3' addresses are not fetched"),
        ("data:image/png;base64,AAAA", "refused", "addresses are not fetched"),
        ("file://host/a.png", "refused", "must not name a host"),
        ("../secret.png", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("shoes/../../secret.png", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("file:%2e%2e/secret.png", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("/etc/passwd", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("file:///etc/passwd", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("link.png", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("away/secret.png", "refused", "outside FRESHET_IMAGE_ROOT"),
        ("loop.png", "unreadable", "cannot be looked up|not a file"),
        ("shoes", "unreadable", "not a file"),
        ("pipe.png", "unreadable", "not a file"),
        ("a\0b.png", "unreadable", "cannot be looked up"),
        ("file:%ff.png", "unreadable", "cannot be looked up"),
        ("a" * 2_000, "unreadable", "cannot be looked up"),
        ("none.png", "missing", "no such file"),
        ("shoes/a 1.png/none.png", "missing", "no such file"),
        ("large.png", "too_large", "20001 bytes, 20000 are allowed"),
    ],
)
def test_other_addresses_are_refused(images: Images, root: Path, url: str, outcome: str, reason: str) -> None:
    """Nothing is fetched, nothing outside the folder is looked at, whatever names or links lead there."""
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "away").symlink_to(root.parent)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "large.png").write_bytes(bytes(20_001))
    os.mkfifo(root / "pipe.png")
    with pytest.raises(ImageError, match=reason) as caught:
        images.find(url)
    assert caught.value.outcome == outcome


def test_links_within_the_folder_are_followed(images: Images, root: Path) -> None:
    """Kubernetes mounts files so."""
    (root / "link.png").symlink_to(root / "shoes" / "a 1.png")
    assert images.find("link.png") == images.find("shoes/a 1.png")


def test_a_changed_file_has_another_identity(images: Images, root: Path) -> None:
    """By size or by time, under the same name; one that stays keeps it, also where the folder is mounted elsewhere."""
    file = root / "shoes" / "a 1.png"
    first = images.find("shoes/a 1.png").identity
    assert images.find("shoes/a 1.png").identity == first
    os.utime(file, ns=(1, 1))
    second = images.find("shoes/a 1.png").identity
    file.write_bytes(file_of(picture(1)) + b"more")
    os.utime(file, ns=(1, 1))
    third = images.find("shoes/a 1.png").identity
    assert len({first, second, third}) == 3
    root.rename(root.with_name("elsewhere"))
    elsewhere = Images(Settings(image_root=root.with_name("elsewhere")), STEPS)
    assert elsewhere.find("shoes/a 1.png").identity == third
    elsewhere.close()


def test_images_are_loaded_or_say_why_not(images: Images, root: Path) -> None:
    """One bad file costs itself; a link put in a file's place afterwards is not followed."""
    data = {"good.png": file_of(picture(3)), "broken.png": file_of(picture(4))[:-90], "bomb.png": bomb(101, 100)}
    data |= {"gone.png": data["good.png"], "swapped.png": data["good.png"], "text.png": b"no image"}
    for name, content in data.items():
        (root / name).write_bytes(content)
    found = [images.find(name) for name in data]
    for name in ("gone.png", "swapped.png"):
        (root / name).unlink()
    (root / "swapped.png").symlink_to(root.parent / "secret.png")
    loaded = images.load([None, *found])
    (good, *bad) = (loaded[place] for place in range(1, 7))
    assert isinstance(good, np.ndarray)
    assert np.array_equal(good, pixels_of(data["good.png"], STEPS, 10_000))
    outcomes = [problem.outcome for problem in bad if isinstance(problem, ImageError)]
    assert outcomes == ["broken", "too_large", "missing", "unreadable", "format"]
    assert 0 not in loaded


def test_a_folder_that_is_gone_is_no_missing_image(images: Images, root: Path) -> None:
    """Without its mount the worker ends; otherwise the whole catalogue would be encoded anew without its images."""
    found = images.find("shoes/a 1.png")
    with pytest.raises(ImageError, match="no such file"):
        images.find("none.png")
    root.rename(root.with_name("unmounted"))
    root.mkdir()
    with pytest.raises(DependencyError, match="FRESHET_IMAGE_ROOT"):
        images.find("shoes/a 1.png")
    with pytest.raises(DependencyError, match="FRESHET_IMAGE_ROOT"):
        images.load([found])
    root.rmdir()
    with pytest.raises(DependencyError, match="FRESHET_IMAGE_ROOT"):
        images.find("shoes/a 1.png")


def test_a_folder_that_is_not_there_is_a_sentence(root: Path) -> None:
    """At start, with the name of the setting."""
    with pytest.raises(ConfigurationError, match=r"FRESHET_IMAGE_ROOT.*cannot be found"):
        Images(Settings(image_root=root / "none"), STEPS)
    with pytest.raises(ConfigurationError, match=r"FRESHET_IMAGE_ROOT.*is not a folder"):
        Images(Settings(image_root=root / "shoes" / "a 1.png"), STEPS)


def test_what_is_left_out_is_counted() -> None:
    """By reason."""

    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("freshet_encoder_images_total", {"outcome": outcome}) or 0.0

    before = counted("missing"), counted("broken")
    report([("a", ImageError("missing", "")), ("b", ImageError("broken", "")), ("c", ImageError("missing", ""))])
    assert (counted("missing"), counted("broken")) == (before[0] + 2, before[1] + 1)
