"""The text embeddings of a training's instructions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from fastwam_policy.policies.fastwam.bundle import POLICY_FILE, BundleConfig, load_embeddings
from fastwam_policy.training.config import TrainingConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def embeddings(config: TrainingConfig, output: Path, tasks: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """By prompt, the text embedding [L, text_dim] and mask [L] of each task, which is an instruction.

    Those of `text_embeddings`; without it, those of the weights that it starts from or goes on with, and random ones.

    Raises:
        ConfigError: one is missing in `text_embeddings`.
    """
    policy = config.policy
    prompts = [policy.prompt_of(task) for task in sorted(tasks)]
    if config.text_embeddings is not None:
        found = load_embeddings(config.text_embeddings, policy)
        if missing := [prompt for prompt in prompts if prompt not in found]:
            raise ConfigError(
                f"{config.text_embeddings}: no embedding of: {'; '.join(missing)}. `fastwam encode-prompt` makes them"
            )
        return {prompt: found[prompt] for prompt in prompts}
    known: dict[str, tuple[Tensor, Tensor]] = {}  # what the weights learned stays as it is
    for folder in (config.start_from, output / "bundle"):
        if folder is not None and (folder / POLICY_FILE).is_file():
            known |= load_embeddings(folder / "text_embeddings", policy)
    return {prompt: known[prompt] if prompt in known else _random_embedding(prompt, policy) for prompt in prompts}


def _random_embedding(prompt: str, policy: BundleConfig) -> tuple[Tensor, Tensor]:
    """A random embedding that depends on the prompt only."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:7], "big")
    shape = (policy.prompt.length, policy.model.video.text_dim)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.ones(policy.prompt.length, dtype=torch.bool)
