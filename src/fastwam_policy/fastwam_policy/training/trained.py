"""Which weights are trained: all of them, the action expert's, or small matrices beside both experts' blocks (LoRA).

LoRA (arXiv 2106.09685) adds B A to the weight of a linear layer and trains the two alone. They are peft's while the
training runs. A bundle holds their sum with the weight, under the name that the weight always has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fastwam_policy.model.fastwam import FastWam

Trained = Literal["all", "action", "lora"]
_LINEARS = r"(video|action)\.blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])"
_BASE, _A, _B = "base_layer.", "lora_A.default.weight", "lora_B.default.weight"  # peft's names


def choose_trained(model: FastWam, trained: Trained, rank: int) -> None:
    """Leave gradients to what is trained, in place; LoRA's matrices, which are peft's, begin with a sum of 0."""
    if trained == "all":
        return
    model.requires_grad_(False)
    if trained == "action":
        model.action.requires_grad_(True)
        return
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=_LINEARS), model)


def hold_frozen(model: FastWam, dtype: torch.dtype) -> None:
    """Hold what the blocks' linear layers do not train in another type, in place; mixed precision computes with that.

    Weights that a bundle stores in that type are no others then.
    """
    for linear in (*model.video.blocks.modules(), *model.action.blocks.modules()):
        if isinstance(linear, nn.Linear):
            for weight in linear.parameters(recurse=False):
                if not weight.requires_grad:
                    weight.data = weight.data.to(dtype)


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of :class:`FastWam`, with LoRA's sums added to those that have them."""
    result = {}
    for name, value in weights.items():
        if name.endswith((_A, _B)):
            continue
        layer, base, last = name.rpartition(_BASE)
        has_sum = base and last == "weight"
        result[layer + last] = value + weights[layer + _B] @ weights[layer + _A] if has_sum else value
    return result
