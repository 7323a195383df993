"""What all lifecycle nodes of this project share: clear configuration errors, autostart, and one way to run."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import rclpy
import yaml
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import JumpHandle, JumpThreshold
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import String

from galaxea_r1lite_bridge.nodes.ending import end_at_once, leave, on_ending
from galaxea_r1lite_bridge.robot.config import Qos
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # late subscribers receive the last message
PARAMETERS_TOPIC = "~/parameters"
PRIVATE_DOMAIN = "R1LITE_PRIVATE_DOMAIN"  # environment variable: the ROS domain that its setter reserved
_FAILED = 2  # exit status of a node that could not be configured
_DISCOVERY = 5.0  # s for other publishers in the domain to be seen, on a busy machine too
_SPIN = 0.1  # s, longest time until a signal or the node's own end is seen


class ManagedNode(LifecycleNode):
    """Lifecycle node whose wrong configuration is one clear message instead of a traceback.

    Subclasses implement ``configure``, ``activate``, ``deactivate`` and ``cleanup``. With the parameter ``autostart``
    (default true) the node configures and activates itself; set it to false to use a lifecycle manager. The parameters
    of every configuration are on the latched topic ``~/parameters``, and cannot be changed until it is cleaned up.

    Attributes:
        live: parameters that can, since the node reads them as it goes.
    """

    live: frozenset[str] = frozenset()

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.declare_parameter("autostart", True)
        self._parameter_publisher = self.create_publisher(String, PARAMETERS_TOPIC, LATCHED)
        self._configured = False
        self.add_on_set_parameters_callback(self._refuse_late)
        self.exit_status = 0
        self.finished = threading.Event()
        """Set it, from any thread, to end the process with `exit_status`."""

    def configure(self) -> None:
        """Read parameters and files, reserve what is needed. ConfigError: say what is wrong."""
        raise NotImplementedError

    def activate(self) -> None:
        """Begin to receive and publish."""
        raise NotImplementedError

    def deactivate(self) -> None:
        """End what activate began."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """End what configure began."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        result = self._attempt(self.configure)
        self._configured = result == TransitionCallbackReturn.SUCCESS
        self._publish_parameters()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._attempt(self.activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        return self._attempt(self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self._configured = False
        return self._attempt(self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback: leave the active state, and then end the process."""
        result = self._attempt(self.deactivate) if state.label == "active" else TransitionCallbackReturn.SUCCESS
        self.finished.set()
        return result

    def refuse_beside_others(self, topics: Iterable[str]) -> None:
        """Wait until other publishers are known, and raise ConfigError where one has any of `topics` already.

        For nodes that take the robot's place: two sources of joint feedback would be followed in turn. A process that
        reserved a ROS domain for its nodes names it in `PRIVATE_DOMAIN`: there nothing has to be waited for.
        """
        topics = list(topics)
        domain = os.environ.get("ROS_DOMAIN_ID")
        reserved = bool(domain) and os.environ.get(PRIVATE_DOMAIN) == domain
        deadline = time.monotonic() + (0.0 if reserved else _DISCOVERY)
        while not (taken := [topic for topic in topics if self.count_publishers(topic)]):
            if time.monotonic() > deadline:
                return
            time.sleep(_SPIN)
        raise ConfigError(
            f"another process publishes {', '.join(taken)} already: a robot, a simulator or a replay is in this ROS "
            "domain. End it, or set another ROS_DOMAIN_ID"
        )

    def on_clock_back(self, act: Callable[[], None]) -> JumpHandle:
        """Call `act` whenever the node's clock goes back, until the handle is unregistered."""
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        return self.get_clock().create_jump_callback(back, post_callback=lambda _: act())

    def publishing_nodes(self, topic: str) -> list[str]:
        """Full names of the nodes that publish a topic; a killed one is among them for up to 20 s more."""
        found = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        return sorted(f"{one.node_namespace.rstrip('/')}/{one.node_name}" for one in found)

    def autostart(self) -> bool:
        """Configure when the parameter says so; return whether the node may go on."""
        return not self._starts_itself or self.trigger_configure() == TransitionCallbackReturn.SUCCESS

    def autoactivate(self) -> bool:
        """Activate what autostart has configured; return whether the node may go on."""
        return not self._starts_itself or self.trigger_activate() == TransitionCallbackReturn.SUCCESS

    @property
    def _starts_itself(self) -> bool:
        return bool(self.get_parameter("autostart").value)

    def finish(self) -> None:
        """Deactivate and clean up before the process ends: a thread still in C++ code would then abort it."""
        if self._state_machine.current_state[1] == "active":
            self.trigger_deactivate()
        self.settle()
        if self._configured:
            self.on_cleanup(self._state_machine.current_state)

    def on_thread_error(self, error: BaseException) -> None:
        """End the process with status 1: a thread has, and the node is of no use without it."""
        self.get_logger().fatal(f"thread {threading.current_thread().name} ended: {error!r}")
        self.exit_status = 1
        self.finished.set()

    def settle(self) -> None:
        """Let what deactivation began come to its end, before the process ends."""

    def _refuse_late(self, parameters: list[Parameter]) -> SetParametersResult:
        """A change that would not be seen before the next configuration."""
        late = [one.name for one in parameters if self.has_parameter(one.name) and one.name not in self.live]
        if not (self._configured and late):
            return SetParametersResult(successful=True)
        reason = (
            f"{', '.join(late)}: {self.get_name()} reads its parameters when it is configured. "
            "Start it with another value, or set it between its transitions cleanup and configure"
        )
        return SetParametersResult(successful=False, reason=reason)

    def _publish_parameters(self) -> None:
        """Publish the parameters in use, in the form of `ros2 param dump`: for recordings, and to start it again."""
        values = {name: parameter.value for name, parameter in self.get_parameters_by_prefix("").items()}
        plain = {
            name: list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value
            for name, value in sorted(values.items())
        }
        text = yaml.safe_dump({self.get_fully_qualified_name(): {"ros__parameters": plain}}, sort_keys=False)
        self._parameter_publisher.publish(String(data=text))

    def _attempt(self, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except ConfigError as error:
            self.get_logger().fatal(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:  # noqa: BLE001  rclpy would swallow it
            self.get_logger().fatal(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS


def qos_profile(qos: Qos) -> QoSProfile:
    """Rclpy's form of a QoS in config/r1lite.yaml."""
    reliable = qos.reliability == "reliable"
    return QoSProfile(
        depth=qos.depth, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    )


def see_everybody() -> None:
    """Before rclpy.init: let a client of Fast DDS's discovery server see who else publishes what it publishes itself.

    A plain client is only told of what it subscribes to; the bridge would not notice another publisher of its targets.
    """
    if os.environ.get("ROS_DISCOVERY_SERVER"):
        os.environ["ROS_SUPER_CLIENT"] = "TRUE"


def run(make_node: Callable[[], ManagedNode]) -> NoReturn:
    """Run one node until it ends or a signal of `ending` comes, and exit with its status."""
    end_at_once()  # as long as nothing moves and no file is open: a policy may take minutes to load
    see_everybody()
    # rclpy's own handlers end the context at once; a node must first leave the active state: hold, close its files.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = make_node()
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # Ctrl-Z: a node that is suspended in motion cannot brake
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    status, early = _FAILED, False
    try:
        configured = node.autostart()
        ending = on_ending()
        if configured and node.autoactivate():
            gc.freeze()  # what lives as long as the node is not gone through again, nor as the process ends
            while not (node.finished.is_set() or ending.is_set()):
                executor.spin_once(timeout_sec=_SPIN)
            status = node.exit_status
    except SystemExit:
        early = True
    finally:
        on_ending()  # a second signal does not interrupt what follows
        node.finish()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if early:
        leave(0)  # not the interpreter's own end, which waits for the thread that still loads a policy
    sys.exit(status)
