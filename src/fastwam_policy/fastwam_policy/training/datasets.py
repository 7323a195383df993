"""The datasets of a training, read as its policy is to be fed: by a robot of ours, or by a benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastwam_policy.data.body import Body
from fastwam_policy.data.lerobot_index import RecordedEpisode
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.streamed import local_folder
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from fastwam_policy.policies.fastwam.embodiments import BENCHMARKS
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.training.config import TrainingConfig
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def open_datasets(config: TrainingConfig, robot: Path | None = None) -> list[Reader]:
    """Readers of the datasets, without the episodes that cannot be used; their notes say which.

    `robot` is another robot file than the installed one.

    Raises:
        ConfigError: the policy does not fit the robot or benchmark that its `robot_type` names, or a dataset does not
            fit the policy.
    """
    policy = config.policy
    body = _body(policy, robot)
    readers = [Reader(local_folder(place), body, policy.fps, _cameras(policy)) for place in config.datasets]
    for reader in readers:
        reader.leave_out_unusable()
        _check_toggled(reader, policy)
    return readers


def _check_toggled(reader: Reader, policy: BundleConfig) -> None:
    """ConfigError where what opens at -1 and closes at 1 goes from 0 to 1, as the authors' datasets have it."""
    for name in policy.action.toggled:
        place = reader.body.action_names.index(name)
        found = (reader.vectors(episode)[1][:, place].min() for episode in reader.episodes)
        if all(least >= 0 for least in found):  # an episode that only holds on is closed from beginning to end
            raise ConfigError(
                f"{reader.folder}: action {name} is nowhere below 0; -1 is to open and 1 to close, as the simulator "
                "takes it. Where 1 opens and 0 closes, write 1 - 2 g for g"
            )


def _body(policy: BundleConfig, robot_file: Path | None) -> RobotConfig | Body:
    if policy.robot_type not in BENCHMARKS:
        robot = RobotConfig.load(robot_file)
        check_robot(policy.info(), robot, "policy")
        return robot
    own = BENCHMARKS[policy.robot_type]
    problems = [f"action.kind: {policy.action.kind}, not {own.action.kind}"] * (policy.action.kind != own.action.kind)
    known = {"state": own.state.channels, "action": own.action.channels}
    problems += [
        f"{kind}: {channel.name} ({channel.unit}) is unknown; there are "
        + ", ".join(f"{each.name} ({each.unit})" for each in known[kind])
        for kind, vector in (("state", policy.state), ("action", policy.action))
        for channel in vector.channels
        if channel not in known[kind]
    ]
    if missing := [name for name in own.action.names if name not in policy.action.names]:
        problems.append(f"action: {', '.join(missing)} missing")
    cameras = [tile.camera for tile in own.layout.tiles]
    problems += [f"cameras: {name}; there are {', '.join(cameras)}" for name in _cameras(policy) if name not in cameras]
    if problems:
        raise ConfigError(f"policy does not fit {policy.robot_type}:\n  " + "\n  ".join(problems))
    return Body.plain(policy.robot_type, policy.state.names, policy.action.names, cameras)


def _cameras(policy: BundleConfig) -> list[str]:
    return [tile.camera for tile in policy.layout.tiles]


def spread(readers: Sequence[Reader], count: int) -> list[tuple[Reader, RecordedEpisode, list[int]]]:
    """`count` frames, or all that there are, evenly from all episodes; by episode, with their numbers in it."""
    episodes = [(reader, episode) for reader in readers for episode in reader.episodes]
    begins = np.cumsum([0, *(episode.length for _, episode in episodes)])
    chosen = np.linspace(0, begins[-1] - 1, min(count, int(begins[-1]))).round().astype(int)
    places = [chosen[(begin <= chosen) & (chosen < end)] - begin for begin, end in itertools.pairwise(begins)]
    return [(*each, frames.tolist()) for each, frames in zip(episodes, places, strict=True) if len(frames)]
