"""The encoder worker with a tiny CLIP and files of images, against a real Kafka: items in, fused vectors out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.artifact import preprocessing_of
from models.images import pixels_of
from streams.encoding.source import load_encoder
from streams.evaluation.vectors import encode_items
from streams.kafka.admin import group_lags
from streams.settings import Settings
from streams.wire.dead_letters import DeadLetter
from streams.wire.items import Item
from tests.support.encoders import RunningEncoder, counted, put, vectors, wait_for
from tests.support.pictures import bomb, file_of, picture
from tests.support.tiny_model import make_tiny_clip, make_tiny_siglip
from tests.support.verifier import read_topic

pytestmark = pytest.mark.integration

SettingsFor = Callable[..., Settings]
IMAGES = "freshet_encoder_images_total"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP for the module."""
    return make_tiny_clip(tmp_path_factory.mktemp("model") / "clip")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images: good ones by number, and bad ones."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(file_of(picture(number), "JPEG"))
    (folder / "bomb.png").write_bytes(bomb(60_000, 60_000))
    (folder / "cut.jpg").write_bytes(file_of(picture(0), "JPEG")[:-300])
    return folder


@pytest.fixture
def settings(settings_for: SettingsFor, model: Path, root: Path) -> Settings:
    """A namespace of its own for each test."""
    return settings_for(
        partitions=4,
        model_path=model,
        image_root=root,
        device="cpu",
        encoder_threads=1,
        cache_dir=root.parent / "cache",
        encoder_precision="fp32",  # vectors are compared with exact ones
        encoder_batch_images=3,
        kafka_session_timeout_s=8,
        commit_timeout_s=5,
    )


