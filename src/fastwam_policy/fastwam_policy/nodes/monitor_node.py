"""What RViz shows: /joint_states, and markers and paths of what is predicted and what was executed. CPU only."""

from __future__ import annotations

import textwrap
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from visualization_msgs.msg import MarkerArray

from fastwam_msgs.msg import ActionChunk, BridgeStatus, PolicyStatus
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.runtime.reasons import CAMERA_WATCHDOGS, PolicyState
from fastwam_policy.visualization.markers import MarkerFactory
from fastwam_policy.visualization.scene import ArmGeometry
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedReader
from galaxea_r1lite_bridge.nodes.conversions import chunk_from_message, time_message
from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop
from galaxea_r1lite_bridge.nodes.joint_stream import JointReader
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.nodes.side_node import bare_node
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays

_STATUS_PERIOD = 0.1  # s between two updates of the executed path and the text
_STILL = 1.5  # s without newer positions after which nothing is shown; markers live as long
_LINE = 40  # letters of the text
_BACK_NS = 500_000_000  # by which time has gone back; less is jitter
_SILENT = 1.0  # s after which a policy counts as gone
_END_OF_TIME = 2**31 * 10**9  # ns, the last stamp that a message can hold
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_ALARMS = (State.FAULT, State.ESTOP)


