"""Every supported architecture, tiny and random: what the encoder gives is what transformers gives, padded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from models.artifact import ARCHITECTURES, load_spec
from models.encoder import Encoder
from models.network import TAKE_WIDE_MASKS
from models.towers import TAKE_IMAGES
from tests.support.tiny_model import DIM, edit_json, make_tiny_model

TEXTS = ["a blue mug", "red cup of the gift film and drama, a comedy", "mug", "the film: comedy and drama"]

#: What a model is small by, where its configuration calls that something else.
_SIZES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 8},
    "distilbert": {"dim": DIM, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": {"embedding_size": 8},
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "head_dim": 8},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
}
_DECODERS = ("llama", "mistral", "qwen2", "qwen3")


def make(folder: Path, architecture: str, pooling: str) -> Path:
    """Write a small random model of the architecture, with the tokenizer of `make_tiny_model`."""
    make_tiny_model(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    sizes = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=max(ids.values()) + 1,
        pad_token_id=ids["[PAD]"],
        max_position_embeddings=64,
        **(sizes | _SIZES.get(architecture, {})),
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    torch.random.set_rng_state(state)
    with torch.no_grad():  # as in `make_tiny_model`
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    model.save_pretrained(folder)
    edit_json(folder / "1_Pooling" / "config.json", **{f"pooling_mode_{pooling}": True})
    return folder


def by_transformers(folder: Path, texts: list[str], pooling: str, side: str) -> npt.NDArray[np.float32]:
    """Encode one padded batch as the authors of such models show it."""
    pad = "[PAD]"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")), pad_token=pad, padding_side=side
    )
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        states = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    if pooling == "cls_token":
        pooled = states[:, 0]
    elif pooling == "lasttoken":
        assert side == "left"
        pooled = states[:, -1]
    else:
        mask = batch.attention_mask[:, :, None]
        pooled = (states * mask).sum(1) / mask.sum(1)
    unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return unit


# transformers' DeBERTa scripts its helpers when it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES - TAKE_IMAGES))
def test_it_encodes_as_transformers_does(tmp_path: Path, architecture: str) -> None:
    """Mean pooling in a padded batch: the mask counts, and no text's vector depends on its neighbours."""
    folder = make(tmp_path / architecture, architecture, "mean_tokens")
    expected = by_transformers(folder, TEXTS, "mean_tokens", "right")
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    assert np.abs(expected @ expected.T - np.eye(len(TEXTS))).max() < 0.9999  # the texts differ
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-4)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=2e-4)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("architecture", sorted(TAKE_WIDE_MASKS))
def test_a_launch_reads_nothing_back(tmp_path: Path, architecture: str, *, padded: bool) -> None:
    """The host must not wait for a device in the middle of a batch. Of tensors without data it could not read."""
    folder = make(tmp_path / architecture, architecture, "mean_tokens")
    network = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")._network
    network.model.to("meta")
    network._device = torch.device("meta")
    ids, ends = (torch.zeros(shape, dtype=torch.int64, device="meta") for shape in ((3, 7), (3,)))
    assert network._texts(ids, ends, padded=padded).shape == (3, DIM)


@pytest.mark.parametrize("architecture", _DECODERS)
def test_a_decoder_gives_the_state_of_its_closing_token(tmp_path: Path, architecture: str) -> None:
    """As Qwen's and Mistral's embedding models are used: the closing token is appended, batches padded on the left."""
    folder = make(tmp_path / architecture, architecture, "lasttoken")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = "[SEP]"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    expected = by_transformers(folder, TEXTS, "lasttoken", "left")
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("architecture", "pooling", "prompt"),
    [("xlm-roberta", "mean_tokens", "passage: "), ("bert", "mean_tokens", "passage: "), ("bert", "cls_token", "")],
)
def test_e5_and_bge_folders(tmp_path: Path, architecture: str, pooling: str, prompt: str) -> None:
    """A prefix stands before every text and is pooled with it; or the first state is taken, as the folder says."""
    folder = make(tmp_path / architecture, architecture, pooling)
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "query: ", "passage": prompt})
    expected = by_transformers(folder, [prompt + text for text in TEXTS], pooling, "right")
    encoder = Encoder(load_spec(folder), "cpu", threads=1, precision="fp32")
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-4)
    if prompt:
        bare = Encoder(load_spec(folder, prompt=""), "cpu", threads=1, precision="fp32")
        assert np.abs(bare.encode(TEXTS) - expected).max() > 1e-2
