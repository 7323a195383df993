"""RoboTwin 2.0 behind a pipe, as `rlinf-robotwin-runtime` packs it. Runs in RoboTwin's environment.

Trial k is the k-th seed from 4,300,000 on that RoboTwin's own expert solves. With the stand-in, whose arms the expert
cannot use, every seed counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import robotwin_standin

_CAMERAS = {"head": "head_camera", "wrist_left": "left_camera", "wrist_right": "right_camera"}
_FIRST_SEED = 100_000 * (1 + 42)  # RoboTwin's rule, with the seed of Fast-WAM's authors
_EMBODIMENT = Path("assets") / "embodiments" / "aloha-agilex"
_INSTRUCTIONS = 100  # made for an episode, of which one is drawn
_PACKAGES = ("rlinf-robotwin-runtime", "sapien", "mplib", "numpy")


class RoboTwin:
    """Answers the questions of `lockstep.py`, and `tasks` and `open` before."""

    def __init__(self) -> None:
        self._env: Any = None

    def on_tasks(self) -> dict[str, Any]:
        """All tasks, each with its number of steps; and those that need no assets."""
        config = importlib.import_module("robotwin.config")
        return {"limits": config.load_task_config("_eval_step_limit"), "standin": list(robotwin_standin.TASKS)}

    def on_open(self, setting: str, task: str, assets: str, planner: str, seeds: str) -> dict[str, Any]:
        """Load a task.

        Args:
            setting: demo_clean or demo_randomized.
            task: its name.
            assets: folder of RoboTwin's assets; empty: the stand-in.
            planner: curobo or mplib, of RoboTwin's expert.
            seeds: file that keeps which seeds the expert solves, which takes it minutes.
        """
        self._standin = not assets
        root = Path(assets) if assets else Path(tempfile.mkdtemp(prefix="robotwin-standin-"))
        if self._standin:
            robotwin_standin.write(root / _EMBODIMENT)
            robotwin_standin.without_ray_tracing()
        os.environ["ROBOTWIN_ASSETS_ROOT"] = os.environ["ASSETS_PATH"] = str(root)
        robotwin_standin.without_torch()
        assets_module = importlib.import_module("robotwin.assets")
        assets_module.validate_root(root)  # a ValueError says what is missing
        config = importlib.import_module("robotwin.config")
        yaml = importlib.import_module("yaml")
        robot = str(root / _EMBODIMENT)
        embodiment = yaml.safe_load((root / _EMBODIMENT / "config.yml").read_text())
        self._settings = config.load_task_config(setting) | {
            "task_name": task, "left_robot_file": robot, "right_robot_file": robot, "dual_arm_embodied": True,
            "left_embodiment_config": embodiment, "right_embodiment_config": embodiment, "planner_backend": planner,
            "eval_mode": True, "eval_video_log": False, "save_path": tempfile.mkdtemp(prefix="robotwin-"),
        }  # fmt: skip
        self._task, self._seeds = task, Path(seeds)
        self._env = getattr(importlib.import_module(f"robotwin.envs.{task}"), task)()
        self._unstable = importlib.import_module("robotwin.envs.utils.create_actor").UnStableError
        self._judged = judged(self._seeds)
        return {"limit": config.load_task_config("_eval_step_limit")[task]}

    def on_begin(self, trial: int, look: bool) -> dict[str, Any]:
        """The scene of a trial, and an instruction that no training had."""
        good, seed = -1, _FIRST_SEED - 1
        while good < trial:
            seed += 1
            good += self._is_solvable(seed)
        self._set_up(seed)
        if self._standin:
            info = self._env.get_info()
        else:
            info = self._env.play_once()["info"]
            self._set_up(seed)
        describe = importlib.import_module("robotwin.description.instructions").generate_episode_descriptions
        texts = describe(self._task, [info], _INSTRUCTIONS, seed=seed)[0]["unseen"]
        instruction = str(np.random.default_rng(seed).choice(texts))
        self._env.set_instruction(instruction)
        return {
            "initial": self._fingerprint(), "simulator": self._versions(), "instruction": instruction,
            "observation": self._observation(look),
        }  # fmt: skip

    def on_step(self, actions: NDArray[np.float64], look: bool) -> dict[str, Any]:
        """Execute joint targets [N, 14], until success."""
        steps = 0
        for action in actions:
            self._env.take_action(action, "qpos")
            steps += 1
            if self._env.eval_success:
                break
        done = bool(self._env.eval_success)
        return {"steps": steps, "done": done, "observation": self._observation(look and not done)}

    def on_fingerprint(self) -> dict[str, Any]:
        """Hash of the scene as it is."""
        return {"final": self._fingerprint()}

    def _set_up(self, seed: int) -> None:
        if getattr(self._env, "scene", None) is not None:
            self._env.close_env()
        self._env.setup_demo(now_ep_num=0, seed=seed, is_test=True, **self._settings)

    def _is_solvable(self, seed: int) -> bool:
        """Whether a seed counts; found out once."""
        if seed not in self._judged:
            try:
                self._set_up(seed)
                if not self._standin:
                    self._env.play_once()
                good = self._standin or bool(self._env.plan_success and self._env.check_success())
            except Exception as error:  # noqa: BLE001  as RoboTwin's evaluation: whatever its expert meets
                print(f"seed {seed} does not count: {type(error).__name__}: {error}")
                good = False
            self._judged[seed] = good
            with self._seeds.open("a") as file:
                file.write(json.dumps([seed, good]) + "\n")
        return self._judged[seed]

    def _observation(self, look: bool) -> dict[str, Any]:
        robot = self._env.robot
        state = [*robot.get_left_arm_jointState(), *robot.get_right_arm_jointState()]
        found: dict[str, Any] = {"state": np.array(state, np.float64)}
        if look:
            seen = self._env.get_obs()["observation"]
            found["images"] = {name: np.ascontiguousarray(seen[key]["rgb"], np.uint8) for name, key in _CAMERAS.items()}
        return found

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for actor in self._env.scene.get_all_actors():
            pose = actor.get_pose()
            digest.update(np.concatenate([pose.p, pose.q]).astype(np.float32).tobytes())
        for entity in (self._env.robot.left_entity, self._env.robot.right_entity):
            digest.update(np.asarray(entity.get_qpos(), np.float32).tobytes())
        return digest.hexdigest()[:12]

    def _versions(self) -> str:
        return ", ".join([f"{package} {version(package)}" for package in _PACKAGES] + ["stand-in"] * self._standin)


def judged(file: Path) -> dict[int, bool]:
    """Which seeds count, as it was found out first; a line that a kill cut off is left out."""
    found: dict[int, bool] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError, TypeError):
            seed, good = json.loads(line)
            found.setdefault(int(seed), bool(good))
    return found
