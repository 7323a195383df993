"""What `fastwam train` is told: a YAML file such as config/training/towel.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from fastwam_policy.policies.fastwam.bundle import BundleConfig
from galaxea_r1lite_bridge.robot.yaml_model import StrictModel


class TrainingConfig(StrictModel):
    """Everything that decides what comes out of a training. Paths are relative to the working folder."""

    policy: BundleConfig
    """What the trained bundle will say of itself."""
    datasets: list[Path] = Field(min_length=1)
    """LeRobot datasets, version 2.1 or 3.0."""
    autoencoder: Path
    """Folder in diffusers' format: from train-autoencoder, or `vae/` of an imported bundle."""
    text_embeddings: Path | None = None
    """Folder of embeddings of all instructions, as in a bundle; null: a fixed random one, for a task of its own."""
    start_from: Path | None = None
    """Bundle to fine-tune, or official Wan2.2 video weights; null: from scratch."""

    steps: PositiveInt
    batch_size: PositiveInt
    """Observations a step and process."""
    action_draws: PositiveInt = 1
    """Draws of noise for the actions of each observation: it passes the video expert once for all of them."""
    learning_rate: PositiveFloat = 1e-4
    warm_up: NonNegativeInt = 500
    """Steps until the learning rate is reached; then it falls as a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.01
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged weights, which are what is validated and written; 0: none."""
    precision: Literal["no", "bf16"] = "bf16"
    stored_as: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in the bundle."""
    gradient_checkpointing: bool = False
    seed: NonNegativeInt = 0

    proprio_noise: NonNegativeFloat = 0.0
    """Deviation of noise on the joint state, as a share of its own deviation."""
    proprio_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of observations whose joint state is hidden: replaced by its mean."""
    approach_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of each batch from the frames before a gripper first closes; 0: as they come."""

    validation_share: float = Field(default=0.03, gt=0, lt=1)
    """Share of the episodes that are left out of training."""
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    """Steps; a kill loses at most so many."""
