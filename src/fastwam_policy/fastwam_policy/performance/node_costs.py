"""`fastwam bench-nodes`: what bridge_node, recorder_node and monitor_node take of a core at the robot's rates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rclpy
from rich.progress import track
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from fastwam_policy.launching.rig import Rig
from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

MEASURED = ("bridge_node", "recorder_node", "monitor_node")
# Processor time is measured, which a busy machine hardly changes; its late ticks and messages must not end that.
_PATIENT = {"watchdog.feedback_age.limit": 2.0, "watchdog.overrun.limit": 1.0, "watchdog.chunk_age.limit": 5.0}
_SETTLING = 3.0  # s after the first chunk, for discovery and imports
_REPLAN = 0.5  # s
_HORIZON, _STEP = 32, 1 / 15
_SWING, _PERIOD = 0.3, 3.0  # rad and s: a motion around the start pose that the arms can follow


@dataclass(frozen=True)
class NodeCost:
    """What one process took."""

    cpu: float
    """Processor time by elapsed time: 1 is a core."""
    memory: float
    """MB resident at the end."""


@dataclass(frozen=True)
class NodeCosts:
    """What the nodes took, and how the bridge did meanwhile."""

    nodes: Mapping[str, NodeCost]
    tracking: float
    """Share of the time in which the bridge followed a chunk."""
    rate: float
    """Commands a second."""


def measure_nodes(seconds: float, robot_file: Path | None = None) -> NodeCosts:
    """Run the nodes with emulator_node in the robot's place, a plan that moves both arms, and a recording with images.

    `robot_file` is another robot file than the installed one.

    Raises:
        RunError: a node did not come up, or the arms did not move.
    """
    robot = RobotConfig.load(robot_file)
    rclpy.init()
    try:
        with TemporaryDirectory() as folder:
            return _measure(robot, robot_file, Path(folder), seconds)
    finally:
        rclpy.try_shutdown()


def _measure(robot: RobotConfig, robot_file: Path | None, folder: Path, seconds: float) -> NodeCosts:
    rig = Rig("bench_nodes", robot, folder / "nodes.log", robot_file)
    try:
        statuses: list[BridgeStatus] = []
        rig.node.create_subscription(BridgeStatus, robot.interfaces.bridge_status, statuses.append, 10)
        chunks = _Chunks(rig, robot)
        rig.start("galaxea_r1lite_bridge", "emulator_node")
        rig.start("galaxea_r1lite_bridge", "bridge_node", arm_on_start=True, **_PATIENT)
        rig.start("fastwam_policy", "recorder_node", images=True, output=folder / "session")
        rig.start("fastwam_policy", "monitor_node")
        rig.until(lambda: statuses and State(statuses[-1].state).armed, "arming")
        rig.node.create_timer(_REPLAN, chunks.publish)
        rig.until(lambda: statuses[-1].state == State.TRACKING, "following a chunk")
        time.sleep(_SETTLING)
        statuses.clear()
        begin, before = time.monotonic(), {name: rig.group.used(name).cpu_seconds for name in MEASURED}
        for _ in track(range(max(1, round(seconds))), description="measuring"):
            time.sleep(1.0)
        elapsed, after = time.monotonic() - begin, {name: rig.group.used(name) for name in MEASURED}
        return NodeCosts(
            {
                name: NodeCost((used.cpu_seconds - before[name]) / elapsed, used.memory / 1e6)
                for name, used in after.items()
            },
            float(np.mean([status.state == State.TRACKING for status in statuses])),
            float(np.mean([status.control_rate for status in statuses])),
        )
    finally:
        rig.close()


class _Chunks:
    """Chunks of a slow swing of both arms around the start pose."""

    def __init__(self, rig: Rig, robot: RobotConfig) -> None:
        self._names, self._home, self._is_arm = robot.joint_names, Joints.of(robot).home, robot.is_arm
        self._home = self._home[: len(self._names)]
        self._publisher = rig.node.create_publisher(ActionChunk, robot.interfaces.action_chunk, 5)
        self._count, self._begin = 0, time.time()

    def publish(self) -> None:
        """Publish the next one, observed now."""
        self._count += 1
        now_ns = time.time_ns()
        message = ActionChunk(session=1, chunk_id=self._count, epoch=1, step=duration_message(round(1e9 * _STEP)))
        message.header.stamp = time_message(now_ns)
        message.trajectory.joint_names = self._names
        at = now_ns / 1e9 - self._begin + _STEP * np.arange(_HORIZON)[:, None]
        swing = np.where(self._is_arm, _SWING * np.sin(2 * np.pi / _PERIOD * at), 0.0)
        message.trajectory.points = [JointTrajectoryPoint(positions=row.tolist()) for row in self._home + swing]
        self._publisher.publish(message)
