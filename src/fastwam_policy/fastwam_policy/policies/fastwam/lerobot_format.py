"""LeRobot's own Fast-WAM on disk (lerobot 0.6): config.json, model.safetensors, and the two processors.

config.json                          sizes, schedules and prompt
model.safetensors                    both experts and the proprioception encoder, under LeRobot's names
policy_preprocessor.json, _post...   steps before and after the network; the normalisation's statistics lie beside them
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from safetensors.torch import save_file
from torch import Tensor

from fastwam_policy.common.json_files import read_json
from fastwam_policy.model.checkpoint import CheckpointError, load_tensors
from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.policies.fastwam.bundle import PROMPT_TEMPLATE
from fastwam_policy.policies.fastwam.normalizer import Normalization
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
ABOUT_FILE = "fastwam.yaml"
"""Ours, beside LeRobot's: what those do not say."""
MODES: dict[str, Normalization] = {"MEAN_STD": "z-score", "MIN_MAX": "min_max", "QUANTILES": "q01_q99"}
FIGURES = ("mean", "std", "min", "max", "q01", "q99")
TIMESTEPS = 1000
DEGENERATE = 1e-4
"""A smaller range between bounds is stretched by LeRobot, and only shifted by a bundle."""
Kind = Literal["state", "action"]
KINDS: tuple[Kind, ...] = ("state", "action")
Figures = dict[str, NDArray[np.float64]]

_FEATURES: dict[Kind, str] = {"state": "observation.state", "action": "action"}
_PREPROCESSOR, _POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
_NORMALIZERS = {_PREPROCESSOR: "normalizer_processor", _POSTPROCESSOR: "unnormalizer_processor"}
_HARMLESS = {"rename_observations_processor", "to_batch_processor", "device_processor"}  # they change no number
_BLOCK = re.compile(r"model\.mot\.layers\.(\d+)\.blocks\.(video|action)\.")
_OURS = re.compile(r"(video|action)\.blocks\.(\d+)\.")
_BEGINNINGS = ("model.mot.mixtures.", "model.")  # experts, with the blocks of the legacy layout; proprio_encoder


class _Model(BaseModel):
    """Keys that say nothing about the numbers are passed over; lerobot itself refuses those it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Expert(_Model):
    """`video_dit_config` and `action_dit_config`."""

    hidden_dim: int
    ffn_dim: int
    num_heads: int
    attn_head_dim: int
    num_layers: int
    text_dim: int
    freq_dim: int
    eps: PositiveFloat
    patch_size: tuple[int, int, int] = (1, 2, 2)
    in_dim: int = 48
    out_dim: int = 48
    action_conditioned: bool = False
    video_attention_mask_mode: str = "first_frame_causal"

    @property
    def ours(self) -> ExpertConfig:
        """As a bundle says it."""
        return ExpertConfig(
            self.hidden_dim, self.ffn_dim, self.num_heads, self.attn_head_dim, self.num_layers, self.text_dim,
            self.freq_dim, self.eps,
        )  # fmt: skip


class Scheduler(_Model):
    """`video_scheduler` and `action_scheduler`."""

    infer_shift: PositiveFloat = 5.0
    num_train_timesteps: int = TIMESTEPS


class Feature(_Model):
    """One of `input_features`."""

    type: str
    shape: tuple[int, ...]


class Loss(_Model):
    """`loss`."""

    lambda_video: float = 1.0


class Step(_Model):
    """One of a processor's."""

    registry_name: str = "of a class of its own"
    config: dict[str, Any] = {}
    state_file: str | None = None


class Processor(_Model):
    """policy_preprocessor.json or policy_postprocessor.json."""

    steps: list[Step]


class LeRobotConfig(_Model):
    """What counts of config.json; defaults as in lerobot."""

    type: Literal["fastwam"]
    action_dim: PositiveInt = 7
    proprio_dim: PositiveInt | None = 8
    action_horizon: PositiveInt = 32
    num_video_frames: PositiveInt = 33
    action_video_freq_ratio: PositiveInt = 4
    image_size: tuple[PositiveInt, PositiveInt] = (224, 448)
    tokenizer_max_len: PositiveInt = 128
    torch_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    prompt_template: str = PROMPT_TEMPLATE
    num_inference_steps: PositiveInt = 10
    inference_seed: int | None = 42
    sigma_shift: PositiveFloat | None = None
    toggle_action_dimensions: list[int] = []
    video_scheduler: Scheduler = Scheduler()
    action_scheduler: Scheduler = Scheduler()
    loss: Loss = Loss()
    video_dit_config: Expert
    action_dit_config: Expert
    normalization_mapping: dict[str, str] = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    input_features: Annotated[dict[str, Feature], Field(min_length=1)]

    @property
    def images(self) -> list[str]:
        """Keys of the images, in the order in which lerobot sets them side by side."""
        return sorted(key for key, feature in self.input_features.items() if feature.type == "VISUAL")

    @property
    def model(self) -> ModelConfig:
        """Sizes of the network; ValueError where they cannot work together."""
        video = self.video_dit_config
        return ModelConfig(
            video.ours,
            self.action_dit_config.ours,
            self.action_dim,
            self.proprio_dim,
            video.in_dim,
            video.patch_size[1],
        )


