"""Linear layers as a CPU computes them fastest: those of one input together, their weights in oneDNN's own order.

torch's float32 product on a CPU is MKL's, which on some processors has half of the speed of oneDNN's, and oneDNN brings
weights into its order at every call unless they are in it. Which of the two is used is measured, once a process. The
sums are the same in another order; in bfloat16 the fused GELU reads what was not yet rounded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Affine = tuple[Tensor, Tensor | None]
"""Weight [out, in] and bias [out]."""

_LEAST_PRODUCT = 2_000_000  # multiplications: for fewer, calling oneDNN takes longer than it saves
_TRIALS = 10
_TOO_SLOW = 1.5  # times the plain way. Packing is the rule: near 1, as some processors are, equal runs would differ
_MEMORY_SHARE = 0.5  # of the free memory that copies of the weights may take


class Linears:
    """Affine maps of one input, [..., in] -> [..., all outputs], with GELU behind them if wanted.

    Args:
        maps: in the order of their outputs.
        rows: of the inputs, with which the weights are packed; None leaves them as they are.
        gelu: tanh form.
    """

    def __init__(self, maps: Sequence[Affine], rows: int | None = None, *, gelu: bool = False) -> None:
        self._maps, self._gelu = maps, gelu
        self._packed: Tensor | None = None
        self._bias: Tensor | None = None
        self._fused: tuple[str, list[float], str] = ("gelu", [], "tanh") if gelu else ("none", [], "")
        if rows is not None and rows * sum(weight.numel() for weight, _ in maps) >= _LEAST_PRODUCT:
            self._packed = _pack(torch.cat([weight for weight, _ in maps]), rows)
            biases = [bias for _, bias in maps if bias is not None]
            self._bias = torch.cat(biases) if biases else None
            product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001  a torch without oneDNN has none
            self._product, self._sum = product.default, product.binary

    def __call__(self, x: Tensor) -> Tensor:
        """Packed weights have no gradient: where one may be asked for, the plain ones are used."""
        if self._packed is not None and not torch.is_grad_enabled():
            return self._product(x, self._packed, self._bias, *self._fused)
        parts = [F.linear(x, weight, bias) for weight, bias in self._maps]
        outputs = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return F.gelu(outputs, approximate="tanh") if self._gelu else outputs

    def added(self, x: Tensor, to: Tensor) -> Tensor:
        """`to` plus the outputs for `x`."""
        if self._packed is not None and not torch.is_grad_enabled():
            return self._sum(x, to, self._packed, self._bias, "add")
        return to + self(x)


def packing_pays(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> bool:
    """Whether packed weights are a gain here for such a product with GELU: measured the first time."""
    return _time_ratio(rows, inputs, outputs, dtype) < _TOO_SLOW


def packing_fits(size: int) -> bool:
    """Whether copies of `size` bytes may be made: packed weights are a second copy."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return True
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 0)
    return size < _MEMORY_SHARE * free


@lru_cache
def _time_ratio(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> float:
    """Time with packed weights over that with plain ones; infinite where they cannot be had."""
    if not torch.backends.mkldnn.is_available():
        return math.inf
    rows = max(rows, math.ceil(_LEAST_PRODUCT / (inputs * outputs)))  # of a small model: as large as what is packed
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator).to(dtype)
    x, bias = torch.randn(1, rows, inputs, generator=generator).to(dtype), torch.zeros(outputs, dtype=dtype)
    with torch.inference_mode():
        try:
            packed = Linears([(weight, bias)], rows, gelu=True)
            packed(x)
        except RuntimeError:  # such as of a type that this processor does not have
            return math.inf
        plain = Linears([(weight, bias)], gelu=True)
        trials = [(_seconds(packed, x), _seconds(plain, x)) for _ in range(_TRIALS)]
    return min(ours for ours, _ in trials) / min(theirs for _, theirs in trials)


def _seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    begin = time.perf_counter()
    run(x)
    return time.perf_counter() - begin


def _pack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)  # noqa: SLF001  has no other name
    return packed
