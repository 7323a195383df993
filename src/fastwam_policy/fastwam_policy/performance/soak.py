"""`fastwam soak`: simulated trials through the nodes for a long time, and whether what they take of a machine grows."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import rclpy

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.progress import counted
from fastwam_policy.launching.process_group import Used
from fastwam_policy.policies.loading import inspect_policy
from fastwam_policy.simulation.episode import EpisodeSettings
from fastwam_policy.simulation.evaluate import check_rendered
from fastwam_policy.simulation.through_nodes import NodeEpisodes
from galaxea_r1lite_bridge.robot.config import RobotConfig

WATCHED = ("sim_node", "policy_node", "bridge_node", "recorder_node", "monitor_node")
ALLOWED = 5.0
"""MB an hour by which a node's memory may grow."""
_STEP = 3.0  # MB: an allocator takes and gives back memory in steps, which a short run cannot tell from growth
_EVERY = 5.0  # s between two looks
_WARM_UP = 0.25  # share of the time that is not judged


@dataclass(frozen=True)
class Growth:
    """What a node had after the warm-up, and in the end: in the first and in the last fifth of what is judged.

    `rate` is MB an hour.
    """

    memory: tuple[float, float]
    """MB, the least: an allocator takes and gives back, and what leaks is never given back."""
    threads: tuple[int, int]
    """Medians, as of the files."""
    files: tuple[int, int]
    rate: float
    flat: bool


@dataclass(frozen=True)
class Soaked:
    """What came of it: each node's growth, the trials, and how many of them succeeded."""

    nodes: Mapping[str, Growth]
    trials: int
    succeeded: int
    hours: float


def soak(policy: str, seconds: float, robot_file: Path | None = None) -> Soaked:
    """Run trials for so many s with all nodes of mode sim, a recording with images, and the markers of RViz.

    Raises:
        ConfigError: the policy is none, or needs a camera that the simulator cannot render.
        RunError: a node did not come up, or has ended.
    """
    check_rendered(inspect_policy(policy), RobotConfig.load(robot_file), policy)
    rclpy.init()
    try:
        with TemporaryDirectory() as folder:
            return _soak(policy, seconds, Path(folder), robot_file)
    finally:
        rclpy.try_shutdown()


def growth(seen: Sequence[Used], hours: float) -> Growth:
    """Of a node that was looked at at equal distances, over so many hours."""
    judged = seen[round(_WARM_UP * len(seen)) :]
    fifth = max(1, len(judged) // 5)
    first, last = (
        [
            float(of_all([getattr(used, name) for used in part]))
            for name, of_all in (("memory", np.min), ("threads", np.median), ("files", np.median))
        ]
        for part in (judged[:fifth], judged[-fifth:])
    )
    grown, between = (last[0] - first[0]) / 1e6, hours * (1 - _WARM_UP) * 0.8
    return Growth(
        (first[0] / 1e6, last[0] / 1e6), (int(first[1]), int(last[1])), (int(first[2]), int(last[2])), grown / between,
        grown <= max(ALLOWED * between, _STEP) and last[1] <= first[1] and last[2] <= first[2],
    )  # fmt: skip


def _soak(policy: str, seconds: float, folder: Path, robot_file: Path | None) -> Soaked:
    settings = EpisodeSettings(level="objects")
    seen: dict[str, list[Used]] = {name: [] for name in WATCHED}
    nodes, ended = NodeEpisodes(RobotConfig.load(robot_file), folder / "nodes.log"), threading.Event()

    def watch() -> None:
        while True:
            for name, found in seen.items():
                try:
                    found.append(nodes.group.used(name))
                except psutil.NoSuchProcess:
                    return
            if ended.wait(_EVERY):
                return

    try:
        nodes.start_all(policy, settings, robot_file, 0)
        nodes.start("fastwam_policy", "recorder_node", images=True, output=folder / "session", use_sim_time=True)
        nodes.start("fastwam_policy", "monitor_node", use_sim_time=True)
        begin, watcher = time.monotonic(), threading.Thread(target=watch)
        watcher.start()
        succeeded = 0
        with counted() as progress:
            task = progress.add_task("seconds", total=round(seconds))
            for seed in count():
                succeeded += nodes.run_one(seed, settings).success
                progress.update(task, completed=round(time.monotonic() - begin), description=f"trial {seed + 1}")
                if gone := nodes.group.ended():
                    raise RunError(f"{gone[0]} has ended with {gone[1]}. {nodes.last_lines()}")
                if (elapsed := time.monotonic() - begin) >= seconds:
                    break
        ended.set()
        watcher.join()
    finally:
        ended.set()
        nodes.close()
    hours = elapsed / 3600
    return Soaked({name: growth(found, hours) for name, found in seen.items()}, seed + 1, succeeded, hours)
