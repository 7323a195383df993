"""What an operator's terminal keeps sending: a heartbeat, and the emergency stop for as long as it is pressed."""

from __future__ import annotations

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool, Empty

from galaxea_r1lite_bridge.robot.config import Interfaces

_PERIOD = 0.1  # s


class OperatorSignals:
    """Publishes both on timers of `node`: a bridge that starts later receives a pressed stop, too."""

    def __init__(self, node: Node, names: Interfaces) -> None:
        self._pressed = False
        self._estop = node.create_publisher(Bool, names.estop, 10)
        self._heartbeat = node.create_publisher(Empty, names.heartbeat, 10)
        node.create_timer(_PERIOD, self._send, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def set_estop(self, *, pressed: bool) -> str:
        """Press or release the emergency stop; return what to tell the operator."""
        self._pressed = pressed
        self._estop.publish(Bool(data=pressed))
        if not self._estop.get_subscription_count():
            return "EMERGENCY STOP HAS NO SUBSCRIBER: use the red button. Is bridge_node in this domain and namespace?"
        return "EMERGENCY STOP pressed; r releases it" if pressed else "emergency stop released; a arms again"

    def _send(self) -> None:
        self._heartbeat.publish(Empty())
        if self._pressed:
            self._estop.publish(Bool(data=True))
