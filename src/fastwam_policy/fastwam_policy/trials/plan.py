"""Trials of one policy, or of two in turn: what is to be done in which order, and what is done already.

A session is a folder: `plan.json` is written before the first trial, and `trials/0003/trial.json` when a trial is over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from fastwam_policy.common.files import write_json
from fastwam_policy.common.settings import changes
from fastwam_policy.policies.loading import inspect_policy, policy_key
from fastwam_policy.policies.robot_check import check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.randomization import Level

LETTERS = "AB"
_PLAN, _OUTCOME = "plan.json", "trial.json"
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class TrialSettings:
    """What is tried, and how.

    Attributes:
        policies: one source of a policy or two, as load_policy takes them.
        weights: hash of each policy's weights: a session must not be continued with others.
        trials: of each policy.
        mode: who stands for the robot.
        instruction: task; empty for the policy's default.
        time_limit: s of a trial, on the nodes' clock.
        randomization: what varies with the seed, mode sim.
        first_seed: of the scenes, mode sim: the k-th trial of every policy has the same scene.
        robot: file that describes it; empty for the installed one.
    """

    policies: tuple[str, ...]
    weights: tuple[str, ...]
    trials: int
    mode: Literal["sim", "real"]
    instruction: str
    time_limit: float
    randomization: Level
    first_seed: int
    robot: str = ""


@dataclass(frozen=True)
class Trial:
    """One trial of the plan: its number from 1 on, the index of its policy, its seed in mode sim."""

    number: int
    policy: int
    seed: int


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended.

    Attributes:
        success: as the operator or the simulator saw it, in time.
        time: s from the start of the task to its end, on the nodes' clock.
        ended: why, in words.
        interventions: how often the operator stopped it.
    """

    success: bool
    time: float
    ended: str
    interventions: int = 0


class TrialSession:
    """The folder of a session: begun with these settings, or continued.

    Raises:
        ConfigError: the folder is something else's, or was begun with other settings.
    """

    def __init__(self, folder: Path, settings: TrialSettings, random: np.random.Generator) -> None:
        self.folder, self.settings = folder, settings
        path = folder / _PLAN
        if path.exists():
            plan = _current(json.loads(path.read_text(encoding="utf-8")), settings)
            _check(folder, plan["settings"], settings)
            self.trials = [TypeAdapter(Trial).validate_python(trial) for trial in plan["trials"]]
            return
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and was not written by trials; name another folder")
        self.trials = make_plan(settings, random)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"settings": asdict(settings), "trials": [asdict(trial) for trial in self.trials]})

    def folder_of(self, trial: Trial) -> Path:
        """Where a trial's recording, log, outcome and report are."""
        return self.folder / "trials" / f"{trial.number:04}"

    def missing(self) -> list[Trial]:
        """The trials that are still to be done, in order."""
        return [trial for trial in self.trials if not (self.folder_of(trial) / _OUTCOME).exists()]

    def begin(self, trial: Trial) -> Path:
        """Empty folder of a trial; what an interrupted attempt has left is renamed, and kept."""
        folder = self.folder_of(trial)
        if folder.exists():
            names = (folder.with_name(f"{folder.name}_{_UNFINISHED}{number}") for number in count(1))
            folder.rename(next(name for name in names if not name.exists()))
        folder.mkdir(parents=True)
        return folder

    def finish(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Keep an outcome: from now on the trial is done."""
        ended = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        write_json(self.folder_of(trial) / _OUTCOME, {**asdict(trial), **asdict(outcome), "at": ended})

    def outcomes(self) -> list[tuple[Trial, TrialOutcome]]:
        """Every trial that is done, in order."""
        result = []
        for trial in self.trials:
            path = self.folder_of(trial) / _OUTCOME
            if path.exists():
                data = json.loads(path.read_text(encoding="utf-8"))
                result.append((trial, TypeAdapter(TrialOutcome).validate_python(data)))
        return result

    @property
    def unfinished(self) -> int:
        """Attempts that were interrupted and done again."""
        return len(list(self.folder.glob(f"trials/*_{_UNFINISHED}*")))


def make_plan(settings: TrialSettings, random: np.random.Generator) -> list[Trial]:
    """The order: in blocks of one trial of each policy, drawn within each block, so that a drift meets both alike."""
    policies = [int(index) for _ in range(settings.trials) for index in random.permutation(len(settings.policies))]
    scenes = [settings.first_seed + block for block in range(settings.trials) for _ in settings.policies]
    return [Trial(k + 1, policy, seed) for k, (policy, seed) in enumerate(zip(policies, scenes, strict=True))]


def with_policies(settings: TrialSettings, sources: Sequence[str], robot: RobotConfig) -> TrialSettings:
    """The settings for these policies, each as load_policy takes it; the weights of bundles are not loaded.

    Raises:
        ConfigError: a policy cannot be loaded, or does not fit the robot or the instruction.
    """
    weights = []
    for source in sources:
        info = inspect_policy(source, settings.instruction)
        check_robot(info, robot, source)
        weights.append(f"sha256 {policy_key(info, source) or 'not known'}")
    return replace(settings, policies=tuple(sources), weights=tuple(weights))


def _current(plan: dict[str, Any], now: TrialSettings) -> dict[str, Any]:
    """A plan as it is written now; version 0.1 called policies bundles, and had another mark of their weights."""
    settings = plan["settings"]
    if "bundles" in settings:
        settings |= {"policies": settings.pop("bundles"), "weights": list(now.weights)}
        plan["trials"] = [{**trial, "policy": trial.pop("bundle")} for trial in plan["trials"]]
    return plan


def _check(folder: Path, before: dict[str, Any], settings: TrialSettings) -> None:
    if changed := list(changes(before, settings)):
        raise ConfigError(
            f"{folder} was begun with other settings:\n  " + "\n  ".join(changed) + "\n"
            "Restore them to continue, or name another folder"
        )
