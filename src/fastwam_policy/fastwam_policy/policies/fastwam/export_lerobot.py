"""A bundle as a checkpoint of LeRobot 0.6, as :mod:`fastwam_policy.policies.fastwam.import_lerobot` reads it back."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import save_file

from fastwam_policy.model.checkpoint import CheckpointError, load_weights
from fastwam_policy.model.vae import sizes_unlike_official
from fastwam_policy.model.variants import VARIANTS
from fastwam_policy.policies.fastwam.bundle import EMBEDDINGS, BundleConfig
from fastwam_policy.policies.fastwam.canvas import Layout
from fastwam_policy.policies.fastwam.lerobot_format import (
    ABOUT_FILE,
    DEGENERATE,
    FIGURES,
    KINDS,
    MODES,
    TIMESTEPS,
    WEIGHTS_FILE,
    Figures,
    Kind,
    to_lerobot,
    write_config,
    write_processors,
)
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_COMPOSED = "observation.images.canvas"


def export_lerobot(folder: Path, config: BundleConfig, target: Path) -> list[str]:
    """Write a bundle as a checkpoint of LeRobot 0.6 into `target`, which must not exist or be empty.

    Returns:
        What its user should know, a sentence each.

    Raises:
        ConfigError: the target is in use, the weights cannot be read, or LeRobot has no place for what the bundle
            does; a line for each reason.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists already; name a new or empty folder")
    differing = "; ".join(sizes_unlike_official(folder / "vae"))
    autoencoder = f"vae: it always takes Wan2.2's; this one has {differing}" if differing else ""
    if reasons := [*_not_exportable(config), *([autoencoder] if autoencoder and config.origin != "random" else [])]:
        raise ConfigError("\n".join(f"{folder}: LeRobot cannot run it: {reason}" for reason in reasons))
    try:
        tensors = load_weights(folder / config.weights)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    stored = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    cameras = _side_by_side(config.layout)
    modes = {"VISUAL": "IDENTITY"}
    statistics: dict[Kind, Figures] = {}
    for kind in KINDS:
        modes[kind.upper()], statistics[kind] = _figures(folder, config, kind)
    if config.model.proprio_dim is None:
        del statistics["state"]
    theirs = _their_config(config, cameras, modes, config.dtype or stored)
    target.mkdir(parents=True, exist_ok=True)
    save_file(to_lerobot(tensors), target / WEIGHTS_FILE, {"format": "pt"})
    write_processors(target, theirs["input_features"] | theirs["output_features"], modes, statistics)
    told = {
        "fps": config.fps,
        "instruction": config.prompt.default_instruction,
        "state": config.state.names,
        "action": config.action.names,
        "origin": config.origin,
    } | ({"cameras": cameras} if cameras else {"layout": config.layout.model_dump(mode="json")})
    note = "# What LeRobot's files do not say; `fastwam import --from lerobot` reads it.\n"
    (target / ABOUT_FILE).write_text(note + yaml.safe_dump(told, sort_keys=False))
    if (folder / EMBEDDINGS).is_dir():
        shutil.copytree(folder / EMBEDDINGS, target / EMBEDDINGS)
    write_config(target, theirs)  # last: without it the folder is no checkpoint
    notes = [f"it is an autoencoder of its own that is left behind: {autoencoder}"] if autoencoder else []
    if not cameras:
        notes.append(f"LeRobot takes one image, {_COMPOSED}: compose it as `layout` in {ABOUT_FILE} says")
    if config.max_prefix:
        notes.append("max_prefix is lost: LeRobot does not continue a running plan")
    return notes


def _not_exportable(config: BundleConfig) -> list[str]:
    """Why LeRobot cannot run a bundle."""
    video, reasons = config.model.video, []
    if VARIANTS[config.variant].modes != ("first_frame",) or VARIANTS[config.variant].regression:
        reasons.append(f"it has no variant {config.variant}, only fastwam and fastwam_no_video")
    for kind, vector in (("state", config.state), ("action", config.action)):
        if vector.stepwise:
            reasons.append(f"{kind}.stepwise: it has one set of statistics for all steps of a chunk")
        if vector.relative:
            reasons.append(f"{kind}.relative: its actions do not count from the measured position")
    if config.action.toggled:
        reasons.append("action.toggled: its step that turns grippers into -1 and 1 is not written")
    if config.action.kind != "absolute":
        reasons.append(f"action.kind: {config.action.kind}, and {ABOUT_FILE} describes joint targets")
    if config.model.positions is not None:
        reasons.append("model.positions: it has no learned positions")
    if config.model.history:
        reasons.append("model.history: it is not given earlier frames")
    if video.head_dim * video.num_heads != video.hidden_dim:
        reasons.append(
            f"model.video: hidden_dim must be num_heads x head_dim, got {video.hidden_dim} and {video.num_heads} x "
            f"{video.head_dim}"
        )
    if (config.video_frames - 1) % 4 or config.frames_per_latent != 4:
        reasons.append(
            f"video_frames must be 1 + 4 n with 4 a latent frame, got {config.video_frames} and "
            f"{config.frames_per_latent}"
        )
    return reasons


