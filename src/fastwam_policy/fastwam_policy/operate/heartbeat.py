"""The heartbeat of whoever answers for the arms."""

from __future__ import annotations

import secrets

from rclpy.node import Node

from fastwam_msgs.msg import Heartbeat as Message


class Heartbeat:
    """Sends it from the loop that reads the keys, so it says that they are read: without it the bridge brakes.

    A timer would go on where that loop hangs, as when a terminal takes no more output.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._publisher = node.create_publisher(Message, topic, 1)
        self._message = Message(session=secrets.randbits(64), pressed=True)

    def beat(self, *, deadman: bool | None = None) -> None:
        """Call it at 20 Hz or more; `deadman`: whether that switch is held, where there is one."""
        self._message.deadman, self._message.pressed = deadman is not None, deadman is not False
        self._publisher.publish(self._message)
