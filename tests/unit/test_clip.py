"""A tiny CLIP: texts and images as transformers encodes them, fused by weight, and faults of an image its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import CLIPModel

from models.artifact import load_spec, preprocessing_of
from models.encoder import Encoder
from models.errors import ModelError
from models.faults import Vectors
from models.fingerprint import fingerprint
from models.images import pixels_of
from models.network import Network
from tests.support.flights import Landed
from tests.support.pictures import file_of, picture
from tests.support.tiny_model import DIM, IMAGE_SIZE, MAX_TOKENS, edit_json, make_tiny_clip, make_tiny_model

TEXTS = ["a blue mug", "red cup of the gift film and drama, a comedy", "mug", "the film: comedy and drama"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, unchanged by the tests that share it."""
    return make_tiny_clip(tmp_path_factory.mktemp("models") / "clip")


def encoder_of(folder: Path, image_weight: float = 0.5, **more: int) -> Encoder:
    """Load on CPU in fp32."""
    return Encoder(load_spec(folder), "cpu", threads=1, precision="fp32", image_weight=image_weight, **more)


def images_of(folder: Path, number: int) -> list[npt.NDArray[np.uint8]]:
    """Return pixels of different images."""
    steps = preprocessing_of(load_spec(folder))
    return [pixels_of(file_of(picture(seed)), steps, 10**6) for seed in range(number)]


