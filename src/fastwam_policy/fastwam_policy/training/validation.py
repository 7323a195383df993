"""Open-loop error of a model on episodes it was not trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.training_loss import Batch, TimestepSampler, action_sampler, draw, training_loss
from fastwam_policy.model.variants import VARIANTS, InferenceMode, act, imagine_and_act, imagine_then_act
from fastwam_policy.policies.base import Unit
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.training.windows import Windows

_WINDOWS = 128  # looked at
_BATCH = 32
_SEED = 1
_DIGITS = {"mm": 2}


@dataclass(frozen=True)
class Validation:
    """Errors on held-out windows.

    Attributes:
        errors: mean absolute error over the whole horizon, by unit of the actions; rad comes first where there is such.
        by_step: the same at each step [H], of the first unit.
        video: error of the video's velocity, as in the training loss.
    """

    errors: Mapping[Unit, float]
    by_step: NDArray[np.float64]
    video: float

    @property
    def unit(self) -> Unit:
        """The first one: its error tells which weights are the best."""
        return next(iter(self.errors))

    @property
    def error(self) -> float:
        """In that unit."""
        return self.errors[self.unit]

    def figures(self) -> dict[str, float]:
        """For the log."""
        steps = {f"validation/{self.unit}_at_{k}": float(self.by_step[k]) for k in (0, len(self.by_step) // 2, -1)}
        return {f"validation/{unit}": error for unit, error in self.errors.items()} | steps | {
            "validation/video": self.video
        }  # fmt: skip

    def __str__(self) -> str:
        errors = ", ".join(f"{error:.{_DIGITS.get(unit, 4)}f} {unit}" for unit, error in self.errors.items())
        return f"open-loop error {errors.removesuffix(' opaque')}; video {self.video:.3f}"


@torch.no_grad()
def validate(model: FastWam, policy: BundleConfig, held_out: Windows, action: Normalizer) -> Validation:
    """Denoise chunks as at inference and compare them with what was recorded."""
    numbers = np.unique(np.linspace(0, len(held_out.places) - 1, _WINDOWS).astype(int))
    mode = VARIANTS[policy.variant].modes[0]
    sampler = action_sampler(VARIANTS[policy.variant], policy.sigma_shift)
    video_sampler = TimestepSampler(policy.video_sigma_shift)
    units = np.array(policy.action.units)
    errors: list[np.ma.MaskedArray[Any, Any]] = []
    video: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        for part in np.array_split(numbers, -(-len(numbers) // _BATCH)):
            batch = held_out.batch(part, model.device)
            drawn = draw(batch, mode, sampler, video_sampler=video_sampler)
            losses = training_loss(model, mode, batch, drawn, sampler, video_sampler=video_sampler)
            video.append(float(losses.video))
            chunk = _chunk(model, policy, mode, batch)
            difference = np.abs(action.backward(chunk) - action.backward(batch.actions.cpu().numpy()))
            assert batch.action_is_pad is not None
            is_pad = batch.action_is_pad.cpu().numpy()[:, :, None]
            errors.append(np.ma.MaskedArray(difference, np.broadcast_to(is_pad, difference.shape)))
    error = np.ma.concatenate(errors)
    kinds = sorted(dict.fromkeys(policy.action.units), key=lambda unit: unit != "rad")
    of_unit = {unit: error[:, :, units == unit] for unit in kinds}
    by_step = next(iter(of_unit.values())).mean(axis=(0, 2)).filled(np.nan)
    return Validation({unit: float(part.mean()) for unit, part in of_unit.items()}, by_step, float(np.mean(video)))


def _chunk(model: FastWam, policy: BundleConfig, mode: InferenceMode, batch: Batch) -> NDArray[np.float32]:
    """[B, H, D], normalised."""
    schedule = make_schedule(policy.denoise_steps, policy.sigma_shift, device=model.device)
    video_schedule = make_schedule(policy.denoise_steps, policy.video_sigma_shift, device=model.device)
    shape = (1, *batch.actions.shape[1:])
    noise = VARIANTS[policy.variant].start(shape, policy.seed, torch.float32, model.device)
    noise = noise.expand(len(batch.actions), -1, -1)
    observed = batch.latents[:, :, : model.config.given_frames]
    context = model.context(batch.text, batch.text_mask, batch.proprio)
    if mode == "first_frame":
        return act(model, observed, noise, schedule, context).actions.cpu().numpy()
    video_noise = initial_noise((1, *batch.latents.shape[1:]), policy.seed, torch.float32, model.device)
    inputs = (model, observed, video_noise.expand_as(batch.latents), noise, video_schedule, schedule, context)
    if mode == "joint":
        return imagine_and_act(*inputs, action_sees_future=True).actions.cpu().numpy()
    return imagine_then_act(*inputs).actions.cpu().numpy()
