"""What the training of the full model needs on each GPU: python scripts/training_memory.py --memory 80.

Weights, gradients, AdamW's figures and averages are counted; activations are those that the training's own loss saves
for the backward pass, run on PyTorch's meta device, which holds no numbers. Fragmentation and the CUDA context are left
out: `RESERVE` stands for them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import get_args
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.training_loss import Batch, Draws, TimestepSampler, training_loss
from fastwam_policy.training.trained import Trained, choose_trained, hold_frozen

GPUS = (1, 2, 4, 8, 64)
# Bytes of a weight that is trained: gradient and average in float32, and two figures of AdamW.
LEARNED = {"adamw": 2 * 4 + 2 * 4, "adamw_8bit": 2 * 4 + 2}
LORA_RANK = 16
RESERVE = 6.0  # GB
TEXT, HORIZON = 128, 32  # tokens, actions
LATENTS = (3, 24, 20)  # frames, rows, columns: 9 video frames of 384x320, as in the official RoboTwin policy
ELSEWHERE = torch.device("meta")


class _Attention(torch.autograd.Function):
    """What a fused attention keeps: its inputs and result, and no matrix of weights."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ANN001
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN001
        q, k, v, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def activations(model: FastWam, batch: int, *, checkpointing: bool) -> float:
    """GB that one forward pass keeps for its backward pass, with activations in bfloat16."""
    model.gradient_checkpointing = checkpointing
    model.train()
    kept: dict[int, int] = {}
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}  # noqa: SLF001

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage())._cdata not in weights:  # noqa: SLF001
            held.append(tensor)  # so that no other storage gets its number
            kept[storage._cdata] = storage.nbytes()  # noqa: SLF001
        return tensor

    held: list[Tensor] = []
    config = model.config
    like = {"device": ELSEWHERE, "dtype": torch.bfloat16}
    latents = torch.empty(batch, config.latent_channels, *LATENTS, **like)
    actions = torch.empty(batch, HORIZON, config.action_dim, **like)
    observed = Batch(
        latents, torch.empty(batch, TEXT, config.video.text_dim, **like), torch.ones(batch, TEXT, dtype=torch.bool),
        torch.empty(batch, config.proprio_dim or 0, **like), actions,
    )  # fmt: skip
    drawn = Draws(latents, torch.empty(batch, **like), actions, torch.empty(batch, 1, **like))
    with (
        patch.object(functional, "scaled_dot_product_attention", lambda q, k, v, **_: _Attention.apply(q, k, v)),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        training_loss(model, "first_frame", observed, drawn, TimestepSampler(5.0))
    return sum(kept.values()) / 1e9


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=float, default=80, help="GB of a GPU (default 80)")
    parser.add_argument("--size", choices=list(PRESETS), default="full")
    parser.add_argument("--trained", choices=get_args(Trained), default="all", help="as in a training's configuration")
    parser.add_argument("--frozen-as", choices=["float32", "bfloat16"], default="float32", help="the same")
    parser.add_argument("--optimizer", choices=list(LEARNED), default="adamw", help="the same")
    given = parser.parse_args()
    with ELSEWHERE:
        model = FastWam(replace(PRESETS[given.size]))
        choose_trained(model, given.trained, LORA_RANK)
        hold_frozen(model, getattr(torch, given.frozen_as))
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    copied = sum(weight.numel() for weight in model.parameters() if weight.dtype == torch.float32)
    model.to(torch.bfloat16)
    count = sum(weight.numel() for weight in model.parameters())
    learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    # Of one observation less is copied than of each of several.
    two, three = ({way: activations(model, batch, checkpointing=way) for way in (False, True)} for batch in (2, 3))
    each = {way: three[way] - two[way] for way in two}
    each[True] += each[False] / model.config.video.num_layers  # the layer that is computed again
    # In bfloat16, while a step runs, of what is not held so: the shipped configuration shards the model as one unit.
    whole = 2 * (copied + learned) / 1e9
    print(
        f"{count / 1e9:.2f} billion weights, {learned / 1e9:.2f} trained. An observation's activations: "
        f"{each[False]:.1f} GB, or {each[True]:.2f} GB with gradient_checkpointing; bfloat16 weights and their "
        f"gradients: {whole:.0f} GB\n"
    )
    print("| GPUs | weights, gradients, Adam, averages on each | batch_size that fits | with checkpointing |")
    print("|---|---|---|---|")
    sharded = given.frozen_as == "float32" and given.optimizer == "adamw"  # FSDP knows no other
    for gpus in GPUS if sharded else GPUS[:1]:
        share = (weights + learned * LEARNED[given.optimizer]) / gpus / 1e9
        free = given.memory - RESERVE - share - whole
        fits = [max(0, int(free / each[way])) for way in (False, True)]
        print(f"| {gpus} | {share:.1f} GB | {fits[0] or 'none'} | {fits[1] or 'none'} |")


if __name__ == "__main__":
    main()