def read_config(folder: Path) -> LeRobotConfig:
    """config.json of a checkpoint.

    Raises:
        ConfigError: not a Fast-WAM of LeRobot, or one that does what no bundle can say; a line for each reason.
    """
    config = validate(read_json(folder / CONFIG_FILE), LeRobotConfig, CONFIG_FILE)
    video, reasons = config.video_dit_config, []
    if config.toggle_action_dimensions:
        reasons.append(
            f"toggle_action_dimensions {config.toggle_action_dimensions}: LeRobot turns these actions into -1 or 1 "
            "after the network; this robot's grippers take positions"
        )
    if video.action_conditioned:
        reasons.append("video_dit_config.action_conditioned: its video sees the actions, which no variant here does")
    if video.video_attention_mask_mode != "first_frame_causal":
        reasons.append(
            "video_dit_config.video_attention_mask_mode: only first_frame_causal, got "
            f"{video.video_attention_mask_mode}"
        )
    if video.patch_size != (1, 2, 2) or video.in_dim != video.out_dim:
        reasons.append(
            f"video_dit_config: patches of 1 x 2 x 2 and as many channels out as in, got {video.patch_size}, "
            f"{video.in_dim} and {video.out_dim}"
        )
    schedules = {"video_scheduler": config.video_scheduler, "action_scheduler": config.action_scheduler}
    reasons += [
        f"{name}.num_train_timesteps must be {TIMESTEPS}, got {schedule.num_train_timesteps}"
        for name, schedule in schedules.items()
        if schedule.num_train_timesteps != TIMESTEPS
    ]
    if config.num_video_frames != config.action_horizon + 1:
        reasons.append(
            f"num_video_frames must be action_horizon + 1, a video over the whole chunk; got {config.num_video_frames} "
            f"and {config.action_horizon}"
        )
    if reasons:
        raise ConfigError("\n".join(f"{folder / CONFIG_FILE}: {reason}" for reason in reasons))
    return config


def from_lerobot(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Parameters of FastWam from LeRobot's, in its present layout or the legacy one.

    Raises:
        CheckpointError: a parameter is there in both.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = _BLOCK.sub(r"\2.blocks.\1.", name)
        for beginning in _BEGINNINGS:
            ours = ours.removeprefix(beginning)
        if ours in result:
            raise CheckpointError(f"{source}: {ours} is there twice, under two layouts of LeRobot")
        result[ours] = tensor
    return result


def to_lerobot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LeRobot's names, in its present layout."""

    def theirs(name: str) -> str:
        if name.startswith("proprio_encoder."):
            return f"model.{name}"
        renamed = _OURS.sub(r"model.mot.layers.\2.blocks.\1.", name)
        return renamed if renamed != name else f"model.mot.mixtures.{name}"

    return {theirs(name): tensor for name, tensor in tensors.items()}


def read_statistics(folder: Path, config: LeRobotConfig, kind: Kind) -> tuple[Normalization, Figures]:
    """How state or action is normalised, and all figures that the checkpoint has of it, float64 [D] each.

    Raises:
        ConfigError: a processor is missing, does something else to the numbers, or lacks the figures that it needs.
    """
    processor = _PREPROCESSOR if kind == "state" else _POSTPROCESSOR
    path = folder / f"{processor}.json"
    found = None
    for step in validate(read_json(path), Processor, path.name).steps:
        if step.registry_name == _NORMALIZERS[processor]:
            found = step
        elif step.registry_name not in _HARMLESS:
            raise ConfigError(f"{path}: a bundle cannot say what the step {step.registry_name} does to the numbers")
    if found is None or found.state_file is None:
        raise ConfigError(f"{path}: no step {_NORMALIZERS[processor]} with a state_file: there are no statistics")
    modes = config.normalization_mapping | found.config.get("norm_map", {})
    if modes.get("VISUAL", "IDENTITY") != "IDENTITY":
        raise ConfigError(f"{path}: images are normalised by {modes['VISUAL']}; a bundle takes them from -1 to 1")
    mode = modes.get(kind.upper(), "IDENTITY")
    if mode not in MODES:
        raise ConfigError(f"{path}: {kind} is normalised by {mode}; a bundle knows {', '.join(MODES)}")
    state_file = path.with_name(Path(found.state_file).name)
    try:
        tensors = load_tensors(state_file)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    keys = {name: f"{_FEATURES[kind]}.{name}" for name in FIGURES}
    figures = {name: tensors[key].double().numpy() for name, key in keys.items() if key in tensors}
    needed = {"z-score": FIGURES[:2], "min_max": FIGURES[2:4], "q01_q99": FIGURES[4:]}[MODES[mode]]
    if missing := [keys[name] for name in needed if name not in figures]:
        raise ConfigError(f"{state_file}: {mode} needs {' and '.join(missing)}, which are missing")
    size = config.action_dim if kind == "action" else config.proprio_dim
    if wrong := {keys[name]: list(value.shape) for name, value in figures.items() if value.shape != (size,)}:
        raise ConfigError(f"{state_file}: expected {size} numbers of {kind}, got {wrong}")
    return MODES[mode], figures


def write_processors(
    folder: Path, features: Mapping[str, Any], modes: Mapping[str, str], statistics: Mapping[Kind, Figures]
) -> None:
    """Both processors; `features` as in config.json, `modes` and figures of state and action."""
    tensors = {
        f"{_FEATURES[kind]}.{name}": torch.from_numpy(value.astype(np.float32))
        for kind, figures in statistics.items()
        for name, value in figures.items()
    }
    norm = {"eps": 1e-8, "features": features, "norm_map": modes}
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    for processor, before, after in (
        (_PREPROCESSOR, [
            {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
            {"registry_name": "to_batch_processor", "config": {}},
            device,
        ], []),
        (_POSTPROCESSOR, [], [device]),
    ):  # fmt: skip
        name = _NORMALIZERS[processor]
        state_file = f"{processor}_step_{len(before)}_{name}.safetensors"
        steps = [*before, {"registry_name": name, "config": norm, "state_file": state_file}, *after]
        save_file(tensors, folder / state_file)
        _write_json(folder / f"{processor}.json", {"name": processor, "steps": steps})


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """config.json."""
    _write_json(folder / CONFIG_FILE, config)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8")
