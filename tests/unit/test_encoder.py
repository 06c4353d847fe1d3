"""The encoder on a tiny real model: same vectors whatever the batch, faults per text, halving when memory ends."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Model

from models.artifact import load_spec
from models.encoder import Encoder
from models.errors import ModelError
from models.faults import Vectors
from models.fingerprint import fingerprint
from models.flights import Flights
from tests.support.flights import LateLink, forward_by, forward_of
from tests.support.tiny_model import (
    DIM,
    MAX_TOKENS,
    edit_json,
    forget_unknown_words,
    make_tiny_decoder,
    make_tiny_model,
)

TEXTS = ["a blue mug", "red cup of the gift film and drama, a comedy", "mug", "the film: comedy and drama"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, unchanged by the tests that share it."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    """The tiny model on CPU."""
    return Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")


def test_vectors_are_unit_float32(encoder: Encoder) -> None:
    """Every row has length one and the model's size."""
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), DIM)
    assert vectors.dtype.name == "float32"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_batching_changes_nothing(encoder: Encoder) -> None:
    """A text's vector does not depend on the texts it is padded with, nor on the budget."""
    together = encoder.encode(TEXTS)
    encoder.batch_tokens = 1
    alone = encoder.encode(TEXTS)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_texts_are_no_vectors(encoder: Encoder) -> None:
    """An empty call is not an error."""
    assert encoder.encode([]).shape == (0, DIM)


def test_the_prompt_stands_before_every_text(tmp_path: Path) -> None:
    """The folder's prompt for documents, or the one that is set; another prompt is another space."""
    folder = make_tiny_model(tmp_path / "tiny")
    bare = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "red ", "document": "blue "})
    own = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    given = Encoder(load_spec(folder, prompt="gift "), "cpu", threads=1, precision="fp32")
    np.testing.assert_array_equal(own.encode(["mug"]), bare.encode(["blue mug"]))
    np.testing.assert_array_equal(given.encode(["mug"]), bare.encode(["gift mug"]))
    assert len({bare.fingerprint, own.fingerprint, given.fingerprint}) == 3
    assert fingerprint(load_spec(folder, prompt=""), bare.max_tokens) == bare.fingerprint


def test_a_model_of_lower_case_reads_lower_case(tmp_path: Path) -> None:
    """`do_lower_case` of sentence-transformers is done before the tokenizer, which here knows no capitals."""
    folder = make_tiny_model(tmp_path / "tiny")
    forget_unknown_words(folder)
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    assert encoder.tokenize(["A Blue MUG"]) == encoder.tokenize(["a blue mug"])


def test_matryoshka_vectors_are_the_first_elements(folder: Path, encoder: Encoder) -> None:
    """Cut before they are normalised, under a fingerprint of their own."""
    short = Encoder(load_spec(folder, dim=5), "cpu", threads=1, precision="fp32")
    first = encoder.encode(TEXTS)[:, :5]
    np.testing.assert_allclose(short.encode(TEXTS), first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-5)
    assert (short.dim, encoder.dim) == (5, DIM)
    assert short.fingerprint != encoder.fingerprint


def test_a_decoder_pools_its_last_token(tmp_path: Path) -> None:
    """A text's vector is the state of its last token, whatever it is padded with."""
    folder = make_tiny_decoder(tmp_path / "decoder")
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    model = Qwen3Model.from_pretrained(folder).eval()
    together = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        with torch.inference_mode():
            states = model(input_ids=torch.tensor(encoder.tokenize([text]))).last_hidden_state[0]
        np.testing.assert_allclose(vector, states[-1] / states[-1].norm(), atol=1e-4)


def test_a_text_the_tokenizer_refuses_costs_that_text(tmp_path: Path) -> None:
    """The others have their tokens, and the fault says why."""
    folder = make_tiny_model(tmp_path / "tiny")
    forget_unknown_words(folder)
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    texts = ["a blue mug", "a green mug", "red cup", "the film", "a green cup"]
    tokens, faults = encoder.tokenize_texts(texts)
    assert tokens == [ids for text in texts for ids in ([[]] if "green" in text else encoder.tokenize([text]))]
    assert sorted(faults) == [1, 4]
    assert all("refused it: WordLevel error" in reason for reason in faults.values())


@pytest.mark.parametrize(("pooling", "position"), [("cls", 0), ("lasttoken", -1)])
def test_pooling_takes_the_token_it_names(tmp_path: Path, pooling: str, position: int) -> None:
    """`cls` is the first state, lasttoken the last one that is no padding."""
    folder = make_tiny_model(tmp_path / "tiny")
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode=pooling)
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    tokens = encoder.tokenize(TEXTS)
    with torch.inference_mode():
        states = [
            encoder._network.model(input_ids=torch.tensor([ids])).last_hidden_state[0, position] for ids in tokens
        ]
    expected = torch.nn.functional.normalize(torch.stack(states), dim=1).numpy()
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)


