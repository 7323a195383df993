"""The variants of the paper: one network, and what each of them lets the actions see (arXiv 2603.16666, section 3).

| variant | actions attend to | at inference |
|---|---|---|
| fastwam | the observed frame | prefill once, denoise actions |
| fastwam_no_video | the observed frame | the same; trained without the video loss |
| behaviour_cloning | the observed frame | one step from zeros; a plain regression of the actions, to compare with |
| joint | the observed and the imagined frames | denoise video and actions together |
| idm | a finished imagined video | denoise the video, prefill with it, denoise actions |
| optional_idm | either | `first_frame` or `idm`, chosen at each inference; trained on both in turn |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fastwam_policy.model.fastwam import Context, FastWam
from fastwam_policy.model.flow import Schedule, initial_noise
from fastwam_policy.model.masks import copied_video_mask, mixture_mask

InferenceMode = Literal["first_frame", "joint", "idm"]
VariantName = Literal["fastwam", "fastwam_no_video", "behaviour_cloning", "joint", "idm", "optional_idm"]


@dataclass(frozen=True)
class Variant:
    """How a set of weights is trained and may be used.

    Attributes:
        modes: ways to infer; the first is the default. Training draws one of them for each batch.
        lambda_video: weight of the video loss.
        regression: actions come in one step from zeros, and not by flow matching from noise.
    """

    modes: tuple[InferenceMode, ...]
    lambda_video: float = 1.0
    regression: bool = False

    def start(self, shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What the actions are denoised from."""
        if self.regression:
            return torch.zeros(shape, dtype=dtype, device=device)
        return initial_noise(shape, seed, dtype, device)


VARIANTS: dict[VariantName, Variant] = {
    "fastwam": Variant(("first_frame",)),
    "fastwam_no_video": Variant(("first_frame",), lambda_video=0.0),
    "behaviour_cloning": Variant(("first_frame",), lambda_video=0.0, regression=True),
    "joint": Variant(("joint",)),
    "idm": Variant(("idm",)),
    "optional_idm": Variant(("first_frame", "idm")),
}
assert set(VARIANTS) == set(get_args(VariantName))


def training_mask(
    mode: InferenceMode, frames: int, tokens_per_frame: int, horizon: int, draws: int = 1, given: int = 1
) -> Tensor:
    """Mask over all tokens of one training sequence; in mode idm the video stands in it twice, noisy and clean."""
    if mode == "idm":
        return copied_video_mask(frames, tokens_per_frame, horizon, draws, given)
    return mixture_mask(frames, tokens_per_frame, horizon, draws, given, action_sees_future=mode == "joint")


@dataclass(frozen=True)
class Prediction:
    """Result of an inference: normalised `actions` [B, H, action_dim], and the imagined `video` [B, C, f, h, w]."""

    actions: Tensor
    video: Tensor | None = None


def act(model: FastWam, observed: Tensor, noise: Tensor, schedule: Schedule, context: Context) -> Prediction:
    """Fast-WAM: the observation passes once, the future is never computed.

    Args:
        model: the network.
        observed: latents of the given frames [B, C, g, h, w]; the last one is the current frame.
        noise: [B, H, action_dim].
        schedule: denoise steps.
        context: from `model.context`.
    """
    return Prediction(model.denoise(noise, schedule, model.prefill(observed, context), context))


def imagine_and_act(
    model: FastWam,
    observed: Tensor,
    video_noise: Tensor,
    noise: Tensor,
    video_schedule: Schedule,
    schedule: Schedule,
    context: Context,
    *,
    action_sees_future: bool,
) -> Prediction:
    """Denoise video and actions together; see :func:`act`.

    `video_noise` is [B, C, f, h, w]; both schedules have the same number of steps.

    Without `action_sees_future` the actions equal those of :func:`act`: it then shows what a Fast-WAM imagines.
    """
    frames, rows, columns = model.grid(video_noise)
    given = model.config.given_frames
    mask = mixture_mask(frames, rows * columns, noise.shape[1], given=given, action_sees_future=action_sees_future).to(
        noise.device
    )
    actions = noise
    action_steps = zip(schedule.timesteps, schedule.deltas, strict=True)

    def velocity(video: Tensor, t: Tensor) -> Tensor:
        nonlocal actions
        action_t, delta = next(action_steps)
        frame_t, action_t = model.frame_times(video, t), action_t.expand(len(video), 1)
        video_velocity, action_velocity = model.joint_velocity(video, actions, frame_t, action_t, context, mask)
        actions = actions + delta * action_velocity
        return video_velocity

    video = _denoise_video(observed, video_noise, video_schedule, velocity)
    return Prediction(actions, video)


def imagine_then_act(
    model: FastWam,
    observed: Tensor,
    video_noise: Tensor,
    noise: Tensor,
    video_schedule: Schedule,
    schedule: Schedule,
    context: Context,
) -> Prediction:
    """Denoise the video, then the actions against the finished video; see :func:`imagine_and_act`."""
    video = imagine(model, observed, video_noise, video_schedule, context)
    return Prediction(model.denoise(noise, schedule, model.prefill(video, context), context), video)


def imagine(model: FastWam, observed: Tensor, noise: Tensor, schedule: Schedule, context: Context) -> Tensor:
    """Denoise the video alone, [B, C, f, h, w] from `noise` of that shape; see :func:`imagine_and_act`.

    Video tokens never see the actions, so that this is the video of every variant.
    """
    return _denoise_video(observed, noise, schedule, lambda x, t: model.video_velocity(x, t, context))


def _denoise_video(
    observed: Tensor, noise: Tensor, schedule: Schedule, velocity: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Denoise a video whose first frames are always those `observed`, clean."""
    given = observed.shape[2]
    video = torch.cat([observed, noise[:, :, given:]], dim=2)
    for t, delta in zip(schedule.timesteps, schedule.deltas, strict=True):
        video = video + delta * velocity(video, t.expand(len(video)))
        video = torch.cat([observed, video[:, :, given:]], dim=2)
    return video
