"""Flow matching on shifted noise levels: the schedule of the denoise steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TRAIN_TIMESTEPS = 1000  # t runs over 0..1000, sigma = t / 1000


@dataclass(frozen=True)
class Schedule:
    """Denoise steps: `x <- x + deltas[i] * velocity(x, timesteps[i])`, from pure noise to the sample.

    Attributes:
        timesteps: [N] in 0..1000, descending.
        deltas: [N] change of sigma, negative.
    """

    timesteps: Tensor
    deltas: Tensor


def shifted(u: Tensor, shift: float) -> Tensor:
    """Noise level sigma for uniform `u` in 0..1: `s u / (1 + (s - 1) u)`."""
    return shift * u / (1 + (shift - 1) * u)


def make_schedule(
    steps: int, shift: float, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Schedule:
    """Schedule of `steps` denoise steps, where the model is.

    It is computed in float32 and then rounded to the model's `dtype`: checkpoints were trained with timesteps rounded
    to bfloat16, so the rounding belongs to the model.

    Raises:
        ValueError: steps < 1 or shift <= 0.
    """
    if steps < 1:
        raise ValueError(f"denoise steps must be at least 1, got {steps}")
    if not shift > 0:
        raise ValueError(f"sigma shift must be > 0, got {shift}")
    sigma = shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float32), shift)
    return Schedule((TRAIN_TIMESTEPS * sigma[:-1]).to(device, dtype), (sigma[1:] - sigma[:-1]).to(device, dtype))


def initial_noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard normal noise that is the same on every device: drawn in float32 on the CPU."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(device=device, dtype=dtype)
