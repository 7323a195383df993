"""The arithmetic exactly as in the formulae, nothing cached: what the engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastwam_policy.model.fastwam import Context, FastWam, Stream, run_layers
from fastwam_policy.model.flow import Schedule
from fastwam_policy.model.layers import KeyValue
from fastwam_policy.model.masks import mixture_mask
from fastwam_policy.model.variants import InferenceMode


def plain_inference(
    model: FastWam,
    latents: Tensor,
    text: Tensor,
    text_mask: Tensor,
    proprio: Tensor | None,
    noise: Tensor,
    schedule: Schedule,
    mode: InferenceMode = "first_frame",
    video_noise: Tensor | None = None,
) -> Tensor:
    """Normalised actions [1, H, action_dim]; arguments as in :meth:`FastWam.context` and :mod:`variants`.

    As in the published code every video token has its own modulation, every layer of every step computes the keys
    and values of all context tokens again, masks are applied though all true, and the last layer is run to its end.
    """
    if proprio is not None and model.proprio_encoder is not None:
        text = torch.cat([text, model.proprio_encoder(proprio)[:, None]], dim=1)
        text_mask = torch.cat([text_mask, text_mask.new_ones(len(text_mask), 1)], dim=1)
    network = _Network(model, text, text_mask[:, None, None, :])
    steps = list(zip(schedule.timesteps, schedule.deltas, strict=True))
    video, actions = latents, noise
    given = latents.shape[2]
    if video_noise is not None:
        video = torch.cat([latents, video_noise[:, :, given:]], dim=2)
    frames, rows, columns = model.grid(video)
    tokens = rows * columns
    sees_future = mode != "first_frame"
    mask = mixture_mask(frames, tokens, noise.shape[1], given=given, action_sees_future=sees_future).to(noise.device)
    if mode == "joint":
        for t, delta in steps:
            velocity, action_velocity = network.velocities(video, actions, t, mask)
            video = torch.cat([latents, (video + delta * velocity)[:, :, given:]], dim=2)
            actions = actions + delta * action_velocity
        return actions
    if mode == "idm":
        for t, delta in steps:
            velocity = network.video_velocity(video, t)
            video = torch.cat([latents, (video + delta * velocity)[:, :, given:]], dim=2)
    past = run_layers([network.video(video, video.new_zeros(()))[0]], mask[: frames * tokens, : frames * tokens])
    for t, delta in steps:
        actions = actions + delta * network.action_velocity(actions, t, mask[frames * tokens :], past)
    return actions


@dataclass(frozen=True)
class _Network:
    """The model with its context, of which nothing is kept."""

    model: FastWam
    text: Tensor
    mask: Tensor

    def video(self, latents: Tensor, t: Tensor) -> tuple[Stream, Tensor]:
        """Tokens at timestep `t`, those of the given frames at 0, and the time embedding of each."""
        model = self.model
        frames, rows, columns = model.grid(latents)
        context = Context(model.video.context_key_values(self.text), [], self.mask)
        times = model.frame_times(latents, t.view(1)).repeat_interleave(rows * columns, dim=1)
        stream, _ = model.video_stream(latents, latents.new_zeros(1, frames), context)
        embedding, t_mod = model.video.embed_time(times)
        return Stream(stream.expert, stream.x, t_mod, stream.rotary, context.video, self.mask), embedding

    def action(self, actions: Tensor, t: Tensor) -> Stream:
        context = Context([], self.model.action.context_key_values(self.text), self.mask)
        return self.model.action_stream(actions, t.view(1, 1), context)

    def video_velocity(self, latents: Tensor, t: Tensor) -> Tensor:
        stream, embedding = self.video(latents, t)
        frames, rows, columns = self.model.grid(latents)
        run_layers([stream], self.model.video_mask(latents))
        return self.model.video.velocity(stream.x, embedding, (frames, rows, columns))

    def action_velocity(self, actions: Tensor, t: Tensor, mask: Tensor, past: Sequence[KeyValue]) -> Tensor:
        stream = self.action(actions, t)
        run_layers([stream], mask, past)
        return self.model.action.head(stream.x)

    def velocities(self, latents: Tensor, actions: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of video and actions that pass together."""
        (video, embedding), action = self.video(latents, t), self.action(actions, t)
        run_layers([video, action], mask)
        velocity = self.model.video.velocity(video.x, embedding, self.model.grid(latents))
        return velocity, self.model.action.head(action.x)
