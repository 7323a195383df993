"""Official checkpoints to bundles and back, without a second copy in memory."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from torch import Tensor

from fastwam_policy.common.files import require_space
from fastwam_policy.model.checkpoint import CheckpointError, from_official, load_into, read_tensors
from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.vae import load_official_vae, sizes_unlike_official
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
from fastwam_policy.policies.fastwam.embodiments import Embodiment
from fastwam_policy.policies.fastwam.normalizer import load_statistics
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

_PROMPT_LENGTH = 128
_HEAD_DIM = "head_dim"  # of our own exports, which the authors' loader passes over
_PUBLISHED_HEADS = {3072: 128}  # width of a head by that of the attention: Wan2.2, from which official ones start


@dataclass(frozen=True)
class Description:
    """What a checkpoint does not say about itself.

    Attributes:
        name: of the bundle.
        sigma_shift: of the actions; must be stated, because released checkpoints differ.
        head_dim: width of one attention head; the weights' shapes tell only the product with the number of heads. None:
            as the file or the published width says.
        embodiment: what its pictures and numbers belong to.
        variant: how it was trained.
        denoise_steps: for a chunk.
        horizon: steps of a chunk.
        instruction: default task.
    """

    name: str
    sigma_shift: float | None
    head_dim: int | None
    embodiment: Embodiment
    variant: VariantName
    denoise_steps: int
    horizon: int
    instruction: str


def import_official(checkpoint: Path, statistics: Path, vae: Path, folder: Path, about: Description) -> None:
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
    body = about.embodiment
    try:
        payload = read_tensors(checkpoint)
        tensors = payload if checkpoint.suffix == ".safetensors" else from_official(payload, checkpoint)
        model = infer_model_config(tensors, about.head_dim, payload.get(_HEAD_DIM))
        with torch.device("meta"):
            load_into(FastWam(model), tensors, str(checkpoint))
        autoencoder = load_official_vae(vae)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    kinds: tuple[Literal["state", "action"], ...] = ("state", "action")
    for kind, dim, vector in zip(kinds, (model.proprio_dim, model.action_dim), (body.state, body.action), strict=True):
        if dim is not None and dim != len(vector.names):
            raise ConfigError(
                f"{checkpoint}: its {kind} has {dim} numbers, that of {body.robot_type} has {len(vector.names)}: "
                f"{', '.join(vector.names)}"
            )
        load_statistics(statistics, kind, vector.names, vector.normalization)
    weights = f"model{checkpoint.suffix}"
    policy = {
        "format": FORMAT,
        "name": about.name,
        "description": f"Imported from {checkpoint.name}",
        "origin": "official",
        "robot_type": body.robot_type,
        "variant": about.variant,
        "model": dataclasses.asdict(model),
        "weights": weights,
        "horizon": about.horizon,
        "fps": body.fps,
        "denoise_steps": about.denoise_steps,
        "sigma_shift": about.sigma_shift,
        "video_sigma_shift": 5.0,
        "video_frames": 9,
        "seed": body.seed,
        "layout": body.layout.model_dump(),
        "state": body.state.model_dump(),
        "action": body.action.model_dump(),
        "prompt": {"template": PROMPT_TEMPLATE, "length": _PROMPT_LENGTH, "default_instruction": about.instruction},
    }
    config = validate(policy, BundleConfig, POLICY_FILE)
    require_space(folder, checkpoint.stat().st_size + vae.stat().st_size, "weights and autoencoder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkpoint, folder / weights)
    shutil.copyfile(statistics, folder / STATISTICS_FILE)
    autoencoder.save_pretrained(folder / "vae")
    # Last: a folder without policy.yaml is not taken for a bundle if this is interrupted.
    (folder / POLICY_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def export_official(folder: Path, config: BundleConfig, target: Path) -> None:
    """Write a bundle's weights in the official format, loadable by the authors' code.

    Raises:
        ConfigError: the target exists, the weights cannot be read, or the bundle is more than such a file can say: the
            authors' code would drop that without a word. A line for each reason.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already; name another file")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"{target}: {target.absolute().parent} is no folder; create it, or name another place")
    source = folder / config.weights
    try:
        payload = read_tensors(source)
        tensors = payload if source.suffix == ".safetensors" else from_official(payload, source)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    stored = str(next(iter(tensors.values())).dtype)
    if reasons := _lost(folder, config, stored.removeprefix("torch.")):
        raise ConfigError("\n".join(f"{folder}: an official file cannot hold it: {reason}" for reason in reasons))
    if source.suffix != ".safetensors":
        shutil.copyfile(source, target)
        return
    proprio = {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith("proprio_encoder.")}
    mot = {f"mixtures.{name}": value for name, value in tensors.items() if not name.startswith("proprio_encoder.")}
    payload = {
        "mot": mot, "proprio_encoder": proprio or None, "step": 0, "torch_dtype": stored,
        _HEAD_DIM: config.model.video.head_dim,
    }  # fmt: skip
    partial = target.with_suffix(target.suffix + ".partial")
    torch.save(payload, partial)
    partial.rename(target)


