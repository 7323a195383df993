"""Writes chunks, commands, feedback and status to an mcap recording, on demand the camera images too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from ament_index_python.packages import get_package_share_directory
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage, Image, JointState

from fastwam_msgs.msg import ActionChunk, BridgeStatus, PolicyStatus, SimulationStatus
from fastwam_policy.recordings import typestore
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BAG_VERSION: Final = 8  # readable by Humble and Jazzy
_QUEUE = 1000  # messages a topic: 4 s of 240 Hz feedback while the disk is slow


class RecorderNode(ManagedNode):
    """Node ``recorder_node``. Parameters: config/recorder_node.yaml."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder_node", **kwargs)

    def configure(self) -> None:
        """Choose the topics and the folder."""
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "recorder_node.yaml")
        robot = RobotConfig.load(Path(values["robot_config"]) if values["robot_config"] else None)
        name = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
        output = Path(values["output"]) if values["output"] else Path("~/fastwam_sessions") / name
        self._output = output.expanduser() / "recording"
        if self._output.exists():
            raise ConfigError(
                f"{self._output}: exists already, and recordings are never overwritten; name another output"
            )
        best_effort = QoSProfile(depth=_QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)
        reliable = QoSProfile(depth=_QUEUE)
        self._topics: dict[str, tuple[Any, QoSProfile]] = {
            robot.interfaces.action_chunk: (ActionChunk, reliable),
            robot.interfaces.policy_status: (PolicyStatus, reliable),
            robot.interfaces.bridge_status: (BridgeStatus, reliable),
            robot.interfaces.command: (JointState, reliable),
            robot.interfaces.simulation: (SimulationStatus, reliable),
        }
        if values["images"]:
            kinds = {"CompressedImage": CompressedImage, "Image": Image}
            for camera in robot.cameras.values():
                self._topics[camera.topic] = (kinds[camera.type.rsplit("/", 1)[-1]], best_effort)
        for group in robot.groups.values():
            self._topics[group.feedback] = (JointState, best_effort)
            self._topics[group.target] = (JointState, reliable)
            self._topics[f"{robot.recorded_prefix}/{group.target}"] = (JointState, reliable)

    def activate(self) -> None:
        """Open the file and subscribe."""
        self._output.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(self._output, version=_BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        store = typestore()
        self._count = 0
        for topic, (kind, qos) in self._topics.items():
            name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            connection = self._writer.add_connection(self.resolve_topic_name(topic), name, typestore=store)
            self.create_subscription(kind, topic, self._callback(connection), qos, raw=True)
        self.get_logger().info(f"recording {len(self._topics)} topics to {self._output}")

    def deactivate(self) -> None:
        """Finish the file."""
        for subscription in list(self.subscriptions):
            self.destroy_subscription(subscription)
        self._writer.close()
        self.get_logger().info(f"wrote {self._count} messages to {self._output}")

    def _callback(self, connection: Connection) -> Callable[[Any], None]:
        def write(data: bytes) -> None:
            now_ns = self.get_clock().now().nanoseconds
            if now_ns:  # a simulated clock stands at zero until its first message
                self._writer.write(connection, now_ns, data)
                self._count += 1

        return write


def main() -> None:
    """Entry point."""
    run(RecorderNode)
