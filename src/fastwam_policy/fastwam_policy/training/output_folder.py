"""What a training writes: its configuration, and its bundles; and which folder it goes on in."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import naming_a_full_disk, require_space, write_text
from fastwam_policy.common.json_files import read_json
from fastwam_policy.common.settings import changes
from fastwam_policy.policies.fastwam.bundle import POLICY_FILE, STATISTICS_FILE, save_embedding
from fastwam_policy.training.checkpoints import KEPT
from fastwam_policy.training.config import TrainingConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

CONFIG_FILE = "training.yaml"
_CHECKPOINT, _BUNDLE = 16, 4  # bytes a weight: itself, Adam's two figures and the average; the average alone


def check_output(config: TrainingConfig, output: Path) -> None:
    """A folder is continued with the configuration it was begun with; ConfigError shows what differs."""
    path = output / CONFIG_FILE
    if not path.exists():
        if output.exists() and any(output.iterdir()):
            raise ConfigError(f"{output} is not empty and no training was begun in it; name another folder")
        return
    if changed := list(changes(yaml.safe_load(path.read_text()), config)):
        raise ConfigError(
            f"{output} was begun with another configuration:\n  " + "\n  ".join(changed) + "\n"
            "Restore it to continue, or name another folder to start again"
        )


def claim_output(config: TrainingConfig, output: Path) -> None:
    """Write the configuration into a folder that may be continued with it; ConfigError as :func:`check_output`."""
    check_output(config, output)
    write_text(output / CONFIG_FILE, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def parts_of_a_batch(begun: int, now: int, output: Path) -> int:
    """With so many processes a training was begun; each of those that are there `now` does the part of several.

    Raises:
        ConfigError: they cannot share the parts equally.
    """
    if begun % now:
        raise ConfigError(
            f"{output} was begun with {begun} processes, not {now}: batch_size counts for each. Continue with {begun} "
            "or a divisor of it, or begin another folder with start_from"
        )
    return begun


def require_space_for(output: Path, weights: int) -> None:
    """RunError where a new training of so many weights would fill the disk."""
    if not (output / "checkpoints").exists():
        need = weights * (KEPT + 1) * (_CHECKPOINT + _BUNDLE)  # the newest one is written before the oldest goes
        require_space(output, need, "checkpoints and bundles of this size")


def begin_bundle(
    folder: Path, config: TrainingConfig, statistics: Mapping[str, Any], texts: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Write everything of a bundle but the weights; `texts` are the embeddings and masks of its prompts.

    Raises:
        ConfigError: it was begun with other data, or another autoencoder.
    """
    if (folder / POLICY_FILE).exists():
        check_data(folder, config, statistics)
        return
    folder.mkdir(exist_ok=True)
    shutil.copytree(config.autoencoder, folder / "vae", dirs_exist_ok=True)
    write_text(folder / STATISTICS_FILE, json.dumps(statistics))
    for prompt, (text, mask) in texts.items():
        save_embedding(folder, prompt, text, mask)
    write_text(folder / POLICY_FILE, yaml.safe_dump(config.policy.model_dump(mode="json"), sort_keys=False))


def check_data(bundle: Path, config: TrainingConfig, statistics: Mapping[str, Any]) -> None:
    """ConfigError where a bundle was begun with other data, or another autoencoder."""
    output = bundle.parent
    if any(changes(read_json(bundle / STATISTICS_FILE), statistics)):
        raise ConfigError(
            f"the datasets are not those that {output} was begun with: their statistics differ. Name another folder, "
            "and begin with start_from if you like"
        )
    if not _same_files(config.autoencoder, bundle / "vae"):
        raise ConfigError(
            f"{config.autoencoder}: not the autoencoder that {output} was begun with, which is in {bundle / 'vae'}. "
            "Name another folder"
        )


def write_weights(path: Path, weights: Mapping[str, Tensor], stored_as: str) -> None:
    """Write them as that type into a bundle's file, complete or not at all.

    Raises:
        RunError: they are not finite, or the disk is full.
    """
    unfinished = path.with_name("unfinished.safetensors")
    stored = {key: value.to(getattr(torch, stored_as)).contiguous() for key, value in weights.items()}
    # Also a finite loss leads to such weights, and what is finite may be too large for `stored_as`.
    if broken := next((key for key, value in stored.items() if not value.isfinite().all()), None):
        raise RunError(
            f"{path.parent}: weights are not finite any more as {stored_as}, such as {broken}. Nothing was written "
            "since the last checkpoint; lower learning_rate in another folder"
        )
    with naming_a_full_disk(path.parent):
        save_file(stored, unfinished)
    unfinished.replace(path)


def _same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, names[0], shallow=False)[1:])