def _side_by_side(layout: Layout) -> dict[str, str]:
    """Image key -> camera, in an order that sorting keeps; empty for a canvas that LeRobot does not make."""
    tiles = sorted(layout.tiles, key=lambda tile: tile.x)
    share = layout.width // len(tiles)
    whole = (0.0, 0.0, 1.0, 1.0)
    if any((tile.x, tile.width, tile.height, tile.crop) != (place * share, share, layout.height, whole)
           or tile.rotated or tile.fit != "stretch" for place, tile in enumerate(tiles)):  # fmt: skip
        return {}
    cameras = [tile.camera for tile in tiles]
    ordered = cameras == sorted(cameras)
    return {f"observation.images.{name if ordered else f'{k}_{name}'}": name for k, name in enumerate(cameras)}


def _figures(folder: Path, config: BundleConfig, kind: Kind) -> tuple[str, Figures]:
    """Mode and statistics that normalise as the bundle does."""
    vector = config.state if kind == "state" else config.action
    entries = config.statistics(folder, kind)
    figures = {name: np.array(entries[f"global_{name}"], np.float64) for name in FIGURES}
    if vector.normalization != "z-score":
        low, high = (figures[n] for n in (("min", "max") if vector.normalization == "min_max" else ("q01", "q99")))
        if (high - low < DEGENERATE).any():
            normalizer = Normalizer.from_statistics(entries, vector.normalization)
            std = 1 / normalizer.scale.astype(np.float64)
            return "MEAN_STD", figures | {"mean": -normalizer.offset * std, "std": std}
    return next(theirs for theirs, ours in MODES.items() if ours == vector.normalization), figures


def _their_config(config: BundleConfig, cameras: dict[str, str], modes: dict[str, str], dtype: str) -> dict[str, Any]:
    """config.json."""
    model, layout = config.model, config.layout
    images = {key: [3, layout.height, layout.width // len(cameras)] for key in cameras}
    inputs = {
        key: {"type": "VISUAL", "shape": shape}
        for key, shape in (images or {_COMPOSED: [3, layout.height, layout.width]}).items()
    }
    if model.proprio_dim is not None:
        inputs["observation.state"] = {"type": "STATE", "shape": [model.proprio_dim]}
    experts = {}
    for name, expert in (("video", model.video), ("action", model.action)):
        sizes = dataclasses.asdict(expert)
        sizes["attn_head_dim"] = sizes.pop("head_dim")
        experts[name] = sizes | {
            "action_dim": model.action_dim, "use_gradient_checkpointing": False, "fp32_attention": True
        }  # fmt: skip
    channels = {"in_dim": model.latent_channels, "out_dim": model.latent_channels}
    video = experts["video"] | channels | {
        "patch_size": [1, model.patch, model.patch], "seperated_timestep": True, "action_conditioned": False,
        "video_attention_mask_mode": "first_frame_causal", "action_group_causal_mask_mode": "group_diagonal",
    }  # fmt: skip
    return {
        "type": "fastwam",
        "n_obs_steps": 1,
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [model.action_dim]}},
        "normalization_mapping": modes,
        "action_dim": model.action_dim,
        "proprio_dim": model.proprio_dim,
        "action_horizon": config.horizon,
        "n_action_steps": config.horizon,
        "num_video_frames": config.horizon + 1,
        "action_video_freq_ratio": config.video_stride,
        "image_size": [layout.height, layout.width],
        "context_len": config.prompt.length,
        "tokenizer_max_len": config.prompt.length,
        "base_model_id": None,  # nothing is to be filled in from there
        "torch_dtype": dtype,
        "prompt_template": config.prompt.template,
        "num_inference_steps": config.denoise_steps,
        "inference_seed": config.seed,
        "toggle_action_dimensions": [],
        "video_scheduler": _schedule(config.video_sigma_shift),
        "action_scheduler": _schedule(config.sigma_shift),
        "loss": {"lambda_video": VARIANTS[config.variant].lambda_video, "lambda_action": 1.0},
        "video_dit_config": video,
        "action_dit_config": experts["action"],
    }


def _schedule(shift: float) -> dict[str, float]:
    return {"train_shift": shift, "infer_shift": shift, "num_train_timesteps": TIMESTEPS}