class MonitorNode(ManagedNode):
    """Node ``monitor_node``. Parameters: config/monitor_node.yaml."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("monitor_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and the robot's YAML."""
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "monitor_node.yaml")
        self._rate: float = values["rate"]
        self._robot = robot = RobotConfig.load(values["robot_config"])
        self._executed_ns = round(1e9 * values["executed_time"])
        self._geometry, self._box = ArmGeometry(robot), np.array(robot.workspace.box)
        grippers = [name for name, group in robot.commanded.items() if group.unit == "mm"]
        widest = limit_arrays(robot.commanded).upper
        self._grippers = [(robot.slices[name].start, widest[robot.slices[name].start]) for name in grippers]

    def activate(self) -> None:
        """Subscribe and begin to publish."""
        robot, names = self._robot, self._robot.interfaces
        self._measured: dict[str, NDArray[np.float64]] = {}
        self._heard: dict[str, tuple[int, float]] = {}  # stamp, and steady time of the newest message
        self._newest_ns = self._shown_ns = 0
        self._shown_at, self._cleared = 0.0, False
        self._executed: deque[tuple[int, dict[str, NDArray[np.float64]]]] = deque()
        self._chunk: Chunk | None = None
        self._bridge, self._policy, self._policy_at = BridgeView(), PolicyStatus(), 0.0
        self._listener = bare_node(self, "listener", self.context)
        self._joint_inputs = {
            name: JointReader(self, self._listener, group.feedback, robot.gates[name], _NEWEST)
            for name, group in robot.groups.items()
        }
        self._inputs: list[tuple[BoundedReader, Callable[[Any], None]]] = [
            (BoundedReader(self._listener, kind, self.resolve_topic_name(topic), 1), take)
            for kind, topic, take in (
                (BridgeStatus, names.bridge_status, self._bridge.store),
                (PolicyStatus, names.policy_status, self._on_policy),
                (ActionChunk, names.action_chunk, self._on_chunk),
            )
        ]
        self._joints = self.create_publisher(JointState, "joint_states", 10)
        self._markers = self.create_publisher(MarkerArray, names.markers, 10)
        self._paths = {
            arm: self.create_publisher(PathMessage, f"{names.predicted_path}/{arm}", 10) for arm in robot.workspace.arms
        }
        self._ticks = 0
        self._loop = DeadlineLoop(self._rate, self._tick, self.on_thread_error, "show")
        self._loop.start()

    def deactivate(self) -> None:
        """Release all topics; markers disappear when their lifetime ends."""
        self._loop.stop()
        self._listener.destroy_node()
        for publisher in (self._joints, self._markers, *self._paths.values()):
            self.destroy_publisher(publisher)

    def _tick(self) -> None:
        """Read what has come, and show it. An executor would wake this process for each message."""
        self._read_joints()
        self._publish_joints()
        for reader, take in self._inputs:
            for taken in reader.take_all():
                if (message := reader.parse(taken)) is not None:
                    take(message)
        if self._ticks % max(1, round(_STATUS_PERIOD * self._rate)) == 0:
            self._publish_status()
        self._ticks += 1

    def _read_joints(self) -> None:
        """Take the newest positions."""
        for name, reader in self._joint_inputs.items():
            for joints in reader.read():
                stamp_ns = joints.stamp_ns or self.get_clock().now().nanoseconds
                self._heard[name], self._measured[name] = (stamp_ns, time.monotonic()), joints.positions
        silent = [name for name, (_, at) in self._heard.items() if time.monotonic() - at > _STILL]
        for name in silent:  # what is shown must be where it is
            del self._heard[name], self._measured[name]
        newest_ns = max((stamp_ns for stamp_ns, _ in self._heard.values()), default=self._newest_ns)
        if newest_ns < self._newest_ns - _BACK_NS:  # what was seen is of another run
            self._executed.clear()
        self._newest_ns = newest_ns

    def _on_policy(self, status: PolicyStatus) -> None:
        self._policy, self._policy_at = status, time.monotonic()

    def _publish_joints(self) -> None:
        stamp = time_message(self._newest_ns)
        positions: dict[str, float] = {}
        for name, values in self._measured.items():
            positions |= self._robot.urdf_positions(name, values)
        if positions:
            message = JointState(name=list(positions), position=list(positions.values()))
            message.header.stamp = stamp
            self._joints.publish(message)

    def _pose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Measured positions [D] and those of the torso; None until all of them are known."""
        robot = self._robot
        if any(name not in self._measured for name in robot.actuated):
            return None
        positions = np.concatenate([self._measured[name] for name in robot.actuated])
        return positions[: len(robot.joint_names)], positions[len(robot.joint_names) :]

    def _on_chunk(self, message: ActionChunk) -> None:
        """Show where the newest chunk leads, and what of the one before it replaced."""
        pose, chunk = self._pose(), chunk_from_message(message).ordered(self._robot.joint_names)
        if pose is None or chunk is None or chunk.end_ns >= _END_OF_TIME:
            return
        actions = chunk.positions
        factory = MarkerFactory(self._robot.workspace.frame, message.header.stamp)
        stamps = [time_message(chunk.stamp_ns + k * chunk.step_ns) for k in range(len(actions))]
        before = self._rest_of_last(chunk)
        markers = factory.ghost(self._geometry.bars(actions[-1], pose[1]))
        replaced = self._geometry.tool_paths(before, pose[1]) if len(before) else {}
        for number, (arm, points) in enumerate(self._geometry.tool_paths(actions, pose[1]).items()):
            place, widest = self._grippers[number]
            markers += factory.predicted(number, points, actions[:, place] / widest)
            markers.append(factory.committed(number, points[: chunk.committed_steps]))
            markers.append(factory.replaced(number, replaced.get(arm, np.empty((0, 3)))))
            self._paths[arm].publish(factory.path(points, stamps))
        self._markers.publish(MarkerArray(markers=markers))
        self._chunk = chunk

    def _rest_of_last(self, chunk: Chunk) -> NDArray[np.float64]:
        """The steps [M, D] of the one before that lie after its stamp; none where its session or epoch is another."""
        last = self._chunk
        if last is None or (last.session, last.epoch) != (chunk.session, chunk.epoch):
            return np.empty((0, 0))
        return last.positions[max(0, -(-(chunk.stamp_ns - last.stamp_ns) // last.step_ns)) :]

    def _publish_status(self) -> None:
        pose = self._pose()
        if (self._newest_ns and self._stands_still()) or pose is None:
            return
        tools = {arm: path[0] for arm, path in self._geometry.tool_paths(pose[0][None], pose[1]).items()}
        now_ns = self._newest_ns
        if not self._executed or self._executed[-1][0] != now_ns:
            self._executed.append((now_ns, tools))
        while self._executed[0][0] < now_ns - self._executed_ns:
            self._executed.popleft()
        factory = MarkerFactory(self._robot.workspace.frame, time_message(now_ns))
        markers = [
            factory.executed(number, np.array([points[arm] for _, points in self._executed]))
            for number, arm in enumerate(self._robot.workspace.arms)
        ]
        markers += factory.nearest(self._geometry.nearest(*pose))
        markers += factory.workspace(self._box, self._robot.workspace.table_height)
        policy = self._policy if time.monotonic() - self._policy_at < _SILENT else PolicyStatus()
        alarm = self._bridge.state in _ALARMS or policy.reason in CAMERA_WATCHDOGS
        markers.append(factory.text(self._words(policy), alarm=alarm))
        self._markers.publish(MarkerArray(markers=markers))

    def _words(self, policy: PolicyStatus) -> str:
        """Instruction, states with their reasons, and the age of the chunk that is followed."""
        bridge = self._bridge.status
        age = f", chunk of {bridge.plan_age:.1f} s ago" if bridge is not None and bridge.plan_age >= 0 else ""
        thinking = f", {policy.latency_p50[-1]:.0f} ms" if len(policy.latency_p50) else ""
        why = f", {policy.reason} {policy.reason_text}" if policy.reason else ""
        lines = [
            policy.instruction,
            f"bridge {self._bridge.text}{age}",
            f"policy {PolicyState(policy.state).name}{why}{thinking}",
        ]
        return "\n".join(part for line in lines if line for part in textwrap.wrap(line, _LINE))

    def _stands_still(self) -> bool:
        """Whether no newer positions have come for a while: then markers, whose lifetime no clock ends, are cleared."""
        steady = time.monotonic()
        if self._newest_ns != self._shown_ns:
            self._shown_ns, self._shown_at = self._newest_ns, steady
        still = steady - self._shown_at > _STILL
        if still and not self._cleared:
            factory = MarkerFactory(self._robot.workspace.frame, time_message(self._newest_ns))
            self._markers.publish(MarkerArray(markers=[factory.cleared()]))
        self._cleared = still
        return still


def main() -> None:
    """Entry point."""
    run(MonitorNode)
