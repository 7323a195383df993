"""Official checkpoints to bundles and back, without a second copy in memory."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_weights, read_tensors
from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.vae import load_official_vae
from fastwam_policy.model.variants import VariantName
from fastwam_policy.policies.fastwam.bundle import (
    FORMAT,
    POLICY_FILE,
    PROMPT_TEMPLATE,
    STATISTICS_FILE,
    Bundle,
    BundleConfig,
    save_embedding,
)
from fastwam_policy.policies.fastwam.canvas import ROBOTWIN
from fastwam_policy.policies.fastwam.normalizer import Normalization, load_statistics
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

_PROMPT_LENGTH = 128


@dataclass(frozen=True)
class Description:
    """What a checkpoint does not say about itself.

    Attributes:
        name: of the bundle.
        sigma_shift: of the actions; must be stated, because released checkpoints differ.
        head_dim: width of one attention head; the weights' shapes tell only the product with the number of heads.
        groups: joint groups of config/r1lite.yaml in the checkpoint's order.
        normalization: mode of state and action.
        variant: how it was trained.
        denoise_steps: for a chunk.
        horizon: steps of a chunk.
        fps: their rate, Hz.
        instruction: default task.
    """

    name: str
    sigma_shift: float | None
    head_dim: int
    groups: tuple[str, ...]
    normalization: Normalization
    variant: VariantName
    denoise_steps: int
    horizon: int
    fps: float
    instruction: str


def import_official(
    checkpoint: Path, statistics: Path, vae: Path, folder: Path, robot: RobotConfig, about: Description
) -> None:
    """Write a bundle into `folder`, which must not exist or be empty.

    The weights are checked from disk, name by name, and copied as the file they are: bit for bit, and never in memory.

    Raises:
        ConfigError: anything does not fit; nothing is written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; name a new or empty folder")
    if about.sigma_shift is None:
        raise ConfigError(
            "the action sigma shift must be stated, a checkpoint does not hold it: --sigma-shift 5.0 for the first "
            "released checkpoints, --sigma-shift 1.0 for later ones. A wrong one runs, and moves wrongly"
        )
    unknown = [group for group in about.groups if group not in robot.commanded]
    if unknown:
        raise ConfigError(f"groups: the robot has no {', '.join(unknown)}; it has {', '.join(robot.commanded)}")
    try:
        tensors = load_weights(checkpoint)
        model = infer_model_config(tensors, about.head_dim)
        with torch.device("meta"):
            load_into(FastWam(model), tensors, str(checkpoint))
        autoencoder = load_official_vae(vae)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    joints = [joint for group in about.groups for joint in robot.groups[group].joints]
    units = [robot.groups[group].unit for group in about.groups for _ in robot.groups[group].joints]
    for kind, dim in (("state", model.proprio_dim), ("action", model.action_dim)):
        if dim is not None and dim != len(joints):
            raise ConfigError(
                f"{checkpoint}: its {kind} has {dim} numbers, the groups {', '.join(about.groups)} have {len(joints)}"
            )
        load_statistics(statistics, "state" if kind == "state" else "action", joints, about.normalization)
    weights = f"model{checkpoint.suffix}"
    vector = {"names": joints, "units": units, "normalization": about.normalization}
    policy = {
        "format": FORMAT,
        "name": about.name,
        "description": f"Imported from {checkpoint.name}",
        "origin": "official",
        "robot_type": robot.robot_type,
        "variant": about.variant,
        "model": dataclasses.asdict(model),
        "weights": weights,
        "horizon": about.horizon,
        "fps": about.fps,
        "denoise_steps": about.denoise_steps,
        "sigma_shift": about.sigma_shift,
        "video_sigma_shift": 5.0,
        "video_frames": 9,
        "seed": 0,
        "layout": ROBOTWIN.model_dump(),
        "state": vector,
        "action": vector,
        "prompt": {"template": PROMPT_TEMPLATE, "length": _PROMPT_LENGTH, "default_instruction": about.instruction},
    }
    config = validate(policy, BundleConfig, POLICY_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint, folder / weights)
    shutil.copyfile(statistics, folder / STATISTICS_FILE)
    autoencoder.save_pretrained(folder / "vae")
    # Last: a folder without policy.yaml is not taken for a bundle if this is interrupted.
    (folder / POLICY_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def export_official(folder: Path, config: BundleConfig, target: Path) -> None:
    """Write a bundle's weights in the official format, loadable by the authors' code.

    Raises:
        ConfigError: the target exists, or the weights cannot be read.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already; name another file")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target}: {target.absolute().parent} is no folder; create it, or name another place")
    source = folder / config.weights
    try:
        if source.suffix != ".safetensors":
            load_weights(source)
            shutil.copyfile(source, target)
            return
        tensors = read_tensors(source)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    proprio = {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith("proprio_encoder.")}
    mot = {f"mixtures.{name}": value for name, value in tensors.items() if not name.startswith("proprio_encoder.")}
    dtype = str(next(iter(tensors.values())).dtype)
    payload = {"mot": mot, "proprio_encoder": proprio or None, "step": 0, "torch_dtype": dtype}
    partial = target.with_suffix(target.suffix + ".partial")
    torch.save(payload, partial)
    partial.rename(target)


def add_embedding(folder: Path, instruction: str, text_encoder: Path, tokenizer: Path) -> str:
    """Embed an instruction and write it into a bundle; returns the whole prompt.

    Raises:
        ConfigError: the text encoder or tokenizer cannot be read, or is of another width than the bundle's model.
    """
    from transformers import AutoTokenizer

    from fastwam_policy.model.text_encoder import encode_prompt, load_official_text_encoder

    config = Bundle.read_config(folder)
    try:
        encoder = load_official_text_encoder(text_encoder)
        words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    except (CheckpointError, OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if encoder.config.d_model != config.model.video.text_dim:
        raise ConfigError(
            f"the text encoder is {encoder.config.d_model} wide, the bundle needs {config.model.video.text_dim}"
        )
    prompt = config.prompt_of(instruction)
    save_embedding(folder, prompt, *encode_prompt(encoder, words, prompt, config.prompt.length))
    return prompt


def infer_model_config(tensors: Mapping[str, Tensor], head_dim: int) -> ModelConfig:
    """Sizes of a model from the shapes of its weights.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or the width is no multiple of `head_dim`.
    """
    try:
        experts = {}
        for name in ("video", "action"):
            width = tensors[f"{name}.blocks.0.self_attn.q.weight"].shape[0]
            if width % head_dim:
                raise CheckpointError(
                    f"head_dim {head_dim} does not divide the attention width {width} of the checkpoint"
                )
            layers = [int(m[1]) for key in tensors if (m := re.match(rf"{name}\.blocks\.(\d+)\.", key))]
            hidden, text_dim = tensors[f"{name}.text_embedding.0.weight"].shape
            experts[name] = ExpertConfig(
                hidden_dim=hidden,
                ffn_dim=tensors[f"{name}.blocks.0.ffn.0.weight"].shape[0],
                num_heads=width // head_dim,
                head_dim=head_dim,
                num_layers=max(layers) + 1,
                text_dim=text_dim,
                freq_dim=tensors[f"{name}.time_embedding.0.weight"].shape[1],
            )
        proprio = tensors.get("proprio_encoder.weight")
        return ModelConfig(
            experts["video"],
            experts["action"],
            action_dim=tensors["action.action_encoder.weight"].shape[1],
            proprio_dim=None if proprio is None else proprio.shape[1],
            latent_channels=tensors["video.patch_embedding.weight"].shape[1],
        )
    except KeyError as error:
        raise CheckpointError(f"not a Fast-WAM checkpoint: {error} is missing") from None
    except ValueError as error:
        raise CheckpointError(str(error)) from None
