"""The two experts: what enters and leaves their blocks. Parameter names are those of published checkpoints."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.model.layers import Block, KeyValue, scaled, timestep_embedding


class Expert(nn.Module):
    """What both experts share: time and text embedding, and the blocks."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_dim
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    def embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Time embedding [..., D] and block modulation [..., 6, D] of `t` [...] in 0..1000 (in the model's dtype)."""
        embedding = self.time_embedding(timestep_embedding(t, self.config.freq_dim))
        return embedding, self.time_projection(embedding).unflatten(-1, (6, -1))

    def context_key_values(self, context: Tensor) -> list[KeyValue]:
        """Each layer's cross-attention keys and values of `context` [B, L, text_dim]."""
        embedded = self.text_embedding(context)
        return [self.block(layer).cross_attn.key_value(embedded) for layer in range(self.config.num_layers)]

    def block(self, layer: int) -> Block:
        """One layer."""
        return cast(Block, self.blocks[layer])


class VideoHead(nn.Module):
    """Modulated linear output of the video expert."""

    def __init__(self, config: ExpertConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        self.modulation = nn.Parameter(torch.randn(1, 2, config.hidden_dim) / config.hidden_dim**0.5)
        self.head = nn.Linear(config.hidden_dim, out_dim)

    def forward(self, x: Tensor, t_embedding: Tensor) -> Tensor:
        """[B, N, D] and [B, G, D] -> [B, N, out_dim]."""
        shift, scale = (self.modulation + t_embedding[..., None, :]).unbind(-2)
        return self.head(scaled(F.layer_norm(x, (self.config.hidden_dim,), eps=self.config.eps), 1 + scale, shift))


class VideoExpert(Expert):
    """Latent video to tokens and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.video)
        self.channels, self.patch = config.latent_channels, config.patch
        window = (1, config.patch, config.patch)
        self.patch_embedding = nn.Conv3d(config.latent_channels, config.video.hidden_dim, window, stride=window)
        self.head = VideoHead(config.video, config.latent_channels * config.patch**2)
        self.position = None
        if config.positions is not None:
            self.position = nn.Parameter(_sines(*config.positions, config.video.hidden_dim))

    def tokens(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> tokens [B, f * h/2 * w/2, D] in (frame, row, column) order."""
        patches = self.patch_embedding(latents)
        if self.position is not None:
            patches = patches + self.position
        return patches.flatten(2).transpose(1, 2)

    def velocity(self, x: Tensor, t_embedding: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens after the last block -> velocity [B, C, f, h, w]; `grid` is (f, h/2, w/2)."""
        frames, rows, columns = grid
        out = self.head(x, t_embedding).view(len(x), frames, rows, columns, self.patch, self.patch, self.channels)
        return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(
            len(x), self.channels, frames, rows * self.patch, columns * self.patch
        )


def _sines(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [1, width, 1, rows, columns]: where learned positions start from."""

    def along(count: int, size: int) -> Tensor:
        rates = 1.5 * torch.pow(30.0, -torch.arange(size // 2) / (size // 2))  # rad a token
        angles = torch.arange(count)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    half = width // 2
    row, column = along(rows, half)[:, None], along(columns, width - half)[None]
    both = torch.cat([row.expand(-1, columns, -1), column.expand(rows, -1, -1)], dim=2)
    return both.permute(2, 0, 1)[None, :, None].contiguous()


class ActionExpert(Expert):
    """Noisy actions to tokens and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.action)
        self.action_encoder = nn.Linear(config.action_dim, config.action.hidden_dim)
        self.head = nn.Linear(config.action.hidden_dim, config.action_dim)
