"""The layers of an expert with everything about them that does not change between two observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fastwam_policy.model.experts import Expert
from fastwam_policy.model.layers import Block, KeyValue
from fastwam_policy.policies.fastwam.linears import Linears


@dataclass
class Layer:
    """One block with everything about it that does not change between two observations."""

    block: Block
    modulation: Tensor
    """[steps + 1, 6, D], the last one for timestep 0. Rows 1 and 4 hold 1 + scale."""
    norm: Tensor
    """[2, A], of queries and keys."""
    project: Linears
    """To queries, keys and values, side by side."""
    out: Linears
    cross_query: Linears
    cross_out: Linears
    widen: Linears
    """First half of the MLP, with its GELU."""
    narrow: Linears
    key: Tensor
    value: Tensor
    """[1, M, heads, head_dim] of all tokens, frame after frame and then the actions; filled in place."""
    context: KeyValue
    """[1, L, heads, head_dim], the rows in use."""


class PreparedExpert:
    """Layers of one expert, and its share of the context.

    Args:
        expert: of the model.
        timesteps: [steps + 1] of its denoise steps, and 0.
        keys_values: of all tokens, a pair a layer.
        context: tokens that there is room for.
        rows: tokens with which weights are packed; None leaves the weights as they are.
    """

    def __init__(
        self, expert: Expert, timesteps: Tensor, keys_values: Sequence[KeyValue], context: int, rows: int | None
    ) -> None:
        config = expert.config
        self.expert = expert
        self.time, t_mod = expert.embed_time(timesteps)
        shape = (config.num_layers, 1, context, config.num_heads, config.head_dim)
        self.context_keys, self.context_values = (t_mod.new_empty(shape) for _ in range(2))
        """[layers, 1, L + 1, heads, head_dim]: room for the prompt's tokens, up to row L, and the joint state's."""
        blocks = [expert.block(index) for index in range(config.num_layers)]
        cross = [block.cross_attn for block in blocks]
        self.context_norm = torch.stack([attention.norm_k.weight for attention in cross])
        self.project_context = Linears([_map(attention.k) for attention in cross] + [_map(a.v) for a in cross], rows)
        self.layers = [
            Layer(
                block,
                _modulation(block, t_mod),
                torch.stack([block.self_attn.norm_q.weight, block.self_attn.norm_k.weight]),
                Linears([_map(module) for module in (block.self_attn.q, block.self_attn.k, block.self_attn.v)], rows),
                Linears([_map(block.self_attn.o)], rows),
                Linears([_map(block.cross_attn.q)], rows),
                Linears([_map(block.cross_attn.o)], rows),
                Linears([_map(cast(nn.Linear, block.ffn[0]))], rows, gelu=True),
                Linears([_map(cast(nn.Linear, block.ffn[2]))], rows),
                *key_value,
                (self.context_keys[index], self.context_values[index]),
            )
            for index, (block, key_value) in enumerate(zip(blocks, keys_values, strict=True))
        ]

    def modulations(self, step: int) -> list[Tensor]:
        """[6, D] of each layer; step -1 is timestep 0."""
        return [layer.modulation[step] for layer in self.layers]


def _map(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight, linear.bias


def _modulation(block: Block, t_mod: Tensor) -> Tensor:
    modulation = block.modulation + t_mod
    modulation[:, (1, 4)] += 1
    return modulation
