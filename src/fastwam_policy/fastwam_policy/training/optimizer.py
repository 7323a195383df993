"""AdamW, with its two figures of each weight in float32, or in 8 bit (arXiv 2110.02861)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "adamw_8bit"]
_BETAS = (0.9, 0.95)


def make_optimizer(
    name: OptimizerName, weights: Sequence[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Of these weights. In 8 bit, by bitsandbytes, are the figures of those with 4096 numbers or more."""
    about: dict[str, Any] = {"lr": learning_rate, "betas": _BETAS, "weight_decay": weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(weights, **about)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(weights, **about)
