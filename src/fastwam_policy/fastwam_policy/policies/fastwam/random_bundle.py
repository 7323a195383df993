"""Write a small bundle with random weights for the R1 Lite, so that the whole path runs without a download.

Its actions mean nothing: it is for trying the nodes, measuring latency and testing. policy.yaml says `origin: random`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.vae import OFFICIAL_CONFIG
from fastwam_policy.model.variants import VariantName
from fastwam_policy.policies.fastwam.bundle import FORMAT, POLICY_FILE, PROMPT_TEMPLATE, BundleConfig, save_embedding
from fastwam_policy.policies.fastwam.canvas import ROBOTWIN
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

_HORIZON = 32
_TEXT_TOKENS = 20  # about what the prompt of a short instruction takes of the 128
_VAE_WIDTH = 8  # the official one has 160


def write_random_bundle(
    folder: Path,
    robot: RobotConfig,
    instruction: str,
    size: str = "tiny",
    seed: int = 0,
    variant: VariantName = "fastwam",
) -> None:
    """Write a bundle into `folder`, which must not exist or be empty.

    Statistics are made from the robot's limits: mean in the middle, standard deviation an eighth of the range, so
    that the random actions stay near the middle of the joints' range.

    Raises:
        ConfigError: the folder is in use, or the size is unknown.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; name a new or empty folder")
    if size not in PRESETS:
        raise ConfigError(f"size must be one of {', '.join(PRESETS)}, got {size!r}")
    vector = {"names": robot.joint_names, "units": list(robot.units), "normalization": "z-score"}
    policy = {
        "format": FORMAT,
        "name": f"random_{size}",
        "description": "Random weights: shows that the path works; the actions mean nothing.",
        "origin": "random",
        "robot_type": robot.robot_type,
        "variant": variant,
        "model": dataclasses.asdict(PRESETS[size]),
        "weights": "model.safetensors",
        "horizon": _HORIZON,
        "fps": 15.0,
        "denoise_steps": 10,
        "sigma_shift": 5.0,
        "video_sigma_shift": 5.0,
        "video_frames": 9,
        "seed": seed,
        "layout": ROBOTWIN.model_dump(),
        "state": vector,
        "action": vector,
        "prompt": {"template": PROMPT_TEMPLATE, "length": 128, "default_instruction": instruction},
    }
    config = validate(policy, BundleConfig, POLICY_FILE)
    folder.mkdir(parents=True, exist_ok=True)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(FastWam(config.model).state_dict(), folder / config.weights)
        AutoencoderKLWan(
            **json.loads(OFFICIAL_CONFIG.read_text()) | {"base_dim": _VAE_WIDTH, "decoder_base_dim": _VAE_WIDTH}
        ).save_pretrained(folder / "vae")
        context = torch.randn(config.prompt.length, config.model.video.text_dim)
    context[_TEXT_TOKENS:] = 0  # the official convention: padding rows are zero, and visible
    save_embedding(folder, config.prompt_of(instruction), context, torch.ones(len(context), dtype=torch.bool))

    lower, upper = limit_arrays(robot.commanded)[:2]
    entries = {
        "mean": robot.home, "std": (upper - lower) / 24,  # near the start pose, where the arms have room
        "min": lower, "max": upper, "q01": lower, "q99": upper,
    }  # fmt: skip
    statistics = {
        kind: {
            "default": {f"global_{name}": value.tolist() for name, value in entries.items()}
            | {f"stepwise_{name}": np.tile(value, (steps, 1)).tolist() for name, value in entries.items()}
        }
        for kind, steps in (("state", 1), ("action", _HORIZON))
    }
    (folder / "dataset_stats.json").write_text(json.dumps(statistics | {"num_episodes": 0, "num_transition": 0}))
    # Last: a folder without policy.yaml is not taken for a bundle if this is interrupted.
    (folder / POLICY_FILE).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