def expected(settings: Settings, items: list[Item]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Encode items of a title, an image in the folder, or both."""
    encoder = load_encoder(settings)
    steps = preprocessing_of(encoder.folder)
    assert settings.image_root is not None
    files = [settings.image_root / item.image_url if item.image_url else None for item in items]
    pixels = [pixels_of(file.read_bytes(), steps, 10**6) if file else None for file in files]
    tokens = [encoder.tokenize([item.title])[0] if item.title else [] for item in items]
    rows = encoder.encode_items(tokens, pixels).vectors
    return {item.item_id: row for item, row in zip(items, rows, strict=True)}


@pytest.mark.parametrize("how", ["fused", "image", "text"])
def test_items_become_vectors_of_texts_and_images(settings: Settings, how: str) -> None:
    """Each by what it has, under the setting's own fingerprint; without a text there is no vector where texts count."""
    one = settings.model_copy(update={"image_vectors": how})
    both = [Item(f"b{number}", title=f"mug {number}", image_url=f"{number}.jpg") for number in range(12)]
    texts = [Item(f"t{number}", title=f"cup {number}") for number in range(5)]
    images = [Item(f"i{number}", image_url=f"{number}.jpg") for number in range(12, 20)]
    if how == "text":
        wanted = expected(one, [Item(item.item_id, title=item.title) for item in both + texts])
    else:
        wanted = expected(one, both + texts + images)
    with RunningEncoder(one):
        put(one, *both, *texts, *images)
        wait_for(lambda: vectors(one).keys() == wanted.keys())
        wait_for(lambda: all(lag.total == 0 for lag in group_lags(one)))
    for item_id, found in vectors(one).items():
        np.testing.assert_allclose(found.vector, wanted[item_id], atol=2e-3)
    # An evaluation of the same items makes the same records.
    offline = encode_items(one, [*both, *texts, *images], lambda _what, _count: lambda _done: None)
    assert dict(zip(offline.ids, offline.hashes, strict=True)) == {
        item_id: found.content_hash for item_id, found in vectors(one).items()
    }
    np.testing.assert_allclose(offline.vectors, [wanted[item_id] for item_id in offline.ids], atol=1e-4)
    prints = {load_encoder(one.model_copy(update={"image_vectors": name})).fingerprint for name in ("fused", "text")}
    assert len(prints) == 2


def test_a_siglip_does_as_well(settings: Settings, tmp_path: Path) -> None:
    """Its texts, all padded to one length, and its images become the same vectors as encoded directly."""
    one = settings.model_copy(update={"model_path": make_tiny_siglip(tmp_path / "siglip")})
    items = [Item(f"b{number}", title=f"Mug {number}", image_url=f"{number}.jpg") for number in range(12)]
    items += [Item("text", title="cup"), Item("image", image_url="13.jpg")]
    wanted = expected(one, items)
    with RunningEncoder(one):
        put(one, *items)
        wait_for(lambda: vectors(one).keys() == wanted.keys())
    for item_id, found in vectors(one).items():
        np.testing.assert_allclose(found.vector, wanted[item_id], atol=2e-3)


def test_a_bad_image_costs_its_item_the_image(settings: Settings) -> None:
    """With a text it is encoded from that, without one it goes to dead-letters; good items beside it go on."""
    bad = {"missing": "none.jpg", "refused": "https://shop.example/1.jpg", "too_large": "bomb.png", "broken": "cut.jpg"}
    worded = [Item(f"w-{outcome}", title=f"mug {outcome}", image_url=url) for outcome, url in bad.items()]
    silent = [Item(f"s-{outcome}", image_url=url) for outcome, url in bad.items()]
    good = [Item(f"g{number}", title=f"cup {number}", image_url=f"{number}.jpg") for number in range(20)]
    wanted = expected(settings, [Item(item.item_id, title=item.title) for item in worded] + good)
    with (
        counted("missing", IMAGES) as missing, counted("refused", IMAGES) as refused,
        counted("too_large", IMAGES) as large, counted("broken", IMAGES) as broken,
        counted("encoded", IMAGES) as used, RunningEncoder(settings),
    ):  # fmt: skip
        put(settings, *good[:10], *worded, *silent, *good[10:])
        wait_for(lambda: vectors(settings).keys() == wanted.keys())
        # On a busy machine the encoder may have to join its group anew, and reads an item again then.
        wait_for(lambda: len({record.value for record in read_topic(settings, "dead-letters")}) == len(silent))
        wait_for(lambda: all(lag.total == 0 for lag in group_lags(settings)))
        assert min(missing(), refused(), large(), broken()) >= 2
        assert used() >= len(good)
    for item_id, found in vectors(settings).items():
        np.testing.assert_allclose(found.vector, wanted[item_id], atol=2e-3)
    letters = [DeadLetter.from_record(record.headers, record.value) for record in read_topic(settings, "dead-letters")]
    assert {letter.reason for letter in letters} == {"bad_image"}
    assert {letter.value for letter in letters} == {item.encode() for item in silent}


def test_a_restart_encodes_only_what_changed(settings: Settings, root: Path) -> None:
    """A file that changed under its name is noticed when its item is told again, and one that has come; others skip."""
    items = [Item(f"i{number}", title=f"mug {number}", image_url=f"{number}.jpg") for number in range(10)]
    late = Item("late", title="a late mug", image_url="late.jpg")
    with RunningEncoder(settings):
        put(settings, *items, late)
        wait_for(lambda: len(vectors(settings)) == 11)
    before = vectors(settings)
    (root / "3.jpg").write_bytes(file_of(picture(99, 80, 80), "JPEG"))
    (root / "late.jpg").write_bytes(file_of(picture(98), "JPEG"))
    with counted("unchanged") as unchanged, counted("encoded") as encoded, RunningEncoder(settings):
        put(settings, *items, late)
        wait_for(lambda: unchanged() + encoded() == 11)
        assert (unchanged(), encoded()) == (9, 2)
    after = vectors(settings)
    assert {name for name in after if after[name].content_hash != before[name].content_hash} == {"i3", "late"}
    for item_id, row in expected(settings, [*items, late]).items():
        np.testing.assert_allclose(after[item_id].vector, row, atol=2e-3)


def test_an_image_that_goes_takes_its_vector_along(settings: Settings) -> None:
    """An item of an image alone whose address turns bad has no vector any more."""
    with RunningEncoder(settings):
        put(settings, Item("a", image_url="1.jpg"), Item("b", image_url="2.jpg"))
        wait_for(lambda: vectors(settings).keys() == {"a", "b"})
        put(settings, Item("a", image_url="http://shop.example/1.jpg"))
        wait_for(lambda: vectors(settings).keys() == {"b"})
    (letter,) = read_topic(settings, "dead-letters")
    assert DeadLetter.from_record(letter.headers, letter.value).reason == "bad_image"
