"""LeRobot's Fast-WAM as a bundle: the same weights under other names; no number of them changes.

What LeRobot's files do not say is in a small YAML file, :class:`About`. An export writes it beside LeRobot's own files.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator
from safetensors.torch import save_file

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_weights
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.vae import load_official_vae, load_vae
from fastwam_policy.policies.fastwam.bundle import (
    EMBEDDINGS,
    FORMAT,
    POLICY_FILE,
    STATISTICS_FILE,
    BundleConfig,
)
from fastwam_policy.policies.fastwam.canvas import Layout, Tile
from fastwam_policy.policies.fastwam.lerobot_format import (
    ABOUT_FILE,
    CONFIG_FILE,
    DEGENERATE,
    FIGURES,
    WEIGHTS_FILE,
    Figures,
    Kind,
    LeRobotConfig,
    from_lerobot,
    read_config,
    read_statistics,
)
from fastwam_policy.policies.fastwam.normalizer import Normalization, check_statistics
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml, validate

_CLAMP = 5.0  # deviations beyond which nothing is told apart


class About(StrictModel):
    """What a LeRobot checkpoint does not say about itself.

    Attributes:
        fps: actions a second; `fps` in meta/info.json of the dataset it was trained on.
        instruction: the task where none is given.
        state: its numbers in order: joint groups, or single joints, of the robot file.
        action: the same of the actions; not given: as the state.
        units: by joint group, how the checkpoint measures it, where that is not as the robot file does.
        cameras: which camera each of its images is; they lie side by side, ordered by key.
        layout: instead of `cameras`, the tiles of a checkpoint with one image that is composed of several cameras.
        origin: where the weights come from.
    """

    fps: PositiveFloat
    instruction: str
    state: list[str] = Field(min_length=1)
    action: list[str] | None = None
    units: dict[str, JointMapping] = Field(default={})
    cameras: dict[str, str] | None = None
    layout: Layout | None = None
    origin: Literal["random", "trained", "official"] = "trained"

    @model_validator(mode="after")
    def _one_canvas(self) -> About:
        if (self.cameras is None) == (self.layout is None):
            raise ValueError(
                "needs either cameras, which camera each image is, or layout, for one image composed of several"
            )
        return self


def import_lerobot(source: Path, about: Path | None, vae: Path, folder: Path, robot: RobotConfig) -> str:
    """Write a bundle into `folder`, which must not exist or be empty, and return its default instruction.

    Args:
        source: folder of the checkpoint.
        about: file with an :class:`About`; None: fastwam.yaml in `source`.
        vae: Wan2.2_VAE.pth, or a folder in diffusers' format.
        folder: bundle to write.
        robot: its groups and cameras are what `about` speaks of.

    Raises:
        ConfigError: anything is missing or does not fit, a line for each; nothing is written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; name a new or empty folder")
    theirs = read_config(source)
    path = about or source / ABOUT_FILE
    if about is None and not path.exists():
        raise ConfigError(_questions(source, theirs, robot))
    told = load_yaml(path, About, aliases=False)
    state, state_figures = _vector(source, theirs, "state", told, robot, path)
    action, action_figures = _vector(source, theirs, "action", told, robot, path)
    weights = source / WEIGHTS_FILE
    try:
        tensors = from_lerobot(load_weights(weights), str(weights))
        with torch.device("meta"):
            load_into(FastWam(theirs.model), tensors, str(weights))
        autoencoder = load_vae(vae) if vae.is_dir() else load_official_vae(vae)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:  # of the model's sizes
        raise ConfigError(f"{source / CONFIG_FILE}: {error}") from None
    stored = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    policy = {
        "format": FORMAT,
        "name": folder.name,
        "description": f"Imported from LeRobot's {source.name}",
        "origin": told.origin,
        "robot_type": robot.robot_type,
        "variant": "fastwam" if theirs.loss.lambda_video else "fastwam_no_video",
        "model": dataclasses.asdict(theirs.model),
        "weights": WEIGHTS_FILE,
        "horizon": theirs.action_horizon,
        "fps": told.fps,
        "denoise_steps": theirs.num_inference_steps,
        "sigma_shift": theirs.sigma_shift or theirs.action_scheduler.infer_shift,
        "video_sigma_shift": theirs.sigma_shift or theirs.video_scheduler.infer_shift,
        "video_frames": (theirs.num_video_frames - 1) // theirs.action_video_freq_ratio + 1,
        "dtype": None if theirs.torch_dtype == stored else theirs.torch_dtype,
        "seed": theirs.inference_seed or 0,  # null: LeRobot draws other noise each time
        "layout": _layout(theirs, told, robot, path).model_dump(),
        "state": state,
        "action": action,
        "prompt": {
            "template": theirs.prompt_template,
            "length": theirs.tokenizer_max_len,
            "default_instruction": told.instruction,
        },
    }
    config = validate(policy, BundleConfig, POLICY_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    autoencoder.save_pretrained(folder / "vae")
    (folder / STATISTICS_FILE).write_text(
        json.dumps({"state": {"default": state_figures}, "action": {"default": action_figures}})
    )
    if (source / EMBEDDINGS).is_dir():
        shutil.copytree(source / EMBEDDINGS, folder / EMBEDDINGS)
    # Last: a folder without policy.yaml is not taken for a bundle if this is interrupted.
    (folder / POLICY_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return told.instruction


def _questions(source: Path, theirs: LeRobotConfig, robot: RobotConfig) -> str:
    """What must be told, as a file to begin with."""
    groups = ", ".join(robot.commanded)
    images = "\n".join(f"    {key}: {'|'.join(robot.cameras)}" for key in theirs.images)
    return f"""{source}: LeRobot's files do not say all. Write the rest into a file, and name that with --about FILE:
  fps: 15                     # actions a second; meta/info.json of its dataset has it
  instruction: fold the towel # where no other is given
  state: [{groups}]  # what its {theirs.proprio_dim} numbers are: groups or joints of the robot, in order
  action: [{groups}] # its {theirs.action_dim}; may be left out where it is as the state
  units: {{left_gripper: {{range: [0, 1]}}}} # where not rad and mm; may be left out
  cameras:                    # which camera each image is; or layout, where one image is composed of several
{images}"""


def _joints(names: list[str], robot: RobotConfig, where: str) -> list[str]:
    """Groups replaced by their joints."""
    result = [joint for name in names for joint in (robot.groups[name].joints if name in robot.groups else [name])]
    if unknown := [joint for joint in result if joint not in robot.joint_names]:
        raise ConfigError(f"{where}: {unknown[0]} is no group or joint that is commanded; there are the groups "
                          f"{', '.join(robot.commanded)}, and the joints {', '.join(robot.joint_names)}")  # fmt: skip
    if twice := [joint for joint in result if result.count(joint) > 1]:
        raise ConfigError(f"{where}: {twice[0]} is named twice")
    return result


def _vector(
    source: Path, theirs: LeRobotConfig, kind: Kind, told: About, robot: RobotConfig, path: Path
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """State or action for policy.yaml, and its statistics in the robot's units."""
    names = _joints(told.state if kind == "state" or told.action is None else told.action, robot, f"{path}: {kind}")
    size = theirs.action_dim if kind == "action" else theirs.proprio_dim
    if size is not None and size != len(names):
        raise ConfigError(f"{path}: {kind}: the checkpoint has {size} numbers, these are {len(names)} joints")
    units = dict(zip(robot.joint_names, robot.units, strict=True))
    if size is None:
        mode, figures = _of_reach(robot, names)
    else:
        mode, figures = read_statistics(source, theirs, kind)
        mode, figures = _in_our_units(mode, _completed(figures), *_conversion(told, robot, names, path))
    entries = {f"global_{name}": value.tolist() for name, value in figures.items()}
    check_statistics(entries, f"{source}: its statistics of {kind}", names, mode)
    return {"names": names, "units": [units[name] for name in names], "normalization": mode}, entries


def _of_reach(robot: RobotConfig, names: list[str]) -> tuple[Normalization, Figures]:
    """Figures of a state that the network never sees: the whole range of each joint."""
    reach = np.concatenate([robot.reach[group] for group in robot.commanded])
    low, high = reach[[robot.joint_names.index(name) for name in names]].T
    return "z-score", dict(zip(FIGURES, ((low + high) / 2, (high - low) / 2, low, high, low, high), strict=True))


def _completed(figures: Figures) -> Figures:
    """Those that a checkpoint leaves out, from those that it has."""
    if "mean" not in figures or "std" not in figures:
        low, high = (figures[name] for name in (("min", "max") if "min" in figures else ("q01", "q99")))
        figures = {"mean": (low + high) / 2, "std": (high - low) / 2} | figures
    reach = _CLAMP * figures["std"]
    figures = {"min": figures["mean"] - reach, "max": figures["mean"] + reach} | figures
    return {"q01": figures["min"], "q99": figures["max"]} | figures


def _conversion(
    told: About, robot: RobotConfig, names: list[str], path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and offset [D] from the checkpoint's units to the robot's."""
    scale, offset = dict.fromkeys(robot.joint_names, 1.0), dict.fromkeys(robot.joint_names, 0.0)
    for group, mapping in told.units.items():
        if group not in robot.commanded:
            raise ConfigError(f"{path}: units: there is no group {group}; there are {', '.join(robot.commanded)}")
        joints = robot.groups[group].joints
        try:
            mapping.check(robot.groups[group].unit, len(joints))
        except ValueError as error:
            raise ConfigError(f"{path}: units.{group}.{error}") from None
        gate = robot.gate(group, mapping)
        zero, one = gate.rows(np.zeros(len(joints))), gate.rows(np.ones(len(joints)))
        if (one <= zero).any():
            raise ConfigError(f"{path}: units.{group}: joints that count the other way cannot be imported")
        scale |= dict(zip(joints, one - zero, strict=True))
        offset |= dict(zip(joints, zero, strict=True))
    return np.array([scale[name] for name in names]), np.array([offset[name] for name in names])


def _in_our_units(
    mode: Normalization, figures: Figures, scale: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[Normalization, Figures]:
    """Figures of the same normalised numbers in other units; as a z-score where a bundle's bounds would differ."""
    figures = {name: value * scale + (0 if name == "std" else offset) for name, value in figures.items()}
    if mode == "z-score":
        return mode, figures
    low, high = (figures[name] for name in (("min", "max") if mode == "min_max" else ("q01", "q99")))
    if (high - low >= DEGENERATE).all():
        return mode, figures
    return "z-score", figures | {"mean": (low + high) / 2, "std": (high - low) / 2}


def _layout(theirs: LeRobotConfig, told: About, robot: RobotConfig, path: Path) -> Layout:
    """The canvas that LeRobot makes of the images."""
    height, width = theirs.image_size
    layout, keys = told.layout, theirs.images
    if layout is None:
        assert told.cameras is not None
        if sorted(told.cameras) != keys:
            raise ConfigError(f"{path}: cameras: needs the keys {', '.join(keys)}, got {', '.join(told.cameras)}")
        if width % len(keys):
            raise ConfigError(f"{path}: cameras: a width of {width} is not for {len(keys)} images side by side")
        share = width // len(keys)
        tiles = [
            Tile(camera=told.cameras[key], x=place * share, y=0, width=share, height=height)
            for place, key in enumerate(keys)
        ]
        layout = validate({"width": width, "height": height, "tiles": tiles}, Layout, f"{path}: cameras")
    elif len(keys) != 1 or (layout.height, layout.width) != (height, width):
        raise ConfigError(
            f"{path}: layout: is for one image of {layout.width} x {layout.height}; the checkpoint takes "
            f"{', '.join(keys)}, together {width} x {height}"
        )
    if unknown := [tile.camera for tile in layout.tiles if tile.camera not in robot.cameras]:
        raise ConfigError(f"{path}: the robot has no camera {unknown[0]}; it has {', '.join(robot.cameras)}")
    return layout
