"""Real-time chunking: a chunk that begins with the steps which will be executed while it is computed.

Two ways. *Guidance* (arXiv 2506.07339) steers the denoising of any checkpoint towards the running plan, with a soft
mask over the steps that the two share. *Prefix conditioning* (arXiv 2512.05964) gives the committed steps, as clean
actions at timestep 0, to a checkpoint that was trained for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_GUIDANCE = 5.0  # clips the guidance weight, beta in arXiv 2506.07339


def soft_mask(committed: int, overlap: int, horizon: int) -> Tensor:
    """Weight of each step [horizon]: 1 for committed steps, falling over the overlap, 0 beyond (equation 5).

    Args:
        committed: steps that will be executed before the chunk is ready.
        overlap: steps for which the running plan has a target, at least `committed`.
        horizon: steps of the chunk.
    """
    step = torch.arange(horizon, dtype=torch.float32)
    c = (overlap - step) / (overlap - committed + 1)
    falling = c * torch.expm1(c) / torch.expm1(torch.tensor(1.0))
    return torch.where(step < committed, 1.0, torch.where(step < overlap, falling, 0.0))


def guidance_weight(sigma: float) -> float:
    """How strongly to steer at noise level `sigma` (equations 2 to 4; tau there is 1 - sigma)."""
    tau = 1.0 - sigma
    if tau <= 0.0 or sigma <= 0.0:
        return MAX_GUIDANCE
    return min(MAX_GUIDANCE, (tau**2 + sigma**2) / (tau * sigma))


def guided_velocity(
    velocity: Callable[[Tensor], Tensor], actions: Tensor, sigma: float, target: Tensor, mask: Tensor
) -> Tensor:
    """Velocity [B, H, D] that leads to actions near `target` where `mask` says so.

    The estimate of the clean actions is pulled towards the target through the network's own Jacobian.

    Args:
        velocity: of noisy actions, differentiable.
        actions: noisy actions [B, H, D].
        sigma: their noise level.
        target: running plan [B, H, D]; any finite number where `mask` is 0.
        mask: [H] from :func:`soft_mask`.
    """
    with torch.enable_grad():
        noisy = actions.detach().requires_grad_()
        predicted = velocity(noisy)
        estimate = noisy - sigma * predicted
        error = (target - estimate).detach() * mask[:, None]
        (pull,) = torch.autograd.grad(estimate, noisy, error.to(estimate.dtype))
    return predicted.detach() - guidance_weight(sigma) * pull
