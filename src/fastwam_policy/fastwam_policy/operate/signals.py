"""What an operator's terminal keeps sending: a heartbeat, and the emergency stop for as long as it is pressed."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool

from fastwam_policy.operate.heartbeat import Heartbeat
from galaxea_r1lite_bridge.robot.config import Interfaces

_PERIOD = 0.1  # s


class OperatorSignals:
    """The caller sends the heartbeat; a timer the emergency stop, so that a bridge that starts later receives it."""

    def __init__(self, node: Node, names: Interfaces) -> None:
        self.heartbeat = Heartbeat(node, names.heartbeat)
        self._pressed = False
        self._estop = node.create_publisher(Bool, names.estop, 10)
        node.create_timer(_PERIOD, self._send, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def set_estop(self, *, pressed: bool) -> str:
        """Press or release the emergency stop; return what to tell the operator."""
        self._pressed = pressed
        self._estop.publish(Bool(data=pressed))
        if not self._estop.get_subscription_count():
            return "EMERGENCY STOP HAS NO SUBSCRIBER: use the red button. Is bridge_node in this domain and namespace?"
        return "EMERGENCY STOP pressed; r releases it" if pressed else "emergency stop released; a arms again"

    def _send(self) -> None:
        if self._pressed:
            self._estop.publish(Bool(data=True))
