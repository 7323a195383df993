"""LIBERO and LIBERO-PRO: a Panda arm, four suites of ten tasks, fifty initial states each; perturbed by LIBERO-PRO.

The simulator runs in an environment of its own, `make benchmark-libero`; `apart/libero_env.py` is its end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastwam_policy.benchmarks import apart
from fastwam_policy.benchmarks.base import EXPERT, MOVED, Episode, Published, Task
from fastwam_policy.benchmarks.lockstep import Interface, LockstepTask
from fastwam_policy.benchmarks.simulator import SimulatorProcess, about_tasks, started
from fastwam_policy.common.files import sha256
from fastwam_policy.policies.base import Channel, Pixels, Policy, PolicyInfo

_PLACE = "apart.libero_env:Libero"
# One thread each: several run side by side. EGL renders without a display. No paths of another LIBERO.
_ENVIRONMENT = {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "LIBERO_CONFIG_PATH": os.devnull}
_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


def _shown(images: Mapping[str, Pixels]) -> Pixels:
    """Both pictures as a person would hold them: the renderer's first row is the lowest."""
    return np.concatenate([images[name][::-1] for name in INTERFACE.cameras], axis=1)


def _opaque(*names: str) -> tuple[Channel, ...]:
    return tuple(Channel(name, "opaque") for name in names)


INTERFACE = Interface(
    cameras=("agentview", "wrist"),
    state=_opaque("eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_left", "finger_right"),
    action=_opaque("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper"),
    kind="delta",
    fps=20.0,
    rest=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    shown=_shown,
)
"""Pictures as the environment has them; all pipelines turn them by 180 degrees, a bundle's layout among them. State: m,
rotation vector, m of each finger. Action: shares of 0.05 m and 0.5 rad, gripper -1 to open and 1 to close."""


@dataclass(frozen=True)
class Rules:
    """How others run LIBERO.

    Attributes:
        seed: of the environment; with `seed_each`, of trial 0, and one more for each further trial.
        settle: steps before the policy's first.
        replan: steps of a chunk that are executed; None: all.
        size: of the pictures, pixels.
        limits: steps of an episode, by suite.
    """

    seed: int
    settle: int
    replan: int | None
    limits: tuple[int, int, int, int]
    size: int = 256
    seed_each: bool = False


RULES: Mapping[str, Rules] = {
    "fastwam": Rules(seed=42, settle=30, replan=10, limits=(400, 400, 400, 700)),
    "openpi": Rules(seed=7, settle=10, replan=5, limits=(220, 280, 300, 520)),
    "lerobot": Rules(seed=1000, settle=10, replan=None, limits=(280, 280, 300, 520), size=360, seed_each=True),
}


def _by_suite(*success: float) -> tuple[tuple[str, float], ...]:
    return tuple(zip(_SUITES, success, strict=True))


PUBLISHED = (
    Published("Fast-WAM", "arXiv 2603.16666", 97.6, _by_suite(98.2, 100.0, 97.0, 95.2)),
    Published("Fast-WAM-Joint", "arXiv 2603.16666", 98.5, _by_suite(99.6, 99.4, 98.2, 96.8)),
    Published("Fast-WAM-IDM", "arXiv 2603.16666", 98.0, _by_suite(98.8, 97.8, 97.8, 97.6)),
    Published("Fast-WAM without video co-training", "arXiv 2603.16666", 93.5, _by_suite(89.2, 99.2, 95.4, 90.0)),
    Published("pi0", "openpi, examples/libero", 94.15, _by_suite(96.8, 98.8, 95.8, 85.2)),
    Published("OpenVLA-OFT", "arXiv 2502.19645", 97.1, _by_suite(97.6, 98.4, 97.9, 94.5)),
)
_PICTURES = {
    "libero_spatial": "fb880ba12b61", "libero_object": "048816c5893e",
    "libero_goal": "dde36c99179d", "libero_10": "1072bbec258e",
}  # fmt: skip
"""Hash of the first picture of task 0, trial 0 by Fast-WAM's rules, rendered by Mesa 22.3.6 on a CPU."""


