"""Our own simulator as a benchmark: tasks of the R1 Lite, through the bridge, as `eval-sim` does one of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.benchmarks.base import EXPERT, NOOP, Episode, Published, Task
from fastwam_policy.benchmarks.lockstep import fingerprint
from fastwam_policy.common.files import sha256
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import ActionChunk, Channel, Observation, Pixels, Policy, PolicyInfo
from fastwam_policy.policies.loading import load_policy
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.simulation.episode import CAMERA_FPS, EpisodeSettings, run_in
from fastwam_policy.simulation.evaluate import check_rendered
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim import expert, tasks
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.randomization import LEVELS, draw
from galaxea_r1lite_sim.simulation import Simulation
from galaxea_r1lite_sim.tasks import TASK_NAMES, TASKS

_TRIALS = 100  # seeds 0 to 99; training uses seeds from 10000
_HORIZON = 32  # steps of a chunk, as a policy's


@dataclass(frozen=True)
class Sim:
    """See :class:`Benchmark`; the suites are what varies from seed to seed.

    Args:
        robot: file that describes the robot; None: the installed one.
        time_limit: s of simulated time for an episode.
    """

    robot: Path | None = None
    time_limit: float = EpisodeSettings.time_limit
    name: str = "sim"
    title: str = "Simulated R1 Lite"
    note: str = ""
    suites: tuple[str, ...] = LEVELS
    official: tuple[str, ...] = ("full",)
    published: tuple[Published, ...] = ()

    def protocol(self) -> dict[str, Any]:
        """See :class:`Benchmark`; without what the suite and the task say."""
        settings = asdict(EpisodeSettings(time_limit=self.time_limit))
        for name in ("level", "task", "instruction"):
            del settings[name]
        return settings | {"robot": RobotConfig.load(self.robot).digest()}

    def tasks(self, suites: Sequence[str]) -> list[Task]:
        """See :class:`Benchmark`."""
        numbered = list(enumerate(TASKS.values()))
        return [Task(suite, k, task.instruction, _TRIALS, told=True) for suite in suites for k, task in numbered]

    def policy(self, source: str, mode: str = "") -> Policy | None:
        """See :class:`Benchmark`."""
        robot = RobotConfig.load(self.robot)
        if source == EXPERT:
            return None
        if source == NOOP:
            return _Plan(robot)
        policy = load_policy(source, {"mode": mode} if mode else {})
        self.check(policy.info, source)
        return policy

    def check(self, info: PolicyInfo, source: str) -> None:
        """See :class:`Benchmark`."""
        robot = RobotConfig.load(self.robot)
        check_robot(info, robot, source)
        check_rendered(info, robot, source)

    def expert_identity(self) -> str:
        """See :class:`Benchmark`."""
        files = [Path(expert.__file__), *sorted(Path(tasks.__file__).parent.glob("*.py"))]
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:12]

    def open(self, task: Task, policy: Policy | None, log: Path, *, film: bool) -> OpenSim:
        """See :class:`Benchmark`; this simulator runs in this process, and prints nothing."""
        level: Any = task.suite  # one of LEVELS
        settings = EpisodeSettings(
            level, time_limit=self.time_limit, task=TASK_NAMES[task.number], instruction=task.instruction
        )
        return OpenSim(RobotConfig.load(self.robot), task, policy, settings)

    def remarks(self, episodes: Sequence[Episode]) -> list[str]:
        """See :class:`Benchmark`."""
        return []


class OpenSim:
    """A task at one level; each trial is a seed."""

    def __init__(self, robot: RobotConfig, task: Task, policy: Policy | None, settings: EpisodeSettings) -> None:
        self._robot, self._task, self._policy, self._settings = robot, task, policy, settings
        if policy is not None:
            policy.prepare(task.instruction)

    def play(self, trial: int, film: Path | None) -> Episode:
        """See :class:`OpenTask`."""
        started = time.perf_counter()
        simulation = Simulation(self._robot, draw(trial, self._settings.level, self._settings.task))
        initial, frames, targets = _scene(simulation), list[Pixels](), list[NDArray[np.float64]]()
        try:
            policy = self._policy or _Plan(self._robot, simulation)
        except expert.UnreachableError as error:
            return Episode(
                suite=self._task.suite, task=self._task.number, trial=trial, success=False, failure=str(error), steps=0,
                seconds=time.perf_counter() - started, initial=initial, final=initial,
            )  # fmt: skip

        def keep(cameras: Cameras) -> None:
            targets.append(simulation.target.copy())
            if film is not None:
                frames.append(cameras.render(cameras.names[0]).copy())

        result = run_in(simulation, policy, self._robot, trial, self._settings, keep)
        if film is not None and not result.success:
            write_video(film, frames, CAMERA_FPS)
        return Episode(
            suite=self._task.suite, task=self._task.number, trial=trial, success=result.success, failure=result.failure,
            steps=round(result.time * policy.info.fps), seconds=time.perf_counter() - started,
            inference_ms=result.inference_ms, initial=initial, actions=fingerprint(*targets),
            final=_scene(simulation), simulator="galaxea_r1lite_sim",
        )  # fmt: skip

    def close(self) -> None:
        """Nothing is held open."""


class _Plan:
    """A policy that knows the whole plan: that of the expert for a scene; without one, to stay where it is."""

    def __init__(self, robot: RobotConfig, simulation: Simulation | None = None) -> None:
        joints = tuple(Channel(name, unit) for name, unit in zip(robot.joint_names, robot.units, strict=True))
        name = NOOP if simulation is None else EXPERT
        self.info = PolicyInfo(name, (), joints, joints, 1 / expert.STEP, _HORIZON)
        self._plan = None if simulation is None else simulation.plan()
        self._begin: int | None = None

    def prepare(self, instruction: str) -> None:
        """It knows the scene."""

    def reset(self) -> None:
        """Begin the plan again."""
        self._begin = None

    def close(self) -> None:
        """Nothing is held open."""

    def infer(self, observation: Observation) -> ActionChunk:
        """The plan from the observation's time on."""
        self._begin = observation.stamp_ns if self._begin is None else self._begin
        names = [channel.name for channel in self.info.action]
        plan = np.array([[observation.joints[name] for name in names]]) if self._plan is None else self._plan
        first = round((observation.stamp_ns - self._begin) / self.info.step_ns)
        rows = plan[np.arange(first, first + _HORIZON).clip(max=len(plan) - 1)]
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, rows)


def _scene(simulation: Simulation) -> str:
    return fingerprint(simulation.data.qpos, simulation.data.qvel, simulation.things)