def test_long_texts_are_cut_and_counted(encoder: Encoder) -> None:
    """At most the model's tokens, the closing token included; each cut text counts once."""
    tokens = encoder.tokenize(["mug " * 100, "mug", "cup " * 31])
    assert [len(ids) for ids in tokens] == [MAX_TOKENS, 3, MAX_TOKENS]
    assert tokens[0][-1] == tokens[1][-1]
    assert encoder.truncated == 2


def test_the_setting_only_shortens(folder: Path) -> None:
    """A limit above the model's is the model's."""
    spec = load_spec(folder)
    assert Encoder(spec, "cpu", max_tokens=10_000, threads=1).max_tokens == MAX_TOKENS
    assert len(Encoder(spec, "cpu", max_tokens=8, threads=1).tokenize(["mug " * 100])[0]) == 8


def test_the_fingerprint_names_the_space(folder: Path, tmp_path: Path) -> None:
    """It is stable, ignores device and batch, and changes with weights, pooling and limit."""
    spec = load_spec(folder)
    same = Encoder(spec, "cpu", threads=1, precision="bf16", batch_tokens=7).fingerprint
    assert fingerprint(spec, 256) == same == fingerprint(spec, MAX_TOKENS)
    assert len(same) == 16
    other = make_tiny_model(tmp_path / "other", seed=1)
    pooled = make_tiny_model(tmp_path / "pooled")
    edit_json(pooled / "1_Pooling" / "config.json", pooling_mode="cls")
    names = {same, fingerprint(spec, 16), fingerprint(load_spec(other), 256), fingerprint(load_spec(pooled), 256)}
    assert len(names) == 4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_the_same_space(folder: Path, precision: str) -> None:
    """Half precision with float32 pooling stays within a cosine of 0.999, which is why it shares the fingerprint."""
    spec = load_spec(folder)
    exact = Encoder(spec, "cpu", threads=1, precision="fp32").encode(TEXTS)
    half = Encoder(spec, "cpu", threads=1, precision="bf16" if precision == "bf16" else "fp16").encode(TEXTS)
    assert np.einsum("ij,ij->i", exact, half).min() >= 0.999


def test_a_bad_text_costs_only_itself(encoder: Encoder) -> None:
    """Token ids the model does not have fail their text; the others keep their vectors."""
    tokens = encoder.tokenize(TEXTS)
    tokens[2] = [10**6]
    encoded = encoder.encode_tokens(tokens)
    assert list(encoded.faults) == [2]
    assert not encoded.vectors[2].any()
    np.testing.assert_allclose(encoded.vectors[[0, 1, 3]], encoder.encode([TEXTS[0], TEXTS[1], TEXTS[3]]), atol=1e-5)


