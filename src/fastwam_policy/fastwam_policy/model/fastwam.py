"""Fast-WAM: two experts with shared attention, and inference that computes the observation once (arXiv 2603.16666).

The first frame's latents pass through the video expert one time (prefill); the action expert then denoises a chunk of
actions against the kept keys and values. The future is never computed.

A model with a history is given earlier frames, too. In every video here they stand before the observation, as clean as
it is; g is how many frames are given, 1 in official models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastwam_policy.model.config import ModelConfig
from fastwam_policy.model.experts import ActionExpert, Expert, VideoExpert
from fastwam_policy.model.flow import Schedule
from fastwam_policy.model.layers import KeyValue, Rotary, action_rotary, attend, video_rotary
from fastwam_policy.model.masks import video_mask


@dataclass(frozen=True)
class Context:
    """Cross-attention keys and values of the context tokens, one pair a layer, for each expert."""

    video: list[KeyValue]
    action: list[KeyValue]
    mask: Tensor | None
    """bool [B, 1, 1, L], None where every token is visible."""


@dataclass
class Stream:
    """Tokens of one expert on their way through the layers."""

    expert: Expert
    x: Tensor
    t_mod: Tensor
    rotary: Rotary
    context: list[KeyValue]
    context_mask: Tensor | None


def run_layers(
    streams: Sequence[Stream],
    mask: Tensor | None = None,
    past: Sequence[KeyValue] | None = None,
    *,
    checkpointing: bool = False,
) -> list[KeyValue]:
    """Take all streams through all layers with shared attention; their `x` is replaced by the result.

    Args:
        streams: the experts taking part, in the order of the mask.
        mask: bool [N, M] over the concatenated tokens, those of `past` first among the M; None: all visible.
        past: keys and values of tokens that are not computed again, one pair a layer.
        checkpointing: compute each layer again in the backward pass instead of keeping what is inside it.

    Returns:
        Each layer's keys and values of the streams' tokens, without `past`.
    """
    kept = []
    for layer in range(streams[0].expert.config.num_layers):
        before = [stream.x for stream in streams]
        earlier = None if past is None else past[layer]
        if checkpointing:
            after, key_value = checkpoint(_layer, layer, streams, before, mask, earlier, use_reentrant=False)
        else:
            after, key_value = _layer(layer, streams, before, mask, earlier)
        for stream, x in zip(streams, after, strict=True):
            stream.x = x
        kept.append(key_value)
    return kept


def _layer(
    layer: int, streams: Sequence[Stream], before: list[Tensor], mask: Tensor | None, past: KeyValue | None
) -> tuple[list[Tensor], KeyValue]:
    """One layer on the tokens `before` of each stream: the tokens after it, and all keys and values."""
    blocks = [stream.expert.block(layer) for stream in streams]
    modulations = [block.modulate(stream.t_mod) for block, stream in zip(blocks, streams, strict=True)]
    projected = [
        block.query_key_value(x, modulation, stream.rotary)
        for block, x, stream, modulation in zip(blocks, before, streams, modulations, strict=True)
    ]
    query, key, value = (torch.cat(parts, dim=1) for parts in zip(*projected, strict=True))
    kept = (key, value)
    if past is not None:
        key, value = (torch.cat(pair, dim=1) for pair in zip(past, kept, strict=True))
    attended = attend(query, key, value, blocks[0].config.num_heads, mask)
    parts = attended.split([x.shape[1] for x in before], dim=1)
    after = [
        block.finish(x, part, modulation, stream.context[layer], stream.context_mask)
        for block, x, stream, modulation, part in zip(blocks, before, streams, modulations, parts, strict=True)
    ]
    return after, kept


class FastWam(nn.Module):
    """The model. Parameter names are those of published checkpoints, see :mod:`fastwam_policy.model.checkpoint`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.video = VideoExpert(config)
        self.action = ActionExpert(config)
        self.proprio_encoder = (
            None if config.proprio_dim is None else nn.Linear(config.proprio_dim, config.video.text_dim)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        return self.action.head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.action.head.weight.device

    def context(self, text: Tensor, text_mask: Tensor, proprio: Tensor | None) -> Context:
        """What both experts attend to besides each other: the prompt, and the joints as one more token.

        Args:
            text: prompt embedding [B, L, text_dim].
            text_mask: bool [B, L]. The released convention is all True over zero padding rows: they take part.
            proprio: normalised joint state [B, P], None: no such token.
        """
        if proprio is not None:
            if self.proprio_encoder is None:
                raise ValueError("this model has no proprioception encoder, but a joint state was given")
            token = self.proprio_encoder(proprio)[:, None]
            text = torch.cat([text, token], dim=1)
            text_mask = torch.cat([text_mask, text_mask.new_ones(len(text_mask), 1)], dim=1)
        mask = None if bool(text_mask.all()) else text_mask[:, None, None, :]
        return Context(self.video.context_key_values(text), self.action.context_key_values(text), mask)

    def prefill(self, latents: Tensor, context: Context) -> list[KeyValue]:
        """The video expert's keys and values [B, tokens, A] of an observed or imagined video, one pair a layer.

        Args:
            latents: image latents [B, C, f, h, w], of which the first g are given; f is g in Fast-WAM.
            context: from :meth:`context`.
        """
        stream, _ = self.video_stream(latents, latents.new_zeros(len(latents), latents.shape[2]), context)
        mask = None if latents.shape[2] == self.config.given_frames else self.video_mask(latents)
        return run_layers([stream], mask)

    def video_velocity(self, latents: Tensor, t: Tensor, context: Context) -> Tensor:
        """Velocity [B, C, f, h, w] of a noisy video alone at timestep `t` [B]; its given frames are clean."""
        stream, t_embedding = self.video_stream(latents, self.frame_times(latents, t), context)
        run_layers([stream], self.video_mask(latents))
        return self.video.velocity(stream.x, t_embedding, self.grid(latents))

    def joint_velocity(
        self,
        latents: Tensor,
        actions: Tensor,
        frame_t: Tensor,
        action_t: Tensor,
        context: Context,
        mask: Tensor,
        conditioning: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of video [B, C, f, h, w] and actions [B, H, action_dim] that attend to each other as `mask` says.

        Args:
            latents: noisy video whose given frames are clean.
            actions: noisy actions [B, R * H, action_dim]: R draws of noise for the same observation.
            frame_t: timestep of each latent frame [B, f].
            action_t: timestep of each draw [B, R], or of each step [B, R, H].
            context: from :meth:`context`.
            mask: bool, over [video, conditioning video, actions].
            conditioning: a second copy of the video and its frames' timesteps, for the actions to see.
        """
        video, t_embedding = self.video_stream(latents, frame_t, context)
        streams = [video, self.action_stream(actions, action_t, context)]
        if conditioning is not None:
            streams.insert(1, self.video_stream(*conditioning, context)[0])
        run_layers(streams, mask, checkpointing=self.gradient_checkpointing and self.training)
        return self.video.velocity(video.x, t_embedding, self.grid(latents)), self.action.head(streams[-1].x)

    def action_velocity(self, actions: Tensor, t: Tensor, past: Sequence[KeyValue], context: Context) -> Tensor:
        """Velocity [B, H, action_dim] of noisy `actions` [B, H, action_dim] at timestep `t` (scalar, 0..1000)."""
        stream = self.action_stream(actions, t.expand(len(actions), 1), context)
        run_layers([stream], past=past)
        return self.action.head(stream.x)

    def video_stream(self, latents: Tensor, frame_t: Tensor, context: Context) -> tuple[Stream, Tensor]:
        """Tokens of a video with one timestep [B, f] a latent frame, and the frames' time embedding [B, f, D]."""
        if latents.ndim != 5 or latents.shape[3] % self.config.patch or latents.shape[4] % self.config.patch:
            raise ValueError(f"expected latents [B, C, f, even, even], got {list(latents.shape)}")
        frames, rows, columns = self.grid(latents)
        embedding, t_mod = self.video.embed_time(frame_t)
        first = 1 - self.config.given_frames
        rotary = video_rotary(frames, rows, columns, self.config.video.head_dim, latents.device, first)
        tokens = self.video.tokens(latents)
        return Stream(self.video, tokens, t_mod, rotary, context.video, context.mask), embedding

    def action_stream(self, actions: Tensor, t: Tensor, context: Context) -> Stream:
        """Tokens of noisy actions [B, R * H, action_dim] at timestep `t` [B, R] of each draw, or [B, R, H]."""
        draws = t.shape[1]
        horizon = actions.shape[1] // draws
        _, t_mod = self.action.embed_time(t.flatten(1))
        cos, sin = action_rotary(horizon, self.config.action.head_dim, actions.device)
        rotary = (cos.repeat(draws, 1), sin.repeat(draws, 1))
        return Stream(self.action, self.action.action_encoder(actions), t_mod, rotary, context.action, context.mask)

    def grid(self, latents: Tensor) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens."""
        frames, height, width = latents.shape[2:]
        return frames, height // self.config.patch, width // self.config.patch

    def video_mask(self, latents: Tensor) -> Tensor:
        """Mask of a video alone."""
        frames, rows, columns = self.grid(latents)
        return video_mask(frames, rows * columns, self.config.given_frames).to(latents.device)

    def frame_times(self, latents: Tensor, t: Tensor) -> Tensor:
        """Timestep of each latent frame [B, f]: 0 for the given ones, which are clean, `t` [B] for the others."""
        times = t[:, None].repeat(1, latents.shape[2])
        times[:, : self.config.given_frames] = 0
        return times

    def denoise(self, noise: Tensor, schedule: Schedule, past: Sequence[KeyValue], context: Context) -> Tensor:
        """Actions [B, H, action_dim], normalised, from `noise` of that shape."""
        actions = noise
        for t, delta in zip(schedule.timesteps, schedule.deltas, strict=True):
            actions = actions + delta * self.action_velocity(actions, t, past, context)
        return actions
