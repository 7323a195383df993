"""RoboTwin 2.0: two arms, 50 tasks, clean and randomized, 100 episodes each; by Fast-WAM's evaluation.

The simulator runs in an environment of its own, `make benchmark-robotwin`; `apart/robotwin_env.py` is its end. Without
RoboTwin's assets a stand-in tests that everything fits together, on the tasks that need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastwam_policy.benchmarks.base import Episode, Published, Task
from fastwam_policy.benchmarks.lockstep import Interface, LockstepTask
from fastwam_policy.benchmarks.simulator import about_tasks, started
from fastwam_policy.policies.base import Channel, Pixels, Policy, PolicyInfo
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_PLACE = "apart.robotwin_env:RoboTwin"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_TRIALS, _REPLAN = 100, 24
_CLEAN, _RANDOMIZED = "demo_clean", "demo_randomized"
STANDIN = "stand-in: not a RoboTwin score"
_ASSETS = "a folder with RoboTwin's assets, which its own robotwin-download-assets --output FOLDER writes"


def _joints() -> tuple[Channel, ...]:
    arm = [Channel(f"joint{k}", "rad") for k in range(1, 7)] + [Channel("gripper", "opaque")]
    return tuple(Channel(f"{side}_{part.name}", part.unit) for side in ("left", "right") for part in arm)


def _shown(images: Mapping[str, Pixels]) -> Pixels:
    return images["head"]


INTERFACE = Interface(
    cameras=("head", "wrist_left", "wrist_right"), state=_joints(), action=_joints(), kind="absolute", fps=250 / 15,
    rest=(), shown=_shown,
)  # fmt: skip
"""Pictures 240 x 320, upright. Joints are the servos' targets, not measured; grippers from 0, closed, to 1, open."""


@dataclass(frozen=True)
class RoboTwin:
    """See :class:`Benchmark`.

    Args:
        assets: folder of RoboTwin's; None: the stand-in.
    """

    assets: Path | None = None
    name: str = "robotwin"
    title: str = "RoboTwin 2.0"
    suites: tuple[str, ...] = (_CLEAN, _RANDOMIZED)
    published: tuple[Published, ...] = (
        Published("Fast-WAM", "arXiv 2603.16666", 91.8),
        Published("Fast-WAM without video co-training", "arXiv 2603.16666", 83.8),
    )

    @property
    def note(self) -> str:
        """See :class:`Benchmark`."""
        return "" if self.assets else STANDIN

    @property
    def official(self) -> tuple[str, ...]:
        """See :class:`Benchmark`; the randomized scenes need assets."""
        return self.suites if self.assets else (_CLEAN,)

    def protocol(self) -> dict[str, Any]:
        """See :class:`Benchmark`."""
        return {"scenes": "assets" if self.assets else STANDIN, "replan": _REPLAN, "first_seed": 4_300_000}

    def tasks(self, suites: Sequence[str]) -> list[Task]:
        """See :class:`Benchmark`."""
        if not self.assets and _RANDOMIZED in suites:
            raise ConfigError(f"--suite {_RANDOMIZED} needs --assets: {_ASSETS}")
        known = _tasks()
        names = known["limits"] if self.assets else known["standin"]
        return [Task(suite, number, name, _TRIALS) for suite in suites for number, name in enumerate(names)]

    def policy(self, source: str, mode: str = "") -> Policy | None:
        """See :class:`Benchmark`."""
        return INTERFACE.policy(source, mode)

    def check(self, info: PolicyInfo, source: str) -> None:
        """See :class:`Benchmark`."""
        INTERFACE.check(info, source)

    def expert_identity(self) -> str:
        """See :class:`Benchmark`; RoboTwin's own has no actions that a policy could have."""
        return ""

    def open(self, task: Task, policy: Policy | None, log: Path, *, film: bool) -> LockstepTask:
        """See :class:`Benchmark`. Which seeds the expert solves is kept beside `log`."""
        scenes = "" if self.assets else "standin_"
        seeds = log.parent.absolute() / f"seeds_{scenes}{task.suite}_{task.instruction}.jsonl"
        process, opened = started(
            "robotwin", "RoboTwin", _PLACE, log, _ENVIRONMENT, "open", setting=task.suite, task=task.instruction,
            seeds=str(seeds), assets=str(self.assets.absolute()) if self.assets else "",
            planner="curobo" if self.assets else "mplib",
        )  # fmt: skip
        return LockstepTask(process, task, INTERFACE, policy, _REPLAN, opened["limit"])

    def remarks(self, episodes: Sequence[Episode]) -> list[str]:
        """See :class:`Benchmark`."""
        return [] if self.assets else [f"for scores: --assets, {_ASSETS}, and a GPU with ray tracing"]


@cache
def _tasks() -> dict[str, Any]:
    return about_tasks("robotwin", "RoboTwin", _PLACE, _ENVIRONMENT)
