"""Episodes in the simulator through the real nodes over ROS 2: eval-sim --nodes."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rclpy

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import PolicyStatus
from fastwam_msgs.srv import ResetSimulation
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.processes import processes
from fastwam_policy.launching.task_rig import TaskRig
from fastwam_policy.policies.loading import inspect_policy, policy_key
from fastwam_policy.simulation.episode import EpisodeResult, EpisodeSettings
from fastwam_policy.simulation.evaluate import Evaluation, check_rendered, gather
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.contacts import of_messages

_RESET_TIME = 60.0  # s for a new scene
_SEEN = 0.2  # s of a new scene until the bridge has seen that the arms are elsewhere


def evaluate_nodes(
    source: str,
    seeds: Sequence[int],
    settings: EpisodeSettings,
    log: Path,
    figures: Path | None = None,
    robot: Path | None = None,
    denoise_steps: int = 0,
) -> dict[str, Any]:
    """Run an episode for each seed through simulator, policy and bridge; `log` takes their output.

    `robot` is another robot file than the installed one; `denoise_steps` are of a bundle, 0 for its own number;
    `figures` and what is returned are as in :func:`gather`.

    Raises:
        ConfigError: the policy needs a camera that the simulator cannot render.
        RunError: a node does not come up, or does not answer any more.
    """

    def run(missing: Sequence[int]) -> Generator[EpisodeResult, None, None]:
        rclpy.init()
        trials = NodeEpisodes(RobotConfig.load(robot), log)
        try:
            trials.start_all(source, settings, robot, denoise_steps)
            yield from (trials.run_one(seed, settings) for seed in missing)
        finally:
            trials.close()
            rclpy.try_shutdown()

    # The latency is what the nodes have, and not the one of the settings.
    info = inspect_policy(source)
    check_rendered(info, RobotConfig.load(robot), source)
    identity = policy_key(info, source) or f"{source}, {time.time():.3f}"
    how = Evaluation(
        **asdict(settings), policy=identity, seeds=tuple(seeds), nodes=True, robot=RobotConfig.load(robot).digest(),
        denoise_steps=denoise_steps,
    )  # fmt: skip
    return gather(run, how, figures)


class NodeEpisodes(TaskRig):
    """Nodes that run episode after episode."""

    def __init__(self, robot: RobotConfig, log: Path) -> None:
        super().__init__("sim_trials", robot, log)
        self._policy: PolicyStatus | None = None
        self.node.create_subscription(PolicyStatus, robot.interfaces.policy_status, self._on_policy, 10)
        self._reset = self.node.create_client(ResetSimulation, robot.interfaces.reset)

    def start_all(self, source: str, settings: EpisodeSettings, robot: Path | None, denoise_steps: int) -> None:
        """The processes of mode sim; nothing moves yet."""
        for process in processes("sim", {"policy": source, "robot_config": str(robot or ""), "task": settings.task}):
            command = process.command()
            if process.name == "sim_node":
                command += ["-p", f"image_height:={settings.height}", "-p", f"jpeg_quality:={settings.jpeg_quality}"]
                command += ["-p", f"latency:={settings.delay}"]
            if process.name == "policy_node":
                realtime = "guidance" if settings.blending == "rtc" else "off"
                command += ["-p", "run_on_start:=false", "-p", f"replan_interval:={settings.replan}"]
                command += ["-p", f"hover_interval:={settings.hover_interval}"]
                command += ["-p", f"realtime:='{realtime}'", "-p", f"denoise_steps:={denoise_steps}"]
            if process.name == "bridge_node":
                command += ["-p", f"blending:={settings.blending}"]
                command += ["-p", f"gripper_hysteresis:={settings.gripper_hysteresis}"]
            self.group.start(process.name, command)
        self.until_loaded()
        self.until(self._reset.service_is_ready, "the simulator")

    def run_one(self, seed: int, settings: EpisodeSettings) -> EpisodeResult:
        """New scene, arm, run the task to its end, disarm."""
        self.arm(wanted=False)
        answer = self.ask(self._reset, ResetSimulation.Request(seed=seed, randomization=settings.level), _RESET_TIME)
        if answer is None or not answer.success:
            raise RunError(f"seed {seed}: {'no answer from sim_node' if answer is None else answer.message}")
        self.simulation = None
        self.until(lambda: self._has_begun(seed), "the new scene")
        self.arm()
        result = self.run_task(settings.time_limit, settings.instruction)
        policy = self._policy
        latency = float(policy.latency_p50[-1]) if policy is not None and len(policy.latency_p50) else 0.0
        success = result.code == RunTask.Result.SUCCEEDED
        failure, status = "" if success else task_failure(result, self), self.simulation
        assert status is not None
        grasped, contacts = sum(count > 0 for count in status.grasps), of_messages(status.contacts)
        return EpisodeResult(seed, success, self.elapsed, failure, grasped, status.distance, latency, contacts)

    def _has_begun(self, seed: int) -> bool:
        return self.simulation is not None and self.simulation.seed == seed and self.simulation.time >= _SEEN

    def _on_policy(self, status: PolicyStatus) -> None:
        self._policy = status


def task_failure(result: RunTask.Result, rig: TaskRig) -> str:
    """Class of a failed task, as the simulator sees it where the time was over."""
    if result.code == RunTask.Result.TIME_LIMIT:
        assert rig.simulation is not None
        return str(rig.simulation.failure)
    return f"task ended with {result.code}: {result.message}"
