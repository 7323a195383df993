"""The transformer block both experts are made of, with the parameter names of published checkpoints.

Shapes: B batch, N tokens, D hidden width of the expert, A = heads * head_dim attention width, L context tokens,
G groups of N / G tokens in a row that share a timestep, such as those of one frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name everybody uses

from fastwam_policy.model.config import ExpertConfig

KeyValue = tuple[Tensor, Tensor]
"""Keys and values, each [B, N, A]."""
Rotary = tuple[Tensor, Tensor]
"""Cosine and sine, each [N, head_dim / 2], float32."""


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding [..., dim] of `t` [...] in 0..1000, cosines first; in float64, returned like `t`."""
    half = dim // 2
    rates = torch.pow(10000.0, -torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = t.to(torch.float64)[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(t.dtype)


def rotary_angles(positions: Tensor, dim: int) -> Tensor:
    """Angles [N, dim / 2] in float64 of rotary embedding for `positions` [N]."""
    rates = torch.pow(10000.0, -torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
    return positions.to(torch.float64)[:, None] * rates


def action_rotary(horizon: int, head_dim: int, device: torch.device) -> Rotary:
    """Rotary table of action tokens: position = step."""
    angles = rotary_angles(torch.arange(horizon, device=device), head_dim)
    return angles.cos().float(), angles.sin().float()


def video_rotary(frames: int, rows: int, columns: int, head_dim: int, device: torch.device, first: int = 0) -> Rotary:
    """Rotary table of video tokens in (frame, row, column) order; the head is split into one part for each index.

    Frames count from `first`, so that the observation is always frame 0, and earlier ones are below it.
    """
    third = head_dim // 3
    grid = torch.meshgrid(
        torch.arange(first, first + frames, device=device),
        torch.arange(rows, device=device),
        torch.arange(columns, device=device),
        indexing="ij",
    )
    parts = (head_dim - 2 * third, third, third)
    angles = torch.cat([rotary_angles(index.flatten(), dim) for index, dim in zip(grid, parts, strict=True)], dim=1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, rotary: Rotary, num_heads: int) -> Tensor:
    """Rotate adjacent pairs of each head of `x` [B, N, A]; in float32, returned like `x`."""
    turns = torch.complex(*rotary)[:, None]
    pairs = torch.view_as_complex(x.float().unflatten(-1, (num_heads, -1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-3).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, mask: Tensor | None) -> Tensor:
    """Multi-head attention of `q` [B, N, A] over `k`, `v` [B, M, A]; `mask` is bool, [N, M] or [B, 1, N, M]."""
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # In bfloat16 the attention of a training step takes several times as long on a CPU as in float32.
        with torch.autocast("cpu", enabled=False):
            return attend(q.float(), k.float(), v.float(), num_heads, mask).to(q.dtype)
    q, k, v = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def scaled(x: Tensor, factor: Tensor, shift: Tensor | None = None) -> Tensor:
    """`x` [B, N, D] times `factor`, plus `shift`, both [B or 1, G, D]: one for each group, and copied for no token."""
    groups = x.unflatten(1, (factor.shape[1], -1)) * factor[:, :, None]
    return (groups if shift is None else groups + shift[:, :, None]).flatten(1, 2)


class RmsNorm(nn.Module):
    """Root-mean-square norm over the full attention width, all heads together; computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class Projections(nn.Module):
    """Query, key, value and output projections of one attention; the attention itself is shared between experts."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.q = nn.Linear(config.hidden_dim, config.attention_dim)
        self.k = nn.Linear(config.hidden_dim, config.attention_dim)
        self.v = nn.Linear(config.hidden_dim, config.attention_dim)
        self.o = nn.Linear(config.attention_dim, config.hidden_dim)
        self.norm_q = RmsNorm(config.attention_dim, config.eps)
        self.norm_k = RmsNorm(config.attention_dim, config.eps)

    def key_value(self, x: Tensor) -> KeyValue:
        """Normalised keys, and values, of `x` [B, N, D]."""
        return self.norm_k(self.k(x)), self.v(x)


class Block(nn.Module):
    """One layer of one expert, in two halves: before and after the attention it shares with the other expert."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.modulation = nn.Parameter(torch.randn(1, 6, config.hidden_dim) / config.hidden_dim**0.5)
        self.norm3 = nn.LayerNorm(config.hidden_dim, eps=config.eps)
        self.self_attn = Projections(config)
        self.cross_attn = Projections(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.hidden_dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.hidden_dim),
        )

    def modulate(self, t_mod: Tensor) -> tuple[Tensor, ...]:
        """(shift1, scale1, gate1, shift2, scale2, gate2), each [B, G, D], from `t_mod` [B, G, 6, D]."""
        return (self.modulation + t_mod).unbind(-2)

    def query_key_value(
        self, x: Tensor, modulation: tuple[Tensor, ...], rotary: Rotary
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each [B, N, A], of tokens `x` [B, N, D]."""
        shift, scale = modulation[:2]
        u = scaled(self._norm(x), 1 + scale, shift)
        key, value = self.self_attn.key_value(u)
        query = self.self_attn.norm_q(self.self_attn.q(u))
        heads = self.config.num_heads
        return rotate(query, rotary, heads), rotate(key, rotary, heads), value

    def finish(
        self,
        x: Tensor,
        attended: Tensor,
        modulation: tuple[Tensor, ...],
        context: KeyValue,
        context_mask: Tensor | None,
    ) -> Tensor:
        """Tokens [B, N, D] after this layer.

        Args:
            x: tokens before the layer [B, N, D].
            attended: result of the shared attention for these tokens [B, N, A].
            modulation: from :meth:`modulate`.
            context: this layer's keys and values of the context tokens, each [B, L, A].
            context_mask: bool [B, 1, 1, L], None where all is visible.
        """
        gate1, shift2, scale2, gate2 = modulation[2:]
        x = x + scaled(self.self_attn.o(attended), gate1)
        query = self.cross_attn.norm_q(self.cross_attn.q(self.norm3(x)))
        x = x + self.cross_attn.o(attend(query, *context, self.config.num_heads, context_mask))
        return x + scaled(self.ffn(scaled(self._norm(x), 1 + scale2, shift2)), gate2)

    def _norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.config.hidden_dim,), eps=self.config.eps)
