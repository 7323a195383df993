"""A person's input for the bridge, as leader arms send it: where the robot is commanded, and a swing from there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState

from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

RATE = 100.0
"""Hz at which :meth:`Leader.publish` is to be called."""
_SWING, _PERIOD = 0.3, 3.0  # rad and s: up to 0.63 rad/s

Vector = NDArray[np.float64]


class Leader:
    """Swings while it is followed; otherwise it is where the robot is commanded, so that it can take over there.

    Args:
        node: that publishes.
        robot: names of the topics.
        commanded: positions [D] of the last command.
        followed: whether the bridge follows this input.

    Attributes:
        spoil: makes of the positions [D] those that are sent; None: nothing is.
    """

    def __init__(
        self, node: Node, robot: RobotConfig, commanded: Callable[[], Vector], followed: Callable[[], bool]
    ) -> None:
        self.spoil: Callable[[Vector], Vector | None] = lambda positions: positions
        self._robot, self._commanded, self._followed = robot, commanded, followed
        self._begin, self._place = 0.0, robot.home
        qos = qos_profile(robot.qos.sensor)
        topics = {name: group.takeover for name, group in robot.commanded.items()}
        self._publishers = {n: node.create_publisher(JointState, topic, qos) for n, topic in topics.items() if topic}

    def publish(self) -> None:
        """One message for each group."""
        if not self._followed():
            self._begin, self._place = time.monotonic(), self._commanded()
        swing = _SWING * math.sin(2 * math.pi * (time.monotonic() - self._begin) / _PERIOD)
        positions = self.spoil(self._place + np.where(self._robot.is_arm, swing, 0.0))
        if positions is None:
            return
        for name, publisher in self._publishers.items():
            gate = self._robot.gates[name]
            message = JointState(name=gate.names, position=gate.write(positions[self._robot.slices[name]]).tolist())
            message.header.stamp = time_message(time.time_ns())
            publisher.publish(message)
