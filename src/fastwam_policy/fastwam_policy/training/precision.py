"""Which precision a training computes in on this machine."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "no", "bf16"]
_WITHOUT = ("DEFAULT", "NO AVX", "AVX2")  # CPU capabilities in PyTorch's names


def resolved(precision: Precision) -> Literal["no", "bf16"]:
    """`auto` is bfloat16 on a GPU and on a CPU that computes with it, else float32.

    A CPU of the other kind takes about ten times as long with bfloat16 as with float32.
    """
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() not in _WITHOUT else "no"
