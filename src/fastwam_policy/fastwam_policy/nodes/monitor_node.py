"""Joint feedback as /joint_states with the URDF's names, for robot_state_publisher and RViz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState

from galaxea_r1lite_bridge.nodes.conversions import nanoseconds, time_message
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig, joint_positions


class MonitorNode(ManagedNode):
    """Node ``monitor_node``. Parameters: config/monitor_node.yaml."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("monitor_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and the robot's YAML."""
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "monitor_node.yaml")
        self._period: float = 1.0 / values["rate"]
        self._robot = RobotConfig.load(Path(values["robot_config"]) if values["robot_config"] else None)

    def activate(self) -> None:
        """Subscribe and begin to publish."""
        self._newest_ns = 0
        self._positions: dict[str, float] = {}
        sensor = qos_profile(self._robot.qos.sensor)
        self._inputs = [
            self.create_subscription(JointState, group.feedback, self._callback(name), sensor)
            for name, group in self._robot.groups.items()
        ]
        self._output = self.create_publisher(JointState, "joint_states", 10)
        self._ticker = self.create_timer(self._period, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def deactivate(self) -> None:
        """Let go of all topics."""
        self.destroy_timer(self._ticker)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self.destroy_publisher(self._output)

    def _callback(self, name: str) -> Callable[[JointState], None]:
        group = self._robot.groups[name]

        def store(message: JointState) -> None:
            positions = joint_positions(message.position, len(group.joints))
            if positions is not None:
                self._newest_ns = nanoseconds(message.header.stamp)
                self._positions |= self._robot.urdf_positions(name, positions)

        return store

    def _publish(self) -> None:
        if self._positions:
            message = JointState(name=list(self._positions), position=list(self._positions.values()))
            message.header.stamp = time_message(self._newest_ns)
            self._output.publish(message)


def main() -> None:
    """Entry point."""
    run(MonitorNode)
