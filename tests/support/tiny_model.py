"""A real transformers model folder of a few KB: random seeded weights, made in a test in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Qwen3Config,
    Qwen3Model,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

DIM = 16
MAX_TOKENS = 32
IMAGE_SIZE = 32
WORDS = ("blue", "red", "mug", "cup", "gift", "film", "comedy", "drama", "of", "the", "a", "and", "canary", "ceramic")


def make_tiny_model(folder: Path, *, seed: int = 0, layers: int = 2, **config: Any) -> Path:
    """Write `config.json`, `tokenizer.json` and `model.safetensors` of a small BERT; `config` adds to the first."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;()'-"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *WORDS]
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106  # a vocabulary entry
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=DIM,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=MAX_TOKENS,
        )
    )
    torch.random.set_rng_state(state)
    with torch.no_grad():  # the default initialisation is so small that all texts nearly coincide
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(20)
    model.save_pretrained(folder)
    edit_json(folder / "config.json", **config)
    return folder


def make_tiny_decoder(folder: Path, *, seed: int = 0) -> Path:
    """Write a small decoder (Qwen3) with last-token pooling, and the tokenizer of `make_tiny_model`."""
    make_tiny_model(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab().values()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Qwen3Model(
        Qwen3Config(
            vocab_size=max(ids) + 1,
            hidden_size=DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            intermediate_size=32,
            max_position_embeddings=MAX_TOKENS,
        )
    )
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode_lasttoken=True)
    return folder


def make_tiny_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a small CLIP for texts and images of `IMAGE_SIZE`, and the tokenizer of `make_tiny_model`."""
    make_tiny_model(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    tower = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    texts = CLIPTextConfig(
        vocab_size=max(ids.values()) + 1,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=ids["[PAD]"],
        bos_token_id=ids["[CLS]"],
        eos_token_id=ids["[SEP]"],
        **tower,
    )
    images = CLIPVisionConfig(image_size=IMAGE_SIZE, patch_size=8, **tower)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=texts.to_dict(), vision_config=images.to_dict(), projection_dim=DIM))
    torch.random.set_rng_state(state)
    with torch.no_grad():  # as in `make_tiny_model`
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(5)
    model.save_pretrained(folder)
    edit_json(
        folder / "preprocessor_config.json",
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    )
    return folder


def make_tiny_siglip(folder: Path, *, seed: int = 0, **tokenizer_config: Any) -> Path:
    """Write a small SigLIP for images of `IMAGE_SIZE` and texts of `MAX_TOKENS`, tokenized as in `make_tiny_model`."""
    make_tiny_model(folder)
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    tower = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    texts = SiglipTextConfig(vocab_size=max(ids.values()) + 1, max_position_embeddings=MAX_TOKENS, **tower)
    images = SiglipVisionConfig(image_size=IMAGE_SIZE, patch_size=8, **tower)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(text_config=texts.to_dict(), vision_config=images.to_dict()))
    torch.random.set_rng_state(state)
    with torch.no_grad():  # as in `make_tiny_model`
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3)
    model.save_pretrained(folder)
    edit_json(folder / "tokenizer_config.json", **({"pad_token": "[PAD]"} | tokenizer_config))
    edit_json(
        folder / "preprocessor_config.json",
        image_processor_type="SiglipImageProcessor",
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    )
    return folder


def forget_unknown_words(folder: Path) -> None:
    """Give the model a tokenizer of whole words that fails on every word but those in `WORDS`."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def edit_json(file: Path, **values: Any) -> None:
    """Set keys of a JSON object file; it is made when absent."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | values), encoding="utf-8")
