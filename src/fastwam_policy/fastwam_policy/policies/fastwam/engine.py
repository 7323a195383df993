"""Fast-WAM inference that computes nothing twice.

What is constant is computed once: for the schedule (time embeddings, all modulations, rotary tables), for the prompt
(the text MLP and the cross-attention keys and values of its tokens, in every layer of both experts), and for the
observation (the video expert's keys and values, the joint state's token). All-true masks vanish, the modulation of a
single frame is one row and not a copy for each token, and what is not used of the video expert's last layer is
skipped. The arithmetic is that of :mod:`fastwam_policy.model`; only the order of some sums differs (1e-6 in float32).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fastwam_policy.model.experts import Expert
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import TRAIN_TIMESTEPS, Schedule
from fastwam_policy.model.layers import Block, KeyValue, Projections, Rotary, action_rotary, video_rotary
from fastwam_policy.model.realtime import guided_velocity

EngineKind = Literal["eager", "compiled"]

_PROPRIO_TOKENS = 1


@dataclass
class _Layer:
    """One block with everything about it that does not change between two observations."""

    block: Block
    modulation: Tensor
    """[steps + 1, 6, D], the last one for timestep 0; one step for the video expert. Rows 1 and 4 hold 1 + scale."""
    context_key: Tensor
    context_value: Tensor
    """[1, heads, L + 1, head_dim]: room for the prompt's tokens, which end at row L, and for the joint state's."""
    context: KeyValue
    """The rows of both that are in use."""
    key: Tensor
    value: Tensor
    """[1, heads, M, head_dim] of the tokens that this layer's attention sees; filled in place."""


