"""`fastwam collect`: episodes of the scripted expert in the simulator, as a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import alone_in
from fastwam_policy.common.parallel import EVERY_CORE, Where
from fastwam_policy.common.settings import Uncompared
from fastwam_policy.data.filling import fill
from fastwam_policy.data.lerobot_layout import Version
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim
from fastwam_policy.policies.base import Policy
from fastwam_policy.policies.loading import inspect_policy, policy_key
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.simulation.episode import EpisodeSettings, drive, received
from fastwam_policy.simulation.evaluate import check_rendered, ready_policy
from fastwam_policy.simulation.takeover import REST, corrected
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.expert import STEP, UnreachableError
from galaxea_r1lite_sim.randomization import LEVELS, Level, draw
from galaxea_r1lite_sim.simulation import Simulation
from galaxea_r1lite_sim.tasks import TaskName

FPS = round(1 / STEP)
_ATTEMPTS = 50  # seeds tried for one episode before it is given up
_NEXT_SEED = 1_000_000  # between two attempts: episodes and evaluations use seeds below
_DRIVES = (0.3, 8.0)  # s that a policy drives: a fold and more, for a policy that does not let go
_LATENCIES = (0.05, 0.1, 0.15, 0.2)  # s that its chunks take
_DELAYS = (0.0, 0.02, 0.04, 0.08)  # s by which its targets arrive late
_CORRELATION = 0.85  # of the noise from one step to the next
_KICK, _KICK_SHARE = 0.035, 0.01  # rad, and share of the steps that get one
_CAREFUL = 0.3  # of the noise while a gripper moves or holds still to grasp and release
_CAREFUL_STEPS = 6  # steps before and after a gripper's motion that count as careful


@dataclass(frozen=True)
class CollectSettings:
    """What to collect.

    Attributes:
        task: instruction of all episodes.
        level: what varies from seed to seed.
        noise: rad, standard deviation of the noise added to the executed targets; the recorded action is the expert's,
            so the data shows how to come back.
        height: of the images, pixels; they are 16:9.
        first_seed: of episode 0; episode i uses first_seed + i.
        version: of the LeRobot format.
        policy: source of the policy that drives until a random moment; the expert takes over where that has led
            (DAgger). Empty: the expert from the start.
        takeover: the policy drives from the start, which is recorded; where it stalls the expert takes over through the
            bridge and without noise.
        policy_sha256: hashes of it, or its source where they are not known; :func:`collect` fills it in.
        robot: hash of what describes the robot, which :func:`collect` fills in.
        simulated: the simulator's task.
    """

    task: str
    level: Level = "full"
    noise: float = 0.015
    height: int = 180
    first_seed: int = 10_000
    version: Version = "v2.1"
    policy: Uncompared[str] = ""
    policy_sha256: str = ""
    takeover: bool = False
    robot: str = ""
    simulated: TaskName = "fold"


def collect(
    folder: Path, episodes: int, settings: CollectSettings, where: Where = EVERY_CORE, robot: Path | None = None
) -> int:
    """Write `episodes` successful episodes into the dataset at `folder`; those that are there already are kept.

    `robot` is another robot file than the installed one. Returns the number of seeds on which the expert failed.

    Raises:
        ConfigError: the folder holds episodes of other settings or of a policy with other weights, another command
            writes into it, or there is no policy to take over from.
        RunError: an episode failed too often, or the disk is too small.
    """
    if settings.level not in LEVELS:
        raise ConfigError(f"randomization must be one of {', '.join(LEVELS)}, got {settings.level!r}")
    if settings.takeover and not settings.policy:
        raise ConfigError("takeover: name the policy that the expert takes over from (--policy)")
    settings = replace(settings, robot=RobotConfig.load(robot).digest())
    if settings.policy:
        info = inspect_policy(settings.policy)
        check_robot(info, RobotConfig.load(robot), settings.policy)
        check_rendered(info, RobotConfig.load(robot), settings.policy)
        settings = replace(settings, policy_sha256=policy_key(info, settings.policy) or settings.policy)
    with alone_in(folder):
        claim(folder, "collect", settings)
        about = RobotConfig.load(robot)
        dataset = Dataset(folder, about, FPS, settings.version)
        pixels = len(about.cameras) * settings.height * settings.height * 16 // 9
        return fill(dataset, episodes, pixels, _collect_one, (folder, settings, robot), where)


def record(robot: RobotConfig, seed: int, settings: CollectSettings) -> Episode | None:
    """One episode of the expert with noise; None where the task was not done in the end."""
    simulation = Simulation(robot, draw(seed, settings.level, settings.simulated))
    cameras = Cameras(simulation, settings.height, settings.height * 16 // 9)
    random = np.random.default_rng((seed, 2))
    driving = EpisodeSettings(
        settings.level, random.choice(_LATENCIES), height=settings.height, task=settings.simulated,
        instruction=settings.task, delay=random.choice(_DELAYS),
    )  # fmt: skip
    if settings.takeover:
        often = replace(driving, replan=driving.latency)  # it is asked again at once: what hovers, hovers longer
        return corrected(_driver(settings), robot, simulation, cameras, often, settings.task)
    if settings.policy:
        seconds = float(random.uniform(*_DRIVES))
        drive(_driver(settings), robot, simulation, cameras, driving, seconds)
    targets = simulation.plan()
    if targets is None:
        return None
    images: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in cameras.names}
    states = []
    for target, noise in zip(targets, _noise(robot, targets, settings.noise, seed), strict=True):
        for camera, frames in images.items():
            frames.append(received(cameras, camera))
        states.append(simulation.joints)
        simulation.target = target + noise
        simulation.step(STEP)
    simulation.step(REST * STEP)
    if not simulation.progress().success:
        return None
    state = np.array(states)
    return Episode(
        settings.task,
        images,
        {name: state[:, place] for name, place in robot.slices.items()},
        {name: targets[:, place] for name, place in robot.slices.items()},
        np.full(len(targets), bool(settings.policy)),
    )


def _driver(settings: CollectSettings) -> Policy:
    return ready_policy(settings.policy, instruction=settings.task)


def _collect_one(index: int, folder: Path, settings: CollectSettings, robot_file: Path | None) -> int:
    robot = RobotConfig.load(robot_file)
    for attempt in range(_ATTEMPTS):
        try:
            episode = record(robot, settings.first_seed + index + attempt * _NEXT_SEED, settings)
        except UnreachableError:
            continue
        if episode is not None:
            Dataset(folder, robot, FPS, settings.version).write(index, episode)
            return attempt
    raise RunError(f"episode {index}: the expert failed on {_ATTEMPTS} seeds in a row")


def _noise(robot: RobotConfig, targets: NDArray[np.float64], scale: float, seed: int) -> Iterator[NDArray[np.float64]]:
    """Correlated noise [D] for each step, with rare kicks; grippers have none."""
    random = np.random.default_rng((seed, 1))
    arms = robot.is_arm
    moving = (np.abs(np.diff(targets[:, ~arms], axis=0, prepend=targets[:1, ~arms])) > 0).any(axis=1)
    careful = np.convolve(moving, np.ones(2 * _CAREFUL_STEPS + 1), "same") > 0
    value = np.zeros(len(arms))
    for gentle in careful:
        value = _CORRELATION * value + np.sqrt(1 - _CORRELATION**2) * random.normal(0, scale, len(arms))
        if scale and random.random() < _KICK_SHARE:
            value += random.normal(0, _KICK, len(arms))
        yield np.where(arms, value * (_CAREFUL if gentle else 1.0), 0.0)
