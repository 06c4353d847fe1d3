"""Vectors of an evaluation are those that the encoder role would publish, of texts and of images, and are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from models.artifact import preprocessing_of
from models.images import pixels_of
from streams.encoding.source import load_encoder
from streams.evaluation.vectors import EncodedItems, encode_items
from streams.settings import Settings
from streams.wire.items import Item
from tests.support.pictures import bomb, file_of, picture
from tests.support.tiny_model import make_tiny_clip, make_tiny_model


def encoded(settings: Settings, *items: Item) -> EncodedItems:
    """Encode without a progress bar."""
    return encode_items(settings, items, lambda _what, _count: lambda _done: None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A tiny CLIP, a cache and two images, in fp32."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(2):
        (root / f"{number}.png").write_bytes(file_of(picture(number)))
    return Settings(
        model_path=make_tiny_clip(tmp_path / "clip"), image_root=root, cache_dir=tmp_path / "cache", device="cpu",
        encoder_threads=1, encoder_precision="fp32",
    )  # fmt: skip


def test_texts_and_images_are_fused_as_the_role_does(settings: Settings) -> None:
    """An item of both, of a text alone, of an image alone; an item that says nothing has no vector."""
    both, text, image = (
        Item("both", title="mug", image_url="0.png"),
        Item("text", title="cup"),
        Item("i", image_url="1.png"),
    )
    encoder = load_encoder(settings)
    steps = preprocessing_of(encoder.folder)
    assert settings.image_root is not None
    pixels = [pixels_of((settings.image_root / f"{number}.png").read_bytes(), steps, 10**6) for number in range(2)]
    tokens = encoder.tokenize(["mug", "cup"])
    expected = encoder.encode_items([*tokens, []], [pixels[0], None, pixels[1]]).vectors
    found = encoded(settings, both, text, Item("silent", in_stock=True), image)
    assert (found.ids, found.served.fingerprint) == (["both", "text", "i"], encoder.fingerprint)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    alone = encoded(settings.model_copy(update={"image_vectors": "text"}), both, text, image)
    assert alone.ids == ["both", "text"]
    assert alone.served.fingerprint != found.served.fingerprint
    np.testing.assert_allclose(alone.vectors, encoder.encode(["mug", "cup"]), atol=1e-5)


def test_vectors_are_kept_by_text_and_image(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is the same is not encoded again; a file that changed under its name is."""
    item, twin = Item("a", title="mug", image_url="0.png"), Item("b", title="mug", image_url="0.png")
    first = encoded(settings, item, twin)
    np.testing.assert_array_equal(first.vectors[0], first.vectors[1])

    def refuse(_settings: Settings) -> NoReturn:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patched:
        patched.setattr("streams.evaluation.vectors.load_encoder", refuse)
        np.testing.assert_array_equal(encoded(settings, twin).vectors[0], first.vectors[0])
    assert settings.image_root is not None
    (settings.image_root / "0.png").write_bytes(file_of(picture(7, 80, 80)))
    assert np.abs(encoded(settings, item).vectors[0] - first.vectors[0]).max() > 1e-3


def test_a_bad_image_costs_its_item_the_image(settings: Settings) -> None:
    """As in the role: the text is encoded, and an item of nothing else has no vector."""
    assert settings.image_root is not None
    (settings.image_root / "bomb.png").write_bytes(bomb(60_000, 60_000))
    urls = ["none.png", "bomb.png", "https://shop.example/0.png"]
    worded = [Item(f"w{url}", title=f"mug {place}", image_url=url) for place, url in enumerate(urls)]
    found = encoded(settings, *worded, *(Item(f"s{url}", image_url=url) for url in urls))
    assert found.ids == [item.item_id for item in worded]
    np.testing.assert_allclose(found.vectors, load_encoder(settings).encode([item.title for item in worded]), atol=1e-5)


def test_an_image_that_goes_meanwhile_is_looked_for_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found and gone before it was read: the text's vector is taken and not kept as the vector of both."""
    item = Item("a", title="mug", image_url="0.png")
    assert settings.image_root is not None
    file = settings.image_root / "0.png"
    data, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    real = load_encoder

    def load_and_remove(given: Settings) -> object:
        file.unlink()
        return real(given)

    with monkeypatch.context() as patched:
        patched.setattr("streams.evaluation.vectors.load_encoder", load_and_remove)
        without = encoded(settings, item)
    np.testing.assert_allclose(without.vectors, real(settings).encode(["mug"]), atol=1e-5)
    file.write_bytes(data)
    os.utime(file, ns=times)
    assert np.abs(encoded(settings, item).vectors - without.vectors).max() > 1e-3


def test_a_model_of_texts_takes_no_images(settings: Settings, tmp_path: Path) -> None:
    """`image_url` says nothing to it then, whatever stands there."""
    plain = settings.model_copy(update={"model_path": make_tiny_model(tmp_path / "tiny")})
    found = encoded(plain, Item("a", title="mug", image_url="https://shop.example/0.png"), Item("b", image_url="0.png"))
    assert found.ids == ["a"]
    np.testing.assert_allclose(found.vectors, load_encoder(plain).encode(["mug"]), atol=1e-5)