@dataclass(frozen=True)
class Libero:
    """See :class:`Benchmark`."""

    name: str
    title: str
    rules: str
    suites: tuple[str, ...]
    official: tuple[str, ...]
    published: tuple[Published, ...]
    note: str = ""

    def protocol(self) -> dict[str, Any]:
        """See :class:`Benchmark`."""
        return {"rules": self.rules, **asdict(RULES[self.rules])}

    def tasks(self, suites: Sequence[str]) -> list[Task]:
        """See :class:`Benchmark`."""
        folders = {suite: suite.removesuffix(MOVED) for suite in suites}
        found = _tasks(tuple(dict.fromkeys(folders.values())))
        return [Task(suite, k, *about, told=True) for suite in suites for k, about in enumerate(found[folders[suite]])]

    def policy(self, source: str, mode: str = "") -> Policy | None:
        """See :class:`Benchmark`."""
        return None if source == EXPERT else INTERFACE.policy(source, mode)

    def check(self, info: PolicyInfo, source: str) -> None:
        """See :class:`Benchmark`."""
        INTERFACE.check(info, source)

    def expert_identity(self) -> str:
        """See :class:`Benchmark`."""
        return sha256(*sorted(Path(apart.__file__).parent.glob("libero_*.py")))[:12]

    def open(self, task: Task, policy: Policy | None, log: Path, *, film: bool) -> LockstepTask:
        """See :class:`Benchmark`."""
        rules = RULES[self.rules]
        look = policy is not None and (film or bool(policy.info.cameras))
        process = opened(task, rules, log, look=look)
        limit = rules.limits[_kind(task.suite)]
        return LockstepTask(process, task, INTERFACE, policy, rules.replan, limit)

    def remarks(self, episodes: Sequence[Episode]) -> list[str]:
        """See :class:`Benchmark`."""
        first = {each.suite: each.picture for each in episodes if each.key[1:] == (0, 0) and each.picture}
        known = _PICTURES if self.rules == "fastwam" else {}
        if not (other := [suite for suite, picture in first.items() if known.get(suite, picture) != picture]):
            return []
        return [f"another renderer than Mesa 22.3.6 on a CPU: the pictures of {', '.join(other)} differ from its"]


def libero(rules: str) -> Libero:
    """LIBERO by the rules of that name."""
    moved = tuple(suite + MOVED for suite in _SUITES)
    return Libero("libero", f"LIBERO, rules of {rules}", rules, _SUITES + moved, _SUITES, PUBLISHED)


def libero_pro(rules: str) -> Libero:
    """LIBERO-PRO by the rules of that name: other words, objects, places and goals than those of training."""
    official = tuple(f"{suite}_{change}" for suite in _SUITES for change in ("swap", "object", "lan", "task"))
    shifted = tuple(f"libero_object_temp_{axis}0.{k}" for axis in "xy" for k in range(1, 6))
    return Libero("libero-pro", f"LIBERO-PRO, rules of {rules}", rules, official + shifted, official, ())


def opened(task: Task, rules: Rules, log: Path, *, look: bool, place: str = _PLACE) -> SimulatorProcess:
    """A simulator with a task loaded, and cameras where somebody is to `look`; `place` is its class.

    Raises:
        RunError: it does not start.
    """
    process, _ = started(
        "libero", "LIBERO", place, log, _ENVIRONMENT, "open", suite=task.suite.removesuffix(MOVED), task=task.number,
        seed=rules.seed, settle=rules.settle, size=rules.size, look=look, seed_each=rules.seed_each,
        things_moved=task.suite.endswith(MOVED),
    )  # fmt: skip
    return process


def _kind(suite: str) -> int:
    """Of which of the four suites it is, or a variant of."""
    return next(k for k, name in enumerate(_SUITES) if suite.startswith(name))


@cache
def _tasks(suites: tuple[str, ...]) -> dict[str, list[tuple[str, int]]]:
    return dict(about_tasks("libero", "LIBERO", _PLACE, _ENVIRONMENT, suites=list(suites))["tasks"])
