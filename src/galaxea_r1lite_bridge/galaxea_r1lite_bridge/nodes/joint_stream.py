"""A subscription to joint messages that hands on positions in the robot file's order and units, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription
from galaxea_r1lite_bridge.robot.joint_gate import Flaw, JointGate, JointsRefusedError

_WARN_PERIOD = 2.0  # s between two equal warnings


def subscribe_joints(
    node: Node,
    topic: str,
    gate: JointGate,
    take: Callable[[JointState, NDArray[np.float64]], None],
    qos: QoSProfile,
    refuse: Callable[[Flaw | None], None] = lambda _: None,
) -> BoundedSubscription:
    """Subscribe to a joint group's messages.

    Args:
        node: whose subscription it is; it warns of what is dropped.
        topic: of the messages.
        gate: the group's.
        take: gets each usable message and its positions [joints].
        qos: quality of service.
        refuse: called for each one that is dropped, with what is wrong; None: it cannot be read at all.
    """

    def read(message: JointState) -> None:
        try:
            positions = gate.positions(message.name, message.position)
        except JointsRefusedError as error:
            node.get_logger().warning(f"{topic}: message dropped: {error}", throttle_duration_sec=_WARN_PERIOD)
            refuse(error.flaw)
        else:
            take(message, positions)

    return BoundedSubscription(node, JointState, topic, read, qos, lambda: refuse(None))
