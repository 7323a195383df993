"""Joint messages of a topic as positions in the robot file's order and units, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedReader, BoundedSubscription
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds
from galaxea_r1lite_bridge.robot.joint_gate import Flaw, JointGate, JointsRefusedError

_WARN_PERIOD = 2.0  # s between two equal warnings
_Refuse = Callable[[Flaw | None], None]


def subscribe_joints(
    node: Node,
    topic: str,
    gate: JointGate,
    take: Callable[[JointState, NDArray[np.float64]], None],
    qos: QoSProfile,
    refuse: _Refuse = lambda _: None,
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
        if (positions := _positions(node, topic, gate, message, refuse)) is not None:
            take(message, positions)

    return BoundedSubscription(node, JointState, topic, read, qos, lambda: refuse(None))


class Joints(NamedTuple):
    """Positions [joints] of a message, its stamp, and the system time at which it arrived, 0: not known [ns]."""

    positions: NDArray[np.float64]
    stamp_ns: int
    received_ns: int


class JointReader:
    """The same of messages that are read when they are asked for, and wake no executor.

    Args:
        owner: the node that warns of what is dropped, and whose names count.
        listener: a :func:`bare_node` of it, in no executor: a topic's events alone would wake that for each message.
        topic, gate, qos, refuse: as of :func:`subscribe_joints`; the depth is how many may wait.
    """

    def __init__(
        self,
        owner: Node,
        listener: Node,
        topic: str,
        gate: JointGate,
        qos: QoSProfile,
        refuse: _Refuse = lambda _: None,
    ) -> None:
        self.topic = topic
        self._owner, self._gate, self._refuse = owner, gate, refuse
        name = owner.resolve_topic_name(topic)
        self._reader = BoundedReader(listener, JointState, name, qos, lambda: refuse(None))

    def read(self) -> Iterator[Joints]:
        """What has come and can be used, the oldest first."""
        for taken in self._reader.take_all():
            message = self._reader.parse(taken)
            if message is None:
                continue
            positions = _positions(self._owner, self.topic, self._gate, message, self._refuse)
            if positions is not None:
                yield Joints(positions, nanoseconds(message.header.stamp), taken.received_ns)


def _positions(node: Node, topic: str, gate: JointGate, message: Any, refuse: _Refuse) -> NDArray[np.float64] | None:
    try:
        return gate.positions(message.name, message.position)
    except JointsRefusedError as error:
        node.get_logger().warning(f"{topic}: message dropped: {error}", throttle_duration_sec=_WARN_PERIOD)
        refuse(error.flaw)
        return None