def test_a_vector_that_is_not_finite_is_a_fault(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN is reported for its text and never returned; `encode` raises."""
    forward = forward_of(encoder)

    def poisoned(tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        vectors = forward(tokens)
        vectors[[len(ids) == 3 for ids in tokens]] = np.nan
        return vectors

    forward_by(monkeypatch, encoder, poisoned)
    monkeypatch.setattr(encoder, "_self_check", lambda: None)
    encoded = encoder.encode_tokens(encoder.tokenize(TEXTS))
    assert list(encoded.faults) == [2]
    assert bool(np.isfinite(encoded.vectors).all())
    with pytest.raises(ModelError, match="1 of 4 texts"):
        encoder.encode(TEXTS)


def test_a_broken_model_is_not_blamed_on_texts(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the check texts fail too, the catalogue must not end in dead-letters: the worker stops."""
    forward_by(monkeypatch, encoder, _out_of_memory)
    with pytest.raises(ModelError, match="stopped working"):
        encoder.encode_tokens(encoder.tokenize(TEXTS))


def test_out_of_memory_halves_the_budget(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit is tried again in halves, and later batches are planned smaller."""
    forward = forward_of(encoder)
    expected = encoder.encode(TEXTS * 4)
    tried = []

    def small_memory(tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        padded = len(tokens) * max(len(ids) for ids in tokens)
        tried.append(padded)
        if padded > 40:
            _out_of_memory(tokens)
        return forward(tokens)

    forward_by(monkeypatch, encoder, small_memory)
    np.testing.assert_allclose(encoder.encode(TEXTS * 4), expected, atol=1e-5)
    assert encoder.batch_tokens <= 80
    tried.clear()
    encoder.encode(TEXTS * 4)
    assert max(tried) <= 80


def test_batches_begun_together_are_each_their_own(encoder: Encoder) -> None:
    """On a device that computes late, two stand open at once and give what they give alone, in any order."""
    link = LateLink()
    _compute_late(encoder, link)
    tokens = [encoder.tokenize(texts) for texts in (TEXTS, TEXTS[::-1], TEXTS[:2])]
    expected = [encoder.encode_tokens(each).vectors for each in tokens]
    first, second = (encoder.begin_items(each, [None] * len(each)) for each in tokens[:2])
    assert link.most_waiting == 2
    np.testing.assert_array_equal(first().vectors, expected[0])
    third = encoder.begin_items(tokens[2], [None] * 2)
    np.testing.assert_array_equal(third().vectors, expected[2])
    np.testing.assert_array_equal(second().vectors, expected[1])
    assert link.most_waiting == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_a_cpu_gives(folder: Path, encoder: Encoder) -> None:
    """Many small batches, of two calls that stand open at once; half precision moves the vectors a little."""
    there = Encoder(load_spec(folder), "cuda", threads=1, batch_tokens=64)
    assert there.in_flight == 2
    tokens = [encoder.tokenize(texts) for texts in (TEXTS * 20, TEXTS[::-1] * 20)]
    begun = [there.begin_items(each, [None] * len(each)) for each in tokens]
    for each, finish in zip(tokens, begun, strict=True):
        np.testing.assert_allclose(finish().vectors, encoder.encode_tokens(each).vectors, atol=2e-2)


@pytest.mark.parametrize("late", [0, 1])
def test_memory_that_ends_with_two_batches_open_costs_neither(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """The one that does not fit, the first or the second, is tried again in halves; both give their vectors."""
    link = LateLink()
    _compute_late(encoder, link)
    tokens = [encoder.tokenize(TEXTS * 2), encoder.tokenize(TEXTS[::-1])]
    expected = [encoder.encode_tokens(each).vectors for each in tokens]
    launch, calls = encoder._launch, 0

    def sometimes(rows: Sequence[Sequence[int]]) -> Vectors:
        nonlocal calls
        calls += 1
        if calls == 1 + late:
            _out_of_memory(rows)
        return launch(rows)

    monkeypatch.setattr(encoder, "_launch", sometimes)
    before = encoder.batch_tokens
    begun = [encoder.begin_items(each, [None] * len(each)) for each in tokens]
    for finish, vectors in zip(begun, expected, strict=True):
        encoded = finish()
        assert encoded.faults == {}
        np.testing.assert_allclose(encoded.vectors, vectors, atol=1e-5)
    assert encoder.batch_tokens < before
    assert link.most_waiting == 2


def _compute_late(encoder: Encoder, link: LateLink) -> None:
    """Let the encoder's device do everything when it is waited for."""
    compute = encoder._network._texts

    def late(ids: torch.Tensor, ends: torch.Tensor, *, padded: bool) -> torch.Tensor:
        result = torch.full((len(ids), DIM), torch.nan)
        link.work(lambda: result.copy_(compute(ids, ends, padded=padded)))
        return result

    encoder._network._texts = late  # type: ignore[method-assign]
    encoder._network._runner = Flights(link)


def _out_of_memory(_tokens: object) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_loading_needs_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything comes from the folder: with connections forbidden it still loads."""

    def refuse(*_arguments: object) -> NoReturn:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert Encoder(load_spec(folder), "cpu", threads=1).dim == DIM


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    """`transformers` would fill them with random numbers."""
    folder = make_tiny_model(tmp_path / "tiny")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, encoder\.layer\.1\.output\.dense\.weight"):
        Encoder(load_spec(folder), "cpu", threads=1)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    """A file that only has the name is a sentence."""
    folder = make_tiny_model(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder(load_spec(folder), "cpu", threads=1)


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    """A model whose check texts give NaN never publishes anything."""
    folder = make_tiny_model(tmp_path / "tiny")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"].fill_(torch.nan)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        Encoder(load_spec(folder), "cpu", threads=1)


def test_a_damaged_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    """The Rust parser's error is told in one line."""
    folder = make_tiny_model(tmp_path / "tiny")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        Encoder(load_spec(folder), "cpu", threads=1)


def test_a_device_that_is_not_there_is_a_sentence(folder: Path) -> None:
    """A GPU number beyond those visible is refused before anything is loaded."""
    with pytest.raises(ModelError, match="GPUs are visible"):
        Encoder(load_spec(folder), "cuda:99")


def test_a_budget_that_does_not_fit_has_no_rate(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for a GPU's budget stops there; what fits has a rate, and other errors are not swallowed."""
    assert encoder._tokens_per_s(64) > 0
    forward_by(monkeypatch, encoder, _out_of_memory)
    assert encoder._tokens_per_s(64) == 0

    def broken(_tokens: object) -> NoReturn:
        raise RuntimeError("broken")

    forward_by(monkeypatch, encoder, broken)
    with pytest.raises(RuntimeError, match="broken"):
        encoder._tokens_per_s(64)
