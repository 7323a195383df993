"""The configuration of `fastwam train`: a YAML file such as config/training/towel.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from fastwam_policy.common.settings import Uncompared
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from fastwam_policy.training.optimizer import OptimizerName
from fastwam_policy.training.precision import Precision
from fastwam_policy.training.trained import Trained
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, read_text, read_yaml, validate


class TrainingConfig(StrictModel):
    """Everything that decides what comes out of a training. Paths are relative to the working folder.

    A new option has the default that keeps old outputs what they are, and is `Uncompared` where it changes no result.
    """

    policy: BundleConfig
    """What the trained bundle will say of itself."""
    datasets: list[Path | Annotated[str, StringConstraints(pattern="://")]] = Field(min_length=1)
    """LeRobot datasets, version 2.1 or 3.0: folders, or addresses that fsspec opens."""
    autoencoder: Uncompared[Path]
    """Folder in diffusers' format: from train-autoencoder, or `vae/` of an imported bundle. Its files are compared."""
    text_embeddings: Path | None = None
    """Folder of embeddings of all instructions, as in a bundle; null: a fixed random one, for a task of its own."""
    start_from: Path | None = None
    """Bundle to fine-tune, or official Wan2.2 video weights; null: from scratch."""
    start_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the weights of `start_from` in those that are validated and written (arXiv 2109.01903)."""
    keep_statistics: bool = False
    """Normalise as the bundle in `start_from` does, whose weights mean that: for few new data, whose own differ."""

    trained: Trained = "all"
    """all weights; the action expert alone; or lora: small matrices beside both experts' blocks, which needs peft."""
    lora_rank: PositiveInt = 16
    frozen_as: Literal["float32", "bfloat16"] = "float32"
    """Type in which the blocks hold what is not trained; bfloat16 takes half of the memory, with `precision: bf16`."""

    steps: PositiveInt
    batch_size: PositiveInt
    """Observations a step and process."""
    action_draws: PositiveInt = 1
    """Draws of noise for the actions of each observation: it passes the video expert once for all of them."""
    optimizer: OptimizerName = "adamw"
    """AdamW; adamw_8bit: its figures in 8 bit, a quarter of their memory. Needs bitsandbytes, and no FSDP."""
    learning_rate: PositiveFloat = 1e-4
    warm_up: NonNegativeInt = 500
    """Steps until the learning rate is reached; then it falls as a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.01
    gradient_clip: PositiveFloat = 1.0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the averaged weights, which are what is validated and written; 0: none."""
    precision: Precision = "auto"
    """bf16: mixed; no: float32; auto: bf16 where the hardware computes with it, float32 elsewhere."""
    stored_as: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in the bundle."""
    gradient_checkpointing: Uncompared[bool] = False
    seed: NonNegativeInt = 0

    augmented: NonNegativeInt = 0
    """Versions of each episode's pictures besides its own: cropped, in other colour and light, blurred."""
    proprio_noise: NonNegativeFloat = 0.0
    """Deviation of noise on the joint state, as a share of its own deviation."""
    proprio_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of observations whose joint state is hidden: replaced by its mean."""
    approach_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of each batch from the frames before a gripper first closes; 0: as they come."""
    intervention_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of each batch from frames in which a person had taken over; 0: all frames as they come."""
    before_takeover: NonNegativeFloat = 2.0
    """s before a takeover whose frames are left out where `intervention_share` is given: they led there."""

    blind: bool = False
    """The mean of all pictures in place of each: a control, which learns what is to be had without seeing."""
    every: PositiveInt = 1
    """Frames from one observation to the next: those that a dataset has a new picture for. Actions are of all."""
    validation_share: float = Field(default=0.03, gt=0, le=0.5)
    """Share of the episodes that are left out of training: every n-th, at least every second one."""
    validate_every: PositiveInt = 500
    checkpoint_every: Uncompared[PositiveInt] = 500
    """Steps; a kill loses at most so many."""
    log_with: Uncompared[Literal["tensorboard", "wandb", "trackio"]] = "tensorboard"
    """Where the figures of a running training go; the latter two are to be installed."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainingConfig:
        if self.start_share and self.start_from is None:
            raise ValueError("start_share: needs start_from, whose weights they are")
        if off := [steps for steps in self.policy.model.history if steps % self.every]:
            raise ValueError(
                f"policy.model.history: must be multiples of every, {self.every}, of which there are pictures; "
                f"got {off[0]}"
            )
        if self.policy.distilled_from is not None and self.trained != "action":
            raise ValueError(f"trained: a policy that is distilled_from another needs action, got {self.trained}")
        if self.frozen_as != "float32" and (self.trained == "all" or self.precision != "bf16"):
            raise ValueError(
                f"frozen_as: {self.frozen_as} needs trained: action or lora, and precision: bf16; "
                f"got {self.trained} and {self.precision}"
            )
        return self


def read_config(path: Path, entries: Sequence[str] = ()) -> TrainingConfig:
    """The configuration in a YAML file with some of its entries changed, as :func:`changed`.

    Raises:
        ConfigError: with one line for each wrong key.
    """
    data = read_yaml(read_text(path), str(path))
    return validate(changed(data, entries), TrainingConfig, path.name)


def changed(data: Any, entries: Sequence[str]) -> Any:
    """`data` with KEY=VALUE entries put in; a key is a path with dots, a value is YAML."""
    for entry in entries:
        key, separator, value = entry.partition("=")
        *parents, last = key.split(".")
        place = data
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not separator or not isinstance(place, dict):
            raise ConfigError(f"--set {entry}: expected KEY=VALUE with a key of the configuration")
        place[last] = read_yaml(value, f"--set {entry}")
    return data
