"""Folders of checkpoints that say of themselves whether they are whole: after a power cut the newest may not be.

checkpoints/step_00002000/progress.json     step, best figures, and the checksum of every other file
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastwam_policy.common.files import settled_checksum, write_json
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_PROGRESS, _FILES = "progress.json", "files"
KEPT = 2
"""Checkpoints that are kept."""


def finish(unfinished: Path, step: int, progress: Mapping[str, Any]) -> None:
    """Make a folder of finished files the checkpoint of a step, and delete those that are older than the one before."""
    files = {str(path.relative_to(unfinished)): settled_checksum(path) for path in _contents(unfinished)}
    write_json(unfinished / _PROGRESS, {"step": step, **progress, _FILES: files})
    unfinished.replace(unfinished.with_name(f"step_{step:08d}"))
    for old in _all(unfinished.parent)[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, or None, and what is wrong with newer ones.

    Raises:
        ConfigError: there are some, and none is whole.
    """
    problems: list[str] = []
    for checkpoint in reversed(_all(folder)):
        if (file := _damaged(checkpoint)) is None:
            return checkpoint, problems
        problems.append(f"{file}: is damaged or incomplete")
    if problems:
        raise ConfigError(f"{'; '.join(problems)}: no checkpoint is whole. Delete {folder} to begin again")
    return None, []


def put_aside(folder: Path, later_than: Path) -> None:
    """Rename the checkpoints that are newer than this one: they are in the way of new ones."""
    for checkpoint in _all(folder):
        if checkpoint.name > later_than.name:
            shutil.rmtree(aside := checkpoint.with_name(f"damaged_{checkpoint.name}"), ignore_errors=True)
            checkpoint.rename(aside)


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """What `finish` was given, and the step."""
    return dict(json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8")))


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"))


def _contents(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _PROGRESS)


def _damaged(checkpoint: Path) -> Path | None:
    """The first file of a checkpoint that is not as it was written. Those of earlier versions have no checksums."""
    try:
        files = read_progress(checkpoint).get(_FILES, {})
    except (OSError, ValueError, TypeError):
        return checkpoint / _PROGRESS
    for name, checksum in files.items():
        try:
            if settled_checksum(checkpoint / name) != checksum:
                return checkpoint / name
        except OSError:
            return checkpoint / name
    return None