def _lost(folder: Path, config: BundleConfig, stored: str) -> list[str]:
    """What the authors' code would not know of a bundle, having read its weights, which are `stored` as this type."""
    reasons = []
    if config.model.positions is not None:
        reasons.append("model.positions: its learned positions, which the authors' network does not have")
    if config.model.history:
        reasons.append("model.history: earlier frames, which the authors' network is not given")
    if config.action.stepwise:
        reasons.append("action.stepwise: statistics for each step of a chunk")
    if config.action.relative:
        reasons.append(
            f"action.relative: actions that count from the measured position: {', '.join(config.action.relative)}"
        )
    if config.distilled_from:
        reasons.append(f"distilled_from: weights that know {config.denoise_steps} denoise steps and no other number")
    if config.dtype not in (None, stored):
        reasons.append(f"dtype: it is computed in {config.dtype}, but stored as {stored}")
    # Of random weights and of imported ones the autoencoder is no part.
    if config.origin == "trained" and (differing := sizes_unlike_official(folder / "vae")):
        reasons.append(f"vae: an autoencoder of its own, not Wan2.2's: {'; '.join(differing)}")
    return reasons


def add_embeddings(folder: Path, instructions: Sequence[str], text_encoder: Path, tokenizer: Path) -> list[str]:
    """Embed instructions and write them into a bundle; returns the whole prompts.

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
    prompts = [config.prompt_of(instruction) for instruction in instructions]
    for prompt in prompts:
        save_embedding(folder, prompt, *encode_prompt(encoder, words, prompt, config.prompt.length))
    return prompts


def infer_model_config(tensors: Mapping[str, Tensor], stated: int | None, written: object = None) -> ModelConfig:
    """Sizes of a model from the shapes of its weights.

    Args:
        tensors: the weights.
        stated: width of an attention head, which no shape tells; None: as the file or the published width says.
        written: that of the file, where it has one.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or the width of a head is not known, wrong, or does not
            divide that of the attention.
    """
    try:
        experts = {}
        for name in ("video", "action"):
            width = tensors[f"{name}.blocks.0.self_attn.q.weight"].shape[0]
            head_dim = _head_dim(width, stated, written)
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


def _head_dim(width: int, stated: int | None, written: object) -> int:
    """Width of an attention head of a checkpoint whose attention is `width` wide."""
    known = written if isinstance(written, int) else _PUBLISHED_HEADS.get(width)
    if known is None and stated is None:
        raise CheckpointError(
            f"the width of an attention head must be stated with --head-dim: a checkpoint does not hold it, and "
            f"{width}, all heads together, is none of a published one"
        )
    if known is not None and stated not in (None, known):
        raise CheckpointError(f"--head-dim {stated} is wrong: the heads of this checkpoint are {known} wide")
    return known or stated or 0