class Engine:
    """Runs one model with one horizon, schedule and image size. One thread owns it.

    Args:
        model: the network, in evaluation mode.
        grid: rows and columns of video tokens: image height / 32 and width / 32.
        horizon: steps of a chunk.
        schedule: denoise steps.
        text_length: tokens of a prompt embedding.
        kind: `eager`, or `compiled` (torch.compile with static shapes, with CUDA graphs on a GPU).
    """

    def __init__(
        self, model: FastWam, grid: tuple[int, int], horizon: int, schedule: Schedule, text_length: int,
        kind: EngineKind = "eager",
    ) -> None:  # fmt: skip
        self.model = model
        self._deltas = schedule.deltas
        self._timesteps = schedule.timesteps
        config, device, dtype = model.config, model.device, model.dtype
        self._heads = config.video.num_heads
        tokens, head_dim = grid[0] * grid[1], config.video.head_dim
        self._video_tokens, self._text_length = tokens, text_length
        self._noise_shape = (1, horizon, config.action_dim)
        self._compiled = kind == "compiled"
        context = text_length + (0 if config.proprio_dim is None else _PROPRIO_TOKENS)
        self._video_rotary = _head_major(video_rotary(1, *grid, head_dim, device))
        self._action_rotary = _head_major(action_rotary(horizon, head_dim, device))

        def empty(length: int) -> Tensor:
            return torch.empty(1, self._heads, length, head_dim, device=device, dtype=dtype)

        self._video: list[_Layer] = []
        self._action: list[_Layer] = []
        zero = torch.zeros(1, device=device, dtype=dtype)
        video_modulation = model.video.embed_time(zero)[1]
        timesteps = torch.cat([schedule.timesteps, zero])
        action_modulation = model.action.embed_time(timesteps)[1]
        for index in range(config.video.num_layers):
            key, value = empty(tokens + horizon), empty(tokens + horizon)  # shared: the actions attend to the video's
            for layers, expert, t_mod in (
                (self._video, model.video, video_modulation),
                (self._action, model.action, action_modulation),
            ):
                block = expert.block(index)
                modulation = block.modulation + t_mod
                modulation[:, (1, 4)] += 1
                room = empty(context), empty(context)
                layers.append(_Layer(block, modulation, *room, room, key, value))
        self._first = 0  # row of the prompt's first token
        self._rows = slice(0, context)
        self._prefill = self._run_prefill
        self._step = self._run_step
        if self._compiled:
            self._keep_addresses()
            mode = "reduce-overhead" if device.type == "cuda" else None
            self._prefill = torch.compile(self._run_prefill, dynamic=False, mode=mode)
            self._step = torch.compile(self._run_step, dynamic=False, mode=mode)

    def set_prompt(self, text: Tensor, mask: Tensor) -> None:
        """Take a prompt into use: embedding [1, L, text_dim] and mask [1, L].

        Tokens that the mask hides are left out, which is what masked attention computes. Released checkpoints see all.

        Raises:
            ValueError: another number of tokens.
        """
        if text.shape[1] != self._text_length:
            raise ValueError(f"expected {self._text_length} text tokens, got {text.shape[1]}")
        if not bool(mask.all()):
            text = text[:, mask[0].to(text.device)]
        self._first = self._text_length - text.shape[1]
        for expert, layers in self._experts():
            self._fill_context(expert, layers, text, self._first)

    def prefill(self, latents: Tensor, proprio: Tensor | None) -> None:
        """Take an observation into use: latents [1, C, 1, h, w] and normalised joint state [1, P].

        Without a joint state the model attends to no such token, as in the authors' code.

        Raises:
            ValueError: a joint state of another size, or neither it nor a visible token of the prompt.
        """
        rows = slice(self._first, self._text_length)
        if self.model.proprio_encoder is not None and proprio is not None:
            if proprio.shape != (1, self.model.config.proprio_dim):
                raise ValueError(
                    f"expected a joint state [1, {self.model.config.proprio_dim}], got {list(proprio.shape)}"
                )
            token = self.model.proprio_encoder(proprio)[:, None]
            for expert, layers in self._experts():
                self._fill_context(expert, layers, token, self._text_length)
            rows = slice(self._first, self._text_length + _PROPRIO_TOKENS)
        self._use_context(rows)
        self._prefill(latents)

    def denoise(self, noise: Tensor, first: int = 0) -> Tensor:
        """Actions [1, H, action_dim], normalised, for the observation in use.

        Args:
            noise: [1, H, action_dim] at the noise level of step `first`.
            first: step to begin with.

        Raises:
            ValueError: noise of another shape, such as that of another horizon.
        """
        self._check_noise(noise)
        actions = noise
        for step in range(first, len(self._deltas)):
            modulations = [layer.modulation[step] for layer in self._action]
            actions = actions + self._deltas[step] * self._step(actions, modulations)
        return actions

    def denoise_guided(self, noise: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Like :meth:`denoise`, steered towards a running plan; costs a backward pass a step (arXiv 2506.07339).

        Args:
            noise: [1, H, action_dim].
            target: normalised running plan [1, H, action_dim].
            mask: [H] from :func:`fastwam_policy.model.realtime.soft_mask`.
        """
        self._check_noise(noise)
        actions = noise
        for step, sigma in enumerate((self._timesteps.double() / TRAIN_TIMESTEPS).tolist()):
            modulations = [layer.modulation[step] for layer in self._action]
            network = partial(self._run_step, modulations=modulations, keep=False)
            velocity = guided_velocity(network, actions, sigma, target, mask)
            actions = actions + self._deltas[step] * velocity
        return actions

    def denoise_after(self, noise: Tensor, prefix: Tensor) -> Tensor:
        """Like :meth:`denoise`, with the first steps given; for models trained with them (arXiv 2512.05964).

        Args:
            noise: [1, H, action_dim].
            prefix: normalised first actions [1, P, action_dim], P < H.
        """
        self._check_noise(noise)
        given = prefix.shape[1]
        actions = torch.cat([prefix, noise[:, given:]], dim=1)
        for step in range(len(self._deltas)):
            modulations = []
            for layer in self._action:  # every step's own timestep: 0 where it is clean
                clean = layer.modulation[-1][:, None].expand(-1, given, -1)
                noisy = layer.modulation[step][:, None].expand(-1, noise.shape[1] - given, -1)
                modulations.append(torch.cat([clean, noisy], dim=1))
            velocity = self._run_step(actions, modulations)
            actions = torch.cat([prefix, (actions + self._deltas[step] * velocity)[:, given:]], dim=1)
        return actions

    def _check_noise(self, noise: Tensor) -> None:
        if noise.shape != self._noise_shape:
            raise ValueError(f"expected noise {list(self._noise_shape)} for this horizon, got {list(noise.shape)}")

    def _use_context(self, rows: slice) -> None:
        """Attend to these rows of the context from now on."""
        if rows.start == rows.stop:
            raise ValueError("the text mask hides every token, and there is no joint state: nothing to attend to")
        if rows == self._rows:
            return
        self._rows = rows
        for layer in (*self._video, *self._action):
            layer.context = layer.context_key[:, :, rows], layer.context_value[:, :, rows]
        if self._compiled:
            self._keep_addresses()

    def _keep_addresses(self) -> None:
        """CUDA graphs are not recorded where other inputs change."""
        for layer in (*self._video, *self._action):
            for kept in (layer.key, layer.value, layer.context_key, layer.context_value, *layer.context):
                torch._dynamo.mark_static_address(kept)  # noqa: SLF001  documented under this name

    def _experts(self) -> tuple[tuple[Expert, list[_Layer]], tuple[Expert, list[_Layer]]]:
        return (self.model.video, self._video), (self.model.action, self._action)

    def _fill_context(self, expert: Expert, layers: Sequence[_Layer], tokens: Tensor, place: int) -> None:
        """Keys and values of context `tokens` [1, L, text_dim] into rows `place` and on."""
        for layer, pair in zip(layers, expert.context_key_values(tokens), strict=True):
            for target, source in zip((layer.context_key, layer.context_value), pair, strict=True):
                target[:, :, place : place + tokens.shape[1]] = self._split(source)

    def _run_prefill(self, latents: Tensor) -> None:
        x = self.model.video.tokens(latents)
        last = len(self._video) - 1
        rows = slice(0, self._video_tokens)
        for index, layer in enumerate(self._video):
            modulation = layer.modulation[0].unbind(0)
            u = self._norm(x, modulation[1], modulation[0])
            layer.key[:, :, rows], layer.value[:, :, rows] = self._key_value(layer, u, self._video_rotary)
            if index < last:  # of the last layer only keys and values are read
                seen = layer.key[:, :, rows], layer.value[:, :, rows]
                x = self._finish(layer, x, u, modulation, self._video_rotary, seen)

    def _run_step(self, actions: Tensor, modulations: Sequence[Tensor], *, keep: bool = True) -> Tensor:
        """Velocity of noisy actions [1, H, action_dim], for modulations [6, D] or [6, H, D] of each layer.

        `keep` writes keys and values in place, which is the faster way but cannot be differentiated.
        """
        x = self.model.action.action_encoder(actions)
        tokens = self._video_tokens
        for layer, rows in zip(self._action, modulations, strict=True):
            modulation = rows.unbind(0)
            u = self._norm(x, modulation[1], modulation[0])
            key, value = self._key_value(layer, u, self._action_rotary)
            if keep:
                layer.key[:, :, tokens:], layer.value[:, :, tokens:] = key, value
                seen = layer.key, layer.value
            else:
                seen = torch.cat([layer.key[:, :, :tokens], key], 2), torch.cat([layer.value[:, :, :tokens], value], 2)
            x = self._finish(layer, x, u, modulation, self._action_rotary, seen)
        return self.model.action.head(x)

    def _key_value(self, layer: _Layer, u: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        attention: Projections = layer.block.self_attn
        return _rotate(self._split(attention.norm_k(attention.k(u))), rotary), self._split(attention.v(u))

    def _finish(
        self,
        layer: _Layer,
        x: Tensor,
        u: Tensor,
        modulation: Sequence[Tensor],
        rotary: Rotary,
        seen: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Tokens after the layer; they attend to the keys and values `seen`."""
        block = layer.block
        query = _rotate(self._split(block.self_attn.norm_q(block.self_attn.q(u))), rotary)
        attended = F.scaled_dot_product_attention(query, *seen)
        x = torch.addcmul(x, block.self_attn.o(attended.transpose(1, 2).flatten(2)), modulation[2])
        query = self._split(block.cross_attn.norm_q(block.cross_attn.q(block.norm3(x))))
        attended = F.scaled_dot_product_attention(query, *layer.context)
        x = x + block.cross_attn.o(attended.transpose(1, 2).flatten(2))
        return torch.addcmul(x, block.ffn(self._norm(x, modulation[4], modulation[3])), modulation[5])

    def _split(self, x: Tensor) -> Tensor:
        """[1, N, A] -> [1, heads, N, head_dim]."""
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)

    def _norm(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Modulated layer norm; `scale` [D] or [N, D] already holds 1 + scale."""
        if scale.ndim == 1:
            return F.layer_norm(x, x.shape[-1:], scale, shift, eps=self.model.config.video.eps)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=self.model.config.video.eps), scale)


def _head_major(rotary: Rotary) -> Rotary:
    cos, sin = rotary
    return cos[None, None], sin[None, None]


def _rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate adjacent pairs of `x` [1, heads, N, head_dim]; in float32, returned like `x`."""
    cos, sin = rotary
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)
