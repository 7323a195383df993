"""`fastwam eval-sim --nodes`: the episodes through the real nodes over ROS 2, one task after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action import ActionClient

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import PolicyStatus, SimulationStatus
from fastwam_msgs.srv import ResetSimulation
from fastwam_policy.evaluation.eval_sim import Outcome, Settings, failure_class
from fastwam_policy.nodes.rig import Rig
from fastwam_policy.processes import processes
from fastwam_policy.progress import counted
from galaxea_r1lite_bridge.nodes.conversions import duration_message
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.simulation import Progress as FoldProgress

_NS = 1_000_000_000
_RESET_TIME = 60.0  # s for a new scene
_ARMED_TIME, _PAUSE = 30.0, 0.2  # s for the policy node to hear that the bridge is armed, and between two questions
_SLOWEST = 20.0  # times as long as simulated time a task may take


def evaluate_nodes(bundle: Path, seeds: Sequence[int], settings: Settings, log: Path) -> list[Outcome]:
    """Run an episode for each seed through simulator, policy and bridge; `log` takes their output.

    Raises:
        ConfigError: a node does not come up, or answers no more.
    """
    robot = RobotConfig.load()
    rclpy.init()
    trials = _Trials(robot, log)
    outcomes: list[Outcome] = []
    try:
        trials.start_all(bundle, settings)
        with counted() as progress:
            task = progress.add_task("episodes", total=len(seeds))
            for seed in seeds:
                outcomes.append(trials.run_one(seed, settings))
                folded = sum(outcome.success for outcome in outcomes)
                progress.update(task, advance=1, description=f"folded {folded} of {len(outcomes)}")
    finally:
        trials.close()
        rclpy.try_shutdown()
    return outcomes


class _Trials(Rig):
    def __init__(self, robot: RobotConfig, log: Path) -> None:
        super().__init__("sim_trials", robot, log)
        names = robot.interfaces
        self._simulation: SimulationStatus | None = None
        self._policy: PolicyStatus | None = None
        self.node.create_subscription(SimulationStatus, names.simulation, self._on_simulation, 10)
        self.node.create_subscription(PolicyStatus, names.policy_status, self._on_policy, 10)
        self._reset = self.node.create_client(ResetSimulation, names.reset)
        self._task = ActionClient(self.node, RunTask, names.run_task)

    def start_all(self, bundle: Path, settings: Settings) -> None:
        """The processes of mode sim; nothing moves yet."""
        for process in processes("sim", {"bundle": str(bundle)}):
            command = process.command()
            if process.name == "sim_node":
                command += ["-p", f"image_height:={settings.height}"]
            if process.name == "policy_node":
                realtime = "guidance" if settings.blending == "rtc" else "off"
                command += ["-p", "run_on_start:=false", "-p", f"replan_interval:={settings.replan}"]
                command += ["-p", f"realtime:='{realtime}'"]
            if process.name == "bridge_node":
                command += ["-p", f"blending:={settings.blending}"]
            self.run(process.name, command)
        self.until(lambda: self._task.server_is_ready() and self._reset.service_is_ready(), "the nodes")

    def run_one(self, seed: int, settings: Settings) -> Outcome:
        """New scene, arm, run the task to its end, disarm."""
        self.arm(wanted=False)
        answer = self.ask(self._reset, ResetSimulation.Request(seed=seed, randomization=settings.level), _RESET_TIME)
        if answer is None or not answer.success:
            raise ConfigError(f"seed {seed}: {'no answer from sim_node' if answer is None else answer.message}")
        self._simulation = None
        self.until(lambda: self._simulation is not None and self._simulation.seed == seed, "the new scene")
        self.arm()
        begin, result = self._run_task(seed, settings)
        return self._outcome(seed, begin, result)

    def _run_task(self, seed: int, settings: Settings) -> tuple[float, Any]:
        """Simulated time when the task began, and its result."""
        limit = duration_message(round(_NS * settings.time_limit))
        deadline = time.monotonic() + _ARMED_TIME
        while True:
            begin = self._simulation.time if self._simulation else 0.0
            goal = self.wait(self._task.send_goal_async(RunTask.Goal(time_limit=limit)), _RESET_TIME)
            result = None if goal is None else self.wait(goal.get_result_async(), _SLOWEST * settings.time_limit)
            if result is None:
                raise ConfigError(f"seed {seed}: the policy node does not answer")
            # The policy node learns a moment after this one that the bridge is armed.
            if result.result.code != RunTask.Result.BRIDGE_NOT_ARMED or time.monotonic() > deadline:
                return begin, result.result
            time.sleep(_PAUSE)

    def _outcome(self, seed: int, begin: float, result: Any) -> Outcome:
        status, policy = self._simulation, self._policy
        assert status is not None
        success = result.code == RunTask.Result.SUCCEEDED
        grasps = dict(zip(self.robot.workspace.arms, status.grasps, strict=True))
        progress = FoldProgress(status.corner_distance, status.footprint, tuple(status.held), grasps)
        failure = "" if success else failure_class(progress)
        if result.code not in (RunTask.Result.SUCCEEDED, RunTask.Result.TIME_LIMIT):
            failure = f"task ended with {result.code}: {result.message}"
        latency = float(policy.latency_p50[-1]) if policy is not None and len(policy.latency_p50) else 0.0
        grasped = sum(count > 0 for count in grasps.values())
        return Outcome(seed, success, status.time - begin, failure, grasped, status.corner_distance, latency)

    def _on_simulation(self, status: SimulationStatus) -> None:
        self._simulation = status

    def _on_policy(self, status: PolicyStatus) -> None:
        self._policy = status
