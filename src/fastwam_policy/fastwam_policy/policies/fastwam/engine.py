"""Fast-WAM inference that computes nothing twice, for every variant.

What is constant is computed once: for the schedule (time embeddings, all modulations, rotary tables), for the prompt
(the text MLP and the cross-attention keys and values of its tokens, in every layer of both experts), and for the
observation (the video expert's keys and values of the given frames, which see nothing else; the joint state's token).
All-true masks vanish, the modulation of frames at one timestep is one row and not a copy for each token, and what is
not used of the video expert's last layer is skipped. Video tokens never see actions: each pass of the video fills its
rows of every layer's keys and values, and a pass of the actions reads those of all frames that the variant shows them.
The arithmetic is that of :mod:`fastwam_policy.model`; only the order of some sums differs (1e-6 in float32).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import TRAIN_TIMESTEPS, Schedule
from fastwam_policy.model.layers import Rotary, action_rotary, video_rotary
from fastwam_policy.model.realtime import guided_velocity
from fastwam_policy.model.variants import Prediction
from fastwam_policy.policies.fastwam.linears import Linears, packing_fits, packing_pays
from fastwam_policy.policies.fastwam.prepared import Layer, PreparedExpert

EngineKind = Literal["eager", "compiled"]

_PROPRIO_TOKENS = 1


class Engine:
    """Runs one model with one horizon, schedule and image size. One thread owns it.

    Args:
        model: the network, in evaluation mode.
        grid: rows and columns of video tokens: image height / 32 and width / 32.
        horizon: steps of a chunk.
        schedule: denoise steps.
        text_length: tokens of a prompt embedding.
        kind: `eager`, or `compiled` (torch.compile with static shapes, with CUDA graphs on a GPU).
        frames: latent frames from the observed one on that the actions see; above 1 the others are imagined.
        video_schedule: denoise steps of the imagined frames; None: as for the actions.
    """

    def __init__(
        self, model: FastWam, grid: tuple[int, int], horizon: int, schedule: Schedule, text_length: int,
        kind: EngineKind = "eager", frames: int = 1, video_schedule: Schedule | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self._schedule, self._video_schedule = schedule, video_schedule or schedule
        config, device = model.config, model.device
        self._heads, self._eps, self._width = config.video.num_heads, config.video.eps, config.video.attention_dim
        self._grid, self._frame_tokens, self._text_length = grid, grid[0] * grid[1], text_length
        self._noise_shape = (1, horizon, config.action_dim)
        self._given = config.given_frames
        frames += self._given - 1
        self._video_shape = (1, config.latent_channels, frames, *(config.patch * side for side in grid))
        self._compiled = kind == "compiled"
        context = text_length + (0 if config.proprio_dim is None else _PROPRIO_TOKENS)
        head_dim, video_tokens = config.video.head_dim, frames * self._frame_tokens
        self._action_rows = slice(video_tokens, video_tokens + horizon)
        self._video_rotary = _table(video_rotary(frames, *grid, head_dim, device, 1 - self._given))
        self._action_rotary = _table(action_rotary(horizon, head_dim, device))

        def empty() -> Tensor:
            shape = (1, self._action_rows.stop, self._heads, head_dim)
            return torch.empty(shape, device=device, dtype=model.dtype)

        keys_values = [(empty(), empty()) for _ in range(config.video.num_layers)]  # the actions attend to the video's
        zero = torch.zeros(1, device=device, dtype=model.dtype)
        seen = self._given * self._frame_tokens
        packed = not self._compiled and _may_pack(model, seen)
        self._video, self._action = (
            PreparedExpert(expert, torch.cat([timesteps, zero]), keys_values, context, tokens if packed else None)
            for expert, timesteps, tokens in (
                (model.video, self._video_schedule.timesteps, seen),
                (model.action, schedule.timesteps, horizon),
            )
        )
        embedding = model.video.patch_embedding
        self._patches = Linears([(embedding.weight.flatten(1), embedding.bias)])
        self._first = 0  # row of the prompt's first token
        self._rows = slice(0, context)
        self._see = self._run_video
        self._step = self._run_step
        if self._compiled:
            self._keep_addresses()
            mode = "reduce-overhead" if device.type == "cuda" else None
            self._see = torch.compile(self._run_video, dynamic=False, mode=mode)
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
        self._fill_context(text, self._first)

    @torch.inference_mode()
    def prefill(self, latents: Tensor, proprio: Tensor | None) -> None:
        """Take an observation into use: latents [1, C, g, h, w] of the given frames, and joint state [1, P].

        Without a joint state the model attends to no such token, as in the authors' code.

        Raises:
            ValueError: another number of frames, a joint state of another size, or neither it nor a visible token of
                the prompt.
        """
        if latents.shape[2] != self._given:
            raise ValueError(f"expected latents of {self._given} frames, got {latents.shape[2]}")
        rows = slice(self._first, self._text_length)
        if self.model.proprio_encoder is not None and proprio is not None:
            if proprio.shape != (1, self.model.config.proprio_dim):
                raise ValueError(
                    f"expected a joint state [1, {self.model.config.proprio_dim}], got {list(proprio.shape)}"
                )
            self._fill_context(self.model.proprio_encoder(proprio)[:, None], self._text_length)
            rows = slice(self._first, self._text_length + _PROPRIO_TOKENS)
        self._use_context(rows)
        self._observed = latents
        self._see(latents, self._video.modulations(-1), 0, None)

    @torch.inference_mode()
    def denoise(self, noise: Tensor, first: int = 0) -> Tensor:
        """Actions [1, H, action_dim], normalised, for the observation and the imagined video in use.

        Args:
            noise: [1, H, action_dim] at the noise level of step `first`.
            first: step to begin with.

        Raises:
            ValueError: noise of another shape, such as that of another horizon.
        """
        self._check_noise(noise)
        actions = noise
        for step in range(first, len(self._schedule.deltas)):
            actions = actions + self._schedule.deltas[step] * self._step(actions, self._action.modulations(step))
        return actions

    @torch.inference_mode()
    def imagine(self, noise: Tensor) -> Tensor:
        """The video [1, C, f, h, w] from `noise` of that shape, the given frames first; actions after it see it.

        Raises:
            ValueError: noise of another shape.
        """
        video = self._later_frames(noise)
        for step, delta in enumerate(self._video_schedule.deltas):
            video = video + delta * self._imagined(video, step)
        self._see(video, self._video.modulations(-1), self._given, None)
        return torch.cat([self._observed, video], dim=2)

    @torch.inference_mode()
    def imagine_and_denoise(self, video_noise: Tensor, noise: Tensor) -> Prediction:
        """Video and actions denoised together, step by step; see :meth:`imagine` and :meth:`denoise`."""
        self._check_noise(noise)
        video, actions = self._later_frames(video_noise), noise
        for step, deltas in enumerate(zip(self._video_schedule.deltas, self._schedule.deltas, strict=True)):
            velocity = self._imagined(video, step)
            actions = actions + deltas[1] * self._step(actions, self._action.modulations(step))
            video = video + deltas[0] * velocity
        return Prediction(actions, torch.cat([self._observed, video], dim=2))

    def denoise_guided(self, noise: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Like :meth:`denoise`, steered towards a running plan; costs a backward pass a step (arXiv 2506.07339).

        Args:
            noise: [1, H, action_dim].
            target: normalised running plan [1, H, action_dim].
            mask: [H] from :func:`fastwam_policy.model.realtime.soft_mask`.
        """
        self._check_noise(noise)
        actions = noise
        for step, sigma in enumerate((self._schedule.timesteps.double() / TRAIN_TIMESTEPS).tolist()):
            network = partial(self._run_step, modulations=self._action.modulations(step), keep=False)
            velocity = guided_velocity(network, actions, sigma, target, mask)
            actions = actions + self._schedule.deltas[step] * velocity
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
        for step, delta in enumerate(self._schedule.deltas):
            modulations = []
            for layer in self._action.layers:  # every step's own timestep: 0 where it is clean
                clean = layer.modulation[-1][:, None].expand(-1, given, -1)
                noisy = layer.modulation[step][:, None].expand(-1, noise.shape[1] - given, -1)
                modulations.append(torch.cat([clean, noisy], dim=1))
            velocity = self._run_step(actions, modulations)
            actions = torch.cat([prefix, (actions + delta * velocity)[:, given:]], dim=1)
        return actions

    def _check_noise(self, noise: Tensor) -> None:
        if noise.shape != self._noise_shape:
            raise ValueError(f"expected noise {list(self._noise_shape)} for this horizon, got {list(noise.shape)}")

    def _later_frames(self, noise: Tensor) -> Tensor:
        """Those of a noisy video that are not given."""
        if noise.shape != self._video_shape:
            raise ValueError(f"expected noise {list(self._video_shape)} for the video, got {list(noise.shape)}")
        return noise[:, :, self._given :]

    def _imagined(self, video: Tensor, step: int) -> Tensor:
        """Velocity of the later frames of a noisy video."""
        velocity = self._see(video, self._video.modulations(step), self._given, self._video.time[step])
        assert velocity is not None
        return velocity

    def _use_context(self, rows: slice) -> None:
        """Attend to these rows of the context from now on."""
        if rows.start == rows.stop:
            raise ValueError("the text mask hides every token, and there is no joint state: nothing to attend to")
        if rows == self._rows:
            return
        self._rows = rows
        for expert in (self._video, self._action):
            for index, layer in enumerate(expert.layers):
                layer.context = expert.context_keys[index][:, rows], expert.context_values[index][:, rows]
        if self._compiled:
            self._keep_addresses()

    def _keep_addresses(self) -> None:
        """CUDA graphs are not recorded where other inputs change."""
        for layer in (*self._video.layers, *self._action.layers):
            for kept in (layer.key, layer.value, *layer.context):
                torch._dynamo.mark_static_address(kept)  # noqa: SLF001  documented under this name

    def _fill_context(self, tokens: Tensor, place: int) -> None:
        """Keys and values of context `tokens` [1, L, text_dim], of all layers, into rows `place` and on."""
        rows = slice(place, place + tokens.shape[1])
        for expert in (self._video, self._action):
            both = expert.project_context(expert.expert.text_embedding(tokens))
            keys, values = both.unflatten(-1, (2, len(expert.layers), -1)).unbind(2)
            keys = self._rms(keys) * expert.context_norm
            for target, source in ((expert.context_keys, keys), (expert.context_values, values)):
                target[:, :, rows] = self._split(source).permute(2, 0, 1, 3, 4)

    def _run_video(
        self, latents: Tensor, modulations: Sequence[Tensor], first: int, time: Tensor | None
    ) -> Tensor | None:
        """Fill the keys and values of frames `first` and on, `latents` [1, C, f, h, w].

        With their embedded `time` [D], also the velocity [1, C, f, h, w].
        """
        grid = (latents.shape[2], *self._grid)
        x = self._tokens(latents, grid)
        start = first * self._frame_tokens
        rows = slice(start, start + x.shape[1])
        for layer, modulation in zip(self._video.layers, modulations, strict=True):
            ends = layer is self._video.layers[-1] and time is None
            x = self._layer(layer, x, modulation, self._video_rotary[rows], rows, only_keys=ends)
        return None if time is None else self.model.video.velocity(x, time[None, None], grid)

    def _run_step(self, actions: Tensor, modulations: Sequence[Tensor], *, keep: bool = True) -> Tensor:
        """Velocity of noisy actions [1, H, action_dim], for modulations [6, D] or [6, H, D] of each layer.

        `keep` writes keys and values in place, which is the faster way but cannot be differentiated.
        """
        x = self.model.action.action_encoder(actions)
        for layer, rows in zip(self._action.layers, modulations, strict=True):
            x = self._layer(layer, x, rows, self._action_rotary, self._action_rows, keep=keep)
        return self.model.action.head(x)

    def _tokens(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """As :meth:`VideoExpert.tokens`, as a linear layer."""
        video = self.model.video
        frames, rows, columns = grid
        patches = latents[0].unflatten(-1, (columns, video.patch)).unflatten(-3, (rows, video.patch))
        x = self._patches(patches.permute(1, 2, 4, 0, 3, 5).reshape(1, frames * rows * columns, -1))
        if video.position is None:
            return x
        return (x.unflatten(1, (frames, -1)) + video.position.flatten(3).transpose(1, 3)[..., 0, :]).flatten(1, 2)

    def _layer(
        self,
        layer: Layer,
        x: Tensor,
        modulation: Tensor,
        rotary: Tensor,
        rows: slice,
        *,
        keep: bool = True,
        only_keys: bool = False,
    ) -> Tensor:
        """Tokens [1, N, D] after a layer; they attend to the keys and values up to their own `rows`, and fill those."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(0)
        projected = layer.project(self._norm(x, scale1, shift1))
        turned = self._rms(projected[..., : 2 * self._width].unflatten(-1, (2, -1))) * layer.norm
        query, key = self._rotate(self._split(turned), rotary).unbind(2)
        value = self._split(projected[..., 2 * self._width :])
        if keep:
            layer.key[:, rows], layer.value[:, rows] = key, value
            key, value = layer.key[:, : rows.stop], layer.value[:, : rows.stop]
        else:
            earlier = slice(0, rows.start)
            key, value = torch.cat([layer.key[:, earlier], key], 1), torch.cat([layer.value[:, earlier], value], 1)
        if only_keys:
            return x
        x = torch.addcmul(x, layer.out(_attend(query, key, value)), gate1)
        query = self._rms(layer.cross_query(layer.block.norm3(x))) * layer.block.cross_attn.norm_q.weight
        x = layer.cross_out.added(_attend(self._split(query), *layer.context), x)
        return torch.addcmul(x, layer.narrow(layer.widen(self._norm(x, scale2, shift2))), gate2)

    def _split(self, x: Tensor) -> Tensor:
        """[..., A] -> [..., heads, head_dim]."""
        return x.unflatten(-1, (self._heads, -1))

    def _rms(self, x: Tensor) -> Tensor:
        """As :class:`RmsNorm`, but for its weight."""
        return F.rms_norm(x, (self._width,), eps=self._eps)

    def _norm(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Modulated layer norm; `scale` [D] or [N, D] already holds 1 + scale."""
        if scale.ndim == 1:
            return F.layer_norm(x, x.shape[-1:], scale, shift, eps=self._eps)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=self._eps), scale)

    def _rotate(self, x: Tensor, rotary: Tensor) -> Tensor:
        """Rotate adjacent pairs of `x` [1, N, 2, heads, head_dim]; in float32, returned like `x`."""
        pairs = x.float().unflatten(-1, (-1, 2))
        if self._compiled:  # the compiler has no complex numbers
            (even, odd), (cos, sin) = pairs.unbind(-1), rotary.unbind(-1)
            turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
        else:
            turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotary))
        return turned.flatten(-2).to(x.dtype)


def _table(rotary: Rotary) -> Tensor:
    """Cosine and sine for tokens [N, queries and keys, heads, head_dim / 2, 2]."""
    return torch.stack(rotary, dim=-1)[:, None, None]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [1, N, heads, head_dim] over [1, M, heads, head_dim], all of them visible: [1, N, A]."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _may_pack(model: FastWam, rows: int) -> bool:
    """Whether packed weights can be made of this model's, are a gain on this machine, and fit."""
    blocks = (model.video.blocks, model.action.blocks)
    weights = [weight for expert in blocks for weight in expert.parameters()]
    if model.device.type != "cpu" or any(type(weight) is not nn.Parameter for weight in weights):
        return False  # such as quantized ones
    config = model.config.video
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return packing_fits(size) and packing_pays(rows, config.hidden_dim, config.ffn_dim, model.dtype)