def expected_of(folder: Path, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Encode images with transformers, one by one."""
    model = CLIPModel.from_pretrained(folder).eval()
    steps = preprocessing_of(load_spec(folder))
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (steps.mean, steps.std))
    rows = []
    for pixels in images:
        values = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)[None]
        with torch.inference_mode():
            rows.append(model.get_image_features(pixel_values=values).pooler_output[0].numpy())
    return unit(np.stack(rows))


def unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rows of length one."""
    rows: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows


def test_the_folder_says_what_is_in_it(folder: Path) -> None:
    """Sizes come from the towers' parts of the configuration, the preparation from its own file."""
    spec = load_spec(folder)
    assert (spec.architecture, spec.pooling, spec.dim, spec.max_tokens) == ("clip", "projection", DIM, MAX_TOKENS)
    assert (preprocessing_of(spec).size, preprocessing_of(spec).shortest_edge) == (IMAGE_SIZE, IMAGE_SIZE)


def test_new_releases_write_another_file(tmp_path: Path) -> None:
    """Release 5 of transformers puts the same steps into `processor_config.json`."""
    folder = make_tiny_clip(tmp_path / "clip")
    expected = load_spec(folder).preprocessing
    (folder / "preprocessor_config.json").unlink()
    edit_json(folder / "processor_config.json", image_processor={"size": IMAGE_SIZE, "crop_size": IMAGE_SIZE})
    assert load_spec(folder).preprocessing == expected


def test_texts_are_the_text_towers(folder: Path) -> None:
    """Whatever they are padded with: the state of the closing token, projected."""
    encoder = encoder_of(folder, 0.0)
    model = CLIPModel.from_pretrained(folder).eval()
    together = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        with torch.inference_mode():
            features = model.get_text_features(input_ids=torch.tensor(encoder.tokenize([text]))).pooler_output[0]
        np.testing.assert_allclose(vector, features / features.norm(), atol=1e-5)


def test_images_are_the_image_towers(folder: Path) -> None:
    """In batches of any size."""
    images = images_of(folder, 5)
    expected = expected_of(folder, images)
    assert np.abs(expected @ expected.T - np.eye(5)).max() < 0.999  # the images differ
    for size in (1, 2, 8):
        encoded = encoder_of(folder, 1.0, batch_images=size).encode_items([[]] * 5, images)
        np.testing.assert_allclose(encoded.vectors, expected, atol=1e-5)
        assert (encoded.faults, dict(encoded.left_out)) == ({}, {})


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0])
def test_text_and_image_are_fused_by_weight(folder: Path, weight: float) -> None:
    """Unit vectors are weighed, added and made unit again; an item with one of both is that one's."""
    encoder = encoder_of(folder, weight)
    texts, images = encoder.encode(TEXTS), images_of(folder, 4)
    tokens = [*encoder.tokenize(TEXTS[:3]), []]
    encoded = encoder.encode_items(tokens, [images[0], None, images[2], images[3]])
    seen = expected_of(folder, images)
    fused = unit(weight * seen + (1 - weight) * texts)
    np.testing.assert_allclose(encoded.vectors, [fused[0], texts[1], fused[2], seen[3]], atol=1e-5)
    assert (encoded.faults, dict(encoded.left_out)) == ({}, {})
    np.testing.assert_allclose(encoder.encode_items(tokens[:3], [None] * 3).vectors, texts[:3], atol=1e-5)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_a_bad_image_costs_only_itself(folder: Path, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its item is its text's and says so; without a text it is a fault. The others of its batch keep their images."""
    encoder = encoder_of(folder, weight)
    tokens, images = [*encoder.tokenize(TEXTS[:2]), [], []], images_of(folder, 4)
    good = encoder.encode_items(tokens, images)
    real = Network.images

    def poisoned(network: Network, pixels: npt.NDArray[np.uint8]) -> Landed:
        vectors = real(network, pixels).result()
        vectors[[any(np.array_equal(one, images[bad]) for bad in (0, 3)) for one in pixels]] = np.nan
        return Landed(vectors)

    monkeypatch.setattr(Network, "images", poisoned)
    encoded = encoder.encode_items(tokens, images)
    reason = "its vector is not finite or has no length"
    assert dict(encoded.left_out) == {0: reason}
    assert encoded.faults == {3: f"its image: {reason}"}
    np.testing.assert_allclose(encoded.vectors[0], encoder.encode(TEXTS[:1])[0], atol=1e-5)
    np.testing.assert_allclose(encoded.vectors[[1, 2]], good.vectors[[1, 2]], atol=1e-5)
    assert not encoded.vectors[3].any()


def test_a_bad_text_is_a_fault_with_an_image_too(folder: Path) -> None:
    """What the model cannot read is told, not covered by its image."""
    encoder = encoder_of(folder)
    encoded = encoder.encode_items([[10**6], *encoder.tokenize(["mug"])], [*images_of(folder, 1), None])
    assert list(encoded.faults) == [0]
    assert not encoded.vectors[0].any()


def test_out_of_memory_halves_the_budget_of_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit is tried again in halves, and later batches are smaller; texts keep their budget."""
    encoder = encoder_of(folder, 1.0)
    images = images_of(folder, 8)
    expected = encoder.encode_items([[]] * 8, images).vectors
    real = Network.images
    tried = []

    def small_memory(network: Network, pixels: npt.NDArray[np.uint8]) -> Vectors:
        tried.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, pixels)

    monkeypatch.setattr(Network, "images", small_memory)
    before = encoder.batch_tokens
    np.testing.assert_allclose(encoder.encode_items([[]] * 8, images).vectors, expected, atol=1e-5)
    assert (encoder.batch_images, encoder.batch_tokens) == (2, before)
    tried.clear()
    encoder.encode_items([[]] * 8, images)
    assert tried == [2, 2, 2, 2]


def test_a_lower_precision_is_judged_by_images_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 whose images are off is not taken, however good its texts are."""
    real = Network.images

    def turned(network: Network, pixels: npt.NDArray[np.uint8]) -> Landed:
        vectors = real(network, pixels).result()
        half = next(network.model.parameters()).dtype == torch.bfloat16
        return Landed(np.roll(vectors, 1, axis=1) if half else vectors)

    monkeypatch.setattr(Network, "images", turned)
    spec = load_spec(folder)

    def worst_of(image_weight: float) -> float:
        trials = Encoder(spec, "cpu", threads=1, image_weight=image_weight).trials
        return {trial.precision: trial.worst_cosine for trial in trials}["bf16"]

    assert worst_of(0.5) < 0.9 < worst_of(0.0)


def test_the_fingerprint_covers_images(folder: Path, tmp_path: Path) -> None:
    """Weight and preparation make spaces of their own where images count, and only there."""
    spec = load_spec(folder)
    other = make_tiny_clip(tmp_path / "other")
    edit_json(other / "preprocessor_config.json", resample=2)
    prepared = load_spec(other)
    assert fingerprint(spec, 32) == fingerprint(prepared, 32)
    names = {fingerprint(one, 32, weight) for one in (spec, prepared) for weight in (0.0, 0.5, 1.0)}
    assert len(names) == 5
    assert encoder_of(folder, 0.5).fingerprint in names


def test_images_need_a_model_that_takes_them(folder: Path, tmp_path: Path) -> None:
    """Of another architecture, or without its preparation, it is refused where images count."""
    with pytest.raises(ModelError, match="of 'bert' and takes no images"):
        encoder_of(make_tiny_model(tmp_path / "tiny"))
    bare = make_tiny_clip(tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    assert encoder_of(bare, 0.0).encode(["mug"]).shape == (1, DIM)
    with pytest.raises(ModelError, match="has no preprocessor_config"):
        encoder_of(bare)
    odd = make_tiny_clip(tmp_path / "odd")
    edit_json(odd / "config.json", vision_config={"image_size": "32"})
    with pytest.raises(ModelError, match="size of images as '32'"):
        load_spec(odd)
    assert load_spec(folder).preprocessing is not None
