"""The flow matching losses of all variants: L = lambda_action L_act + lambda_video L_vid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import TRAIN_TIMESTEPS, shifted
from fastwam_policy.model.variants import InferenceMode, Variant, training_mask

_NOISED_CONDITION = 0.5  # share of samples whose conditioning video is noised, mode idm


@dataclass(frozen=True)
class Batch:
    """One training batch, normalised.

    Attributes:
        latents: video latents [B, C, f, h, w]; the first g are given, of which the last is the observation.
        text: prompt embeddings [B, L, text_dim].
        text_mask: bool [B, L].
        proprio: joint state at the observation [B, P], or None.
        actions: [B, H, action_dim].
        action_is_pad: bool [B, H], True past the end of the episode; None: no padding.
        image_is_pad: the same for the video from the observation on, bool [B, video frames].
    """

    latents: Tensor
    text: Tensor
    text_mask: Tensor
    proprio: Tensor | None
    actions: Tensor
    action_is_pad: Tensor | None = None
    image_is_pad: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch; timesteps, [B] where not said otherwise, are in 0..1000."""

    video_noise: Tensor
    video_t: Tensor
    action_noise: Tensor
    """[B, R * H, action_dim]: R draws for the same observation, which passes the video expert once for all of them."""
    action_t: Tensor
    """[B, R]."""
    condition_noise: Tensor | None = None
    condition_t: Tensor | None = None
    """Mode idm: noise and timestep of the conditioning video; timestep 0 leaves it clean."""
    prefix: Tensor | None = None
    """Leading actions of each sample [B] that are given clean, at timestep 0, and have no loss; None: no such."""


@dataclass(frozen=True)
class Losses:
    """Scalars, and what they were computed from."""

    total: Tensor
    video: Tensor
    action: Tensor
    video_velocity: Tensor | None = None
    action_velocity: Tensor | None = None


