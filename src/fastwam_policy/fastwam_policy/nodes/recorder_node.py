"""Writes the topics of the robot and of our nodes to an mcap recording, optionally with the camera images.

It fetches what has come `_FETCH_PERIOD` apart, through a node that no executor waits for: woken for each of 40 topics
and 1,700 messages a second, rclpy takes half a core.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile, ReliabilityPolicy

from fastwam_policy.common.processes import node_names
from fastwam_policy.data.message_types import JOINT_STATE, typestore
from fastwam_policy.data.recording_writer import QUEUE_BYTES, RecordingWriter
from galaxea_r1lite_bridge.nodes import diagnostics
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedReader
from galaxea_r1lite_bridge.nodes.conversions import message_class
from galaxea_r1lite_bridge.nodes.managed_node import LATCHED, PARAMETERS_TOPIC, ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.nodes.side_node import bare_node
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BEST_EFFORT: Final = QoSProfile(depth=1000, reliability=ReliabilityPolicy.BEST_EFFORT)  # 4 s of 240 Hz feedback
_RELIABLE: Final = QoSProfile(depth=1000)
_IMAGES: Final = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
_FETCH_PERIOD: Final = 0.05  # s
_LOW_SPACE: Final = 10**9  # bytes: 3 minutes with images


class RecorderNode(ManagedNode):
    """Node ``recorder_node``. Parameters: config/recorder_node.yaml."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder_node", **kwargs)

    def configure(self) -> None:
        """Choose the topics and the folder."""
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "recorder_node.yaml")
        robot = RobotConfig.load(values["robot_config"])
        name = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        output = Path(values["output"]) if values["output"] else Path("~/fastwam_sessions") / name
        self._output = output.expanduser() / "recording"
        if self._output.exists():
            raise ConfigError(
                f"{self._output}: exists already, and recordings are never overwritten; name another output"
            )
        self._activations = 0
        topics = _topics(robot, images=values["images"])
        self._topics = {topic: entry for topic, entry in topics.items() if message_class(entry[0]) is not None}
        if absent := [f"{topic} ({topics[topic][0]})" for topic in topics if topic not in self._topics]:
            self.get_logger().info(f"not recorded, since their message type is not installed: {', '.join(absent)}")

    def activate(self) -> None:
        """Open the file and subscribe; every further activation writes a file of its own: recording_2 and so on."""
        self._activations += 1
        if self._activations > 1:
            self._output = self._output.with_name(f"recording_{self._activations}")
        kinds = {self.resolve_topic_name(topic): kind for topic, (kind, _) in self._topics.items()}
        self._listener = bare_node(self, "listener", self.context)
        self._writer = RecordingWriter(self._output, kinds, typestore(kinds.values()))
        self._inputs = {topic: self._record(topic) for topic, (_, qos) in self._topics.items() if qos is not LATCHED}
        self._fetched = (0, 0)
        self._recording = True
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._shown = ""
        # A simulated clock may stand still, and disk errors must be reported then, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._periodic = [
            self.create_timer(_FETCH_PERIOD, self._fetch, clock=steady),
            self.create_timer(diagnostics.PERIOD, self._publish_diagnostics, clock=steady),
        ]
        self.get_logger().info(f"recording {len(self._topics)} topics to {self._output}")

    def deactivate(self) -> None:
        """Finish the file."""
        for timer in self._periodic:
            self.destroy_timer(timer)
        self._fetch()
        self._listener.destroy_node()
        self._writer.close()
        self._publish_diagnostics()
        self._recording = False  # a timer may be due already
        self.destroy_publisher(self._diagnostics)
        dropped = f", dropped {self._writer.dropped}" if self._writer.dropped else ""
        self.get_logger().info(f"wrote {self._writer.written} messages to {self._output}{dropped}")

    def _record(self, topic: str) -> BoundedReader:
        kind, qos = self._topics[topic]
        return BoundedReader(self._listener, message_class(kind), self.resolve_topic_name(topic), qos)

    def _fetch(self) -> None:
        """Write what has come, with the node's time of its arrival."""
        if not self._recording:
            return
        before, now = self._fetched, (time.time_ns(), self.get_clock().now().nanoseconds)
        self._fetched = now
        if not before[1]:  # a simulated clock stands at zero until its first message
            before = now
            if now[1]:  # latched messages must not come before there is a time to write them with
                latched = [topic for topic, (_, qos) in self._topics.items() if qos is LATCHED]
                self._inputs |= {topic: self._record(topic) for topic in latched}
        come = [
            (_between(taken.received_ns or now[0], before, now), self.resolve_topic_name(topic), taken.data)
            for topic, reader in self._inputs.items()
            for taken in reader.take_all()
        ]
        for now_ns, name, data in sorted(come, key=itemgetter(0)) if now[1] else ():
            self._writer.put(name, now_ns, data)

    def _publish_diagnostics(self) -> None:
        if not self._recording:
            return
        name, writer = self.get_fully_qualified_name().lstrip("/"), self._writer
        level, text = diagnostics.OK, "ok"
        if writer.error:
            level, text = diagnostics.ERROR, writer.error
        elif writer.dropped:
            level, text = diagnostics.ERROR, f"{self._output}: the disk is too slow, messages were dropped"
        elif writer.waiting > QUEUE_BYTES / 4:
            level, text = diagnostics.WARN, f"{self._output}: the disk is slow, messages wait"
        elif 0 <= writer.free < _LOW_SPACE:
            level, text = diagnostics.WARN, f"{self._output}: less than {_LOW_SPACE / 1e9:g} GB is free"
        values = {
            "written": writer.written,
            "dropped": writer.dropped,
            "waiting [MB]": writer.waiting / 1e6,
            "free [GB]": writer.free / 1e9,
        }
        message = DiagnosticArray(status=[diagnostics.diagnostic(name, "recording", level, text, values)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        if level == diagnostics.ERROR and text != self._shown:
            self.get_logger().error(text)
        elif level == diagnostics.WARN and text != self._shown:
            self.get_logger().warning(text)
        self._shown = text


def _between(system_ns: int, before: tuple[int, int], now: tuple[int, int]) -> int:
    """The node's time at a system time, from two moments in both [ns]; outside them, the nearer one's."""
    span = now[0] - before[0]
    if span <= 0 or now[1] < before[1] or system_ns >= now[0]:  # a clock was set back
        return now[1]
    return before[1] + max(0, system_ns - before[0]) * (now[1] - before[1]) // span


def _topics(robot: RobotConfig, *, images: bool) -> dict[str, tuple[str, QoSProfile]]:
    """Message type and quality of service of every topic to record."""
    own = robot.interfaces
    ours = {
        own.action_chunk: "fastwam_msgs/msg/ActionChunk",
        own.policy_status: "fastwam_msgs/msg/PolicyStatus",
        own.bridge_status: "fastwam_msgs/msg/BridgeStatus",
        own.command: JOINT_STATE,
        own.simulation: "fastwam_msgs/msg/SimulationStatus",
        own.imagination: "sensor_msgs/msg/CompressedImage",
        own.estop: "std_msgs/msg/Bool",
        own.heartbeat: "fastwam_msgs/msg/Heartbeat",
        own.task_success: "std_msgs/msg/Bool",
        own.markers: "visualization_msgs/msg/MarkerArray",
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
        "/tf": "tf2_msgs/msg/TFMessage",
        robot.base.target: robot.base.type,
    }
    theirs: dict[str, str] = {camera.topic: camera.type for camera in robot.cameras.values()}
    for group in robot.groups.values():
        theirs |= {topic: JOINT_STATE for topic in (group.feedback, group.takeover) if topic is not None}
        ours[group.target] = ours[f"{robot.recorded_prefix}/{group.target}"] = JOINT_STATE
    theirs |= dict.fromkeys(robot.driver_errors.topics, robot.driver_errors.type) | robot.recorded_only
    if not images:
        theirs = {topic: kind for topic, kind in theirs.items() if kind not in _IMAGES}
    topics = {topic: (kind, _RELIABLE) for topic, kind in ours.items()}
    topics |= {topic: (kind, _BEST_EFFORT) for topic, kind in theirs.items()}
    once = [own.policy_identity, "robot_description", *(PARAMETERS_TOPIC.replace("~", name) for name in node_names())]
    return topics | dict.fromkeys(once, ("std_msgs/msg/String", LATCHED))


def main() -> None:
    """Entry point."""
    run(RecorderNode)
