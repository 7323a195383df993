"""Prompts to embeddings with transformers' UMT5 encoder and the official Wan2.2 weights."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_tensors

_RENAMES = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.block.\1.layer.0.SelfAttention."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)


def load_official_text_encoder(path: Path) -> UMT5EncoderModel:
    """Load `models_t5_umt5-xxl-enc-bf16.pth`, or one of its layout with other sizes.

    Raises:
        CheckpointError: not readable, or lists every parameter that does not fit.
    """
    renamed = {}
    for name, tensor in load_tensors(path).items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    config = UMT5Config(
        **_sizes(renamed, path), relative_attention_num_buckets=32, relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, dropout_rate=0.0, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    renamed["encoder.embed_tokens.weight"] = renamed.get("shared.weight", torch.empty(0))
    load_into(model, renamed, str(path))
    return model.eval().requires_grad_(False)


def _sizes(tensors: Mapping[str, Tensor], path: Path) -> dict[str, int]:
    """Sizes of the encoder from the shapes of its weights."""
    first = "encoder.block.0.layer."
    try:
        vocab_size, d_model = tensors["shared.weight"].shape
        num_heads = tensors[f"{first}0.SelfAttention.relative_attention_bias.weight"].shape[1]
        return {
            "vocab_size": vocab_size,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_kv": tensors[f"{first}0.SelfAttention.q.weight"].shape[0] // num_heads,
            "d_ff": tensors[f"{first}1.DenseReluDense.wo.weight"].shape[1],
            "num_layers": len({name.split(".")[2] for name in tensors if name.startswith("encoder.block.")}),
        }
    except KeyError as error:
        raise CheckpointError(f"{path}: not a UMT5 encoder: {error} is missing") from None


def clean_prompt(text: str) -> str:
    """As in training: repaired by ftfy where that is installed, HTML entities resolved twice, white space collapsed."""
    try:
        import ftfy

        text = ftfy.fix_text(text)
    except ImportError:
        pass
    return " ".join(html.unescape(html.unescape(text)).split())


@torch.inference_mode()
def embed(model: UMT5EncoderModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Text context [B, L, D] and mask [B, L] for token ids and their mask [B, L].

    Rows of padding are set to zero, and the returned mask is all True: the model was trained to see those rows.
    """
    raw = model(input_ids=ids, attention_mask=mask.to(ids.dtype)).last_hidden_state
    return raw * mask[..., None].to(raw.dtype), torch.ones_like(mask, dtype=torch.bool)


def encode_prompt(model: UMT5EncoderModel, tokenizer: Any, prompt: str, length: int) -> tuple[Tensor, Tensor]:
    """Text context [length, D] and mask [length] of one prompt; `tokenizer` is the UMT5 one of transformers."""
    tokens = tokenizer(
        [clean_prompt(prompt)], padding="max_length", truncation=True, max_length=length, return_tensors="pt",
        add_special_tokens=True,
    )  # fmt: skip
    context, mask = embed(model, tokens["input_ids"], tokens["attention_mask"].bool())
    return context[0], mask[0]