class TimestepSampler:
    """Draws timesteps of the shifted schedule, and weighs them as the official training does."""

    def __init__(self, shift: float) -> None:
        self.shift = shift
        grid = torch.linspace(1, 0, TRAIN_TIMESTEPS + 1, dtype=torch.float64)[:-1]
        bell = self._bell(TRAIN_TIMESTEPS * shifted(grid, shift))
        self._lowest = bell.min()
        self._mean = (bell - self._lowest).mean()

    def sample(self, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """`count` timesteps in 0..1000, rounded to the model's dtype as at inference."""
        return (TRAIN_TIMESTEPS * shifted(torch.rand(count, device=device), self.shift)).to(dtype)

    def weight(self, t: Tensor) -> Tensor:
        """Loss weight of each timestep: a bell around 500, 0 at both ends, 1 on average."""
        return ((self._bell(t.double()) - self._lowest) / (self._mean + 1e-10)).to(torch.float32)

    def noise_like(self, actions: Tensor) -> Tensor:
        """What is mixed into the actions."""
        return torch.randn_like(actions)

    @staticmethod
    def _bell(t: Tensor) -> Tensor:
        return torch.exp(-2 * ((t - TRAIN_TIMESTEPS / 2) / TRAIN_TIMESTEPS) ** 2)


class Regression(TimestepSampler):
    """No flow: of the actions nothing is left at the only timestep. The loss is the squared error of the actions."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def sample(self, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The first timestep of an inference."""
        return torch.full((count,), float(TRAIN_TIMESTEPS), device=device, dtype=dtype)

    def weight(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float32)

    def noise_like(self, actions: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(actions)


def action_sampler(variant: Variant, shift: float) -> TimestepSampler:
    """What a variant's actions are trained with."""
    return Regression() if variant.regression else TimestepSampler(shift)


def draw(
    batch: Batch, mode: InferenceMode, sampler: TimestepSampler, max_prefix: int = 0, action_draws: int = 1,
    video_sampler: TimestepSampler | None = None,
) -> Draws:  # fmt: skip
    """Random numbers of one batch, in the official order of drawing; there `action_draws` is 1.

    Timesteps of the video come from `video_sampler`, by default as those of the actions.

    With `max_prefix` the model learns to continue 0 to `max_prefix` given actions (arXiv 2512.05964): what they stand
    for is the inference delay of real-time chunking.
    """
    count, device, dtype = len(batch.actions), batch.actions.device, batch.latents.dtype
    video_sampler = video_sampler or sampler
    draws = {
        "video_noise": torch.randn_like(batch.latents),
        "video_t": video_sampler.sample(count, device, dtype),
        "action_noise": sampler.noise_like(batch.actions.repeat(1, action_draws, 1)),
        "action_t": sampler.sample(count * action_draws, device, dtype).view(count, action_draws),
    }
    if mode == "idm":
        noised = torch.rand(count, device=device) < _NOISED_CONDITION
        draws["condition_t"] = torch.zeros(count, device=device, dtype=dtype)
        draws["condition_noise"] = torch.zeros_like(batch.latents)
        if noised.any():
            draws["condition_t"] = torch.where(noised, video_sampler.sample(count, device, dtype), draws["condition_t"])
            draws["condition_noise"] = torch.randn_like(batch.latents)
    if max_prefix:
        draws["prefix"] = torch.randint(0, max_prefix + 1, (count,), device=device)
    return Draws(**draws)


def training_loss(
    model: FastWam, mode: InferenceMode, batch: Batch, draws: Draws, sampler: TimestepSampler,
    lambda_video: float = 1.0, lambda_action: float = 1.0, video_sampler: TimestepSampler | None = None,
) -> Losses:  # fmt: skip
    """Losses of one batch in one mode of a variant (see :mod:`fastwam_policy.model.variants`)."""
    context = model.context(batch.text, batch.text_mask, batch.proprio)
    given_frames = model.config.given_frames
    video = _noised_video(batch.latents, draws.video_noise, draws.video_t, given_frames)
    horizon, copies = batch.actions.shape[1], draws.action_t.shape[1]
    action_t, given = draws.action_t, None
    if draws.prefix is not None:
        given = torch.arange(horizon, device=draws.prefix.device) < draws.prefix[:, None]
        action_t = action_t[:, :, None].masked_fill(given[:, None], 0)
    clean_actions = batch.actions.repeat(1, copies, 1)
    step_t = action_t if action_t.ndim == 3 else action_t[:, :, None].expand(-1, -1, horizon)
    actions = _noised(clean_actions, draws.action_noise, step_t.flatten(1))
    frames, rows, columns = model.grid(batch.latents)
    mask = training_mask(mode, frames, rows * columns, horizon, copies, given_frames).to(actions.device)
    conditioning = None
    if mode == "idm":
        if draws.condition_t is None or draws.condition_noise is None:
            raise ValueError("mode idm needs draws of a conditioning video")
        clean = _noised_video(batch.latents, draws.condition_noise, draws.condition_t, given_frames)
        conditioning = (clean, model.frame_times(clean, draws.condition_t))
    frame_t = model.frame_times(video, draws.video_t)
    video_velocity, action_velocity = model.joint_velocity(
        video, actions, frame_t, action_t, context, mask, conditioning
    )

    video_target, action_target = draws.video_noise - batch.latents, draws.action_noise - clean_actions
    per_frame = (video_velocity - video_target).float().square()[:, :, given_frames:].mean(dim=(1, 3, 4))
    per_step = (action_velocity - action_target).float().square().mean(dim=2).unflatten(1, (copies, horizon))
    video_loss = _masked_mean(per_frame, _latent_padding(batch.image_is_pad, frames - given_frames))
    is_pad = _either(batch.action_is_pad, given)
    action_loss = _masked_mean(per_step, None if is_pad is None else is_pad[:, None])
    video_loss = (video_loss * (video_sampler or sampler).weight(draws.video_t)).mean()
    action_loss = (action_loss * sampler.weight(draws.action_t)).mean()
    total = lambda_video * video_loss + lambda_action * action_loss
    return Losses(total, video_loss, action_loss, video_velocity, action_velocity)


def _noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    sigma = (t / TRAIN_TIMESTEPS).view(*t.shape, *[1] * (clean.ndim - t.ndim))
    return (1 - sigma) * clean + sigma * noise


def _noised_video(clean: Tensor, noise: Tensor, t: Tensor, given: int) -> Tensor:
    """The `given` frames stay clean."""
    return torch.cat([clean[:, :, :given], _noised(clean, noise, t)[:, :, given:]], dim=2)


def _either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Elementwise `a or b`; None is all False."""
    return b if a is None else a if b is None else a | b


def _latent_padding(image_is_pad: Tensor | None, later: int) -> Tensor | None:
    """[B, later]: a latent frame after the observation is padding when all of its video frames are."""
    if image_is_pad is None:
        return None
    return image_is_pad[:, 1:].unflatten(1, (later, -1)).all(dim=2)


def _masked_mean(values: Tensor, is_pad: Tensor | None) -> Tensor:
    """Mean over the last axis of `values` [B, ..., N], of entries that are not padding."""
    if is_pad is None:
        return values.mean(dim=-1)
    keep = (~is_pad).to(values.dtype)
    return (values * keep).sum(dim=-1) / keep.sum(dim=-1).clamp(min=1)
