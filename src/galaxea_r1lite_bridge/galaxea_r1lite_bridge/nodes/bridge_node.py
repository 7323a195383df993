"""Executes action chunks on the robot: topics in, MotionController.step at a steady rate, joint targets out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat, PolicyStatus
from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.feedback import FeedbackStream
from galaxea_r1lite_bridge.execution.heartbeats import Heartbeats
from galaxea_r1lite_bridge.execution.policy_clocks import RoundTrip
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Command, Inputs, JointFeedback
from galaxea_r1lite_bridge.nodes import diagnostics, target_watch
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription
from galaxea_r1lite_bridge.nodes.bridge_messages import (
    command_message,
    driver_error_text,
    reason_text,
    status_diagnostics,
    status_message,
    stream_status,
    target_messages,
)
from galaxea_r1lite_bridge.nodes.conversions import chunk_from_message, message_class, nanoseconds
from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop
from galaxea_r1lite_bridge.nodes.joint_stream import JointReader
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile, run
from galaxea_r1lite_bridge.nodes.output import never_wait_for_output
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.nodes.real_time import go_before_others
from galaxea_r1lite_bridge.nodes.side_node import SideNode, bare_node
from galaxea_r1lite_bridge.nodes.state_log import StateLog
from galaxea_r1lite_bridge.nodes.target_watch import TargetWatch
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import Flaw

_WARN_PERIOD = 2.0  # s between two equal warnings
_SILENCE = 5.0  # s without any feedback of a joint group until the log names its topic
_READINGS = 5  # of the clocks at most
_TOGETHER_NS = 200_000  # between two readings that are one
_CHUNKS = 5  # that wait to be taken
_COMMANDS = 100  # kept for a listener on a busy machine: check-safety judges every one of them
_SHOWN = 40  # characters of a message that are logged
_REST_TIME = 1.0  # s within which the arms come to rest when the node ends
_DELIVERY = Duration(seconds=0.2)  # for the last messages: a publisher that is destroyed sends nothing again
_BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)  # receives from reliable senders, too
_HEARING_RATE = 200.0  # Hz, the robot's own: feedback is read at most 5 ms after it came
_FEEDBACK = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)  # what comes in a stall of 0.1 s


class BridgeNode(ManagedNode):
    """Node ``bridge_node``, starts disarmed. Parameters: config/bridge_node.yaml. Topics: docs/reference/nodes.md."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__("bridge_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and the robot's YAML."""
        self._settings = BridgeSettings.from_parameters(declare_parameters(self, BridgeSettings.file()))
        self._robot = RobotConfig.load(self._settings.robot_config)
        self._status_ticks = max(1, round(self._settings.control_rate / self._settings.status_rate))
        self._arm_wanted = self._settings.arm_on_start

    def activate(self) -> None:
        """Subscribe, and start the control thread in the disarmed state."""
        robot = self._robot
        self._lock = threading.Lock()
        self._controller = MotionController(robot, self._settings)
        simulated = self._simulated = bool(self.get_parameter("use_sim_time").value)
        self._feedback = {
            name: FeedbackStream(len(group.joints), simulated=simulated) for name, group in robot.actuated.items()
        }
        takeover = {name: group.takeover for name, group in robot.commanded.items() if group.takeover is not None}
        self._person = {name: FeedbackStream(self._feedback[name].count, simulated=simulated) for name in takeover}
        self._heartbeats = Heartbeats(self._settings.watchdog.heartbeat.limit, self._settings.deadman_silence)
        self._armed, self._heartbeat_age = False, -1.0
        self._tick_count = self._backwards = 0
        self._jumps = self.on_clock_back(self._count_backwards)
        self._shown: tuple[State, Reason] | None = None
        self._state_log = StateLog()
        self._chunk_latency = 0.0
        self._leaving = False
        target_qos = qos_profile(robot.qos.target)
        self._targets: dict[str, Publisher] = {
            name: self.create_publisher(JointState, group.target, target_qos) for name, group in robot.actuated.items()
        }
        base_type = Twist if robot.base.type.endswith("/Twist") else TwistStamped
        self._base = self.create_publisher(base_type, robot.base.target, target_qos)
        self._command = self.create_publisher(JointState, robot.interfaces.command, _COMMANDS)
        self._status = self.create_publisher(BridgeStatus, robot.interfaces.bridge_status, 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._listener = bare_node(self, "feedback", self.context)
        self._joint_inputs = [
            self._joint_input(self._feedback[name], name, group.feedback) for name, group in robot.actuated.items()
        ]
        self._joint_inputs += [self._joint_input(self._person[name], name, topic) for name, topic in takeover.items()]
        self._driver_inputs = self._driver_error_subscriptions(qos_profile(robot.qos.sensor))
        # On threads of their own: chunks must not delay feedback, and neither of them what brakes.
        self._chunks = SideNode(self, "chunks", self.on_thread_error)
        self._chunks.subscribe(
            ActionChunk, robot.interfaces.action_chunk, self._on_chunk, _CHUNKS, self._on_unreadable_chunk
        )
        if not simulated:  # all nodes follow the same /clock
            self._chunks.subscribe(PolicyStatus, robot.interfaces.policy_status, self._on_policy, _BEST_EFFORT)
        self._service_servers = [
            self.create_service(Trigger, "~/home", self._home_callback(torso=False)),
            self.create_service(Trigger, "~/home_torso", self._home_callback(torso=True)),
        ]
        self._brakes = SideNode(self, "brakes", self.on_thread_error)
        self._brakes.subscribe(Bool, robot.interfaces.estop, self._on_estop, 10)
        self._brakes.subscribe(Heartbeat, robot.interfaces.heartbeat, self._on_heartbeat, _BEST_EFFORT)
        self._brakes.serve(SetBool, "~/arm", self._on_arm)
        self._brakes.serve(Trigger, "~/stop", self._on_stop)
        self._brakes.serve(SetBool, "~/takeover", self._on_takeover)
        self._target_watch, self._others = TargetWatch(self, robot), ""
        # Also when a simulated clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._own_timers = [
            self.create_timer(diagnostics.PERIOD, self._publish_diagnostics, clock=steady),
            self.create_timer(target_watch.PERIOD, self._look_for_others, clock=steady),
            self.create_timer(_SILENCE, self._name_the_silent, clock=steady),
        ]
        self._silent: list[str] = []
        self._last_status = BridgeStatus()
        self._heard_ns = time.monotonic_ns()
        self._ears = DeadlineLoop(_HEARING_RATE, self._hear, self.on_thread_error, "feedback")
        self._loop = DeadlineLoop(self._settings.control_rate, self._tick, self.on_thread_error, "control")
        for thread in (self._chunks, self._brakes, self._ears, self._loop):
            thread.start()
        if refused := go_before_others(self._settings.realtime_priority):
            self.get_logger().warning(refused)
        self.get_logger().info(
            f"active at {self._settings.control_rate:g} Hz, disarmed: call ~/arm to let chunks move the arms"
        )

    def deactivate(self) -> None:
        """Come to rest, stop commanding and release all topics."""
        self._arm_wanted = False
        with self._lock:
            self._leaving = True
            self._controller.disarm()
        give_up = time.monotonic() + _REST_TIME
        while self._controller.commanding and time.monotonic() < give_up:
            if not self._loop.running:  # it has failed: what brakes is done here
                with suppress(Exception):
                    self._tick()
            time.sleep(1.0 / self._settings.control_rate)
        self._loop.stop()
        self._ears.stop()
        for side in (self._chunks, self._brakes):
            side.close()
        self._jumps.unregister()
        self._hold_base()
        inactive = Command(State.INACTIVE, Reason.NONE, "", None, np.zeros(len(self._robot.joint_names), int))
        self._publish_status(inactive, self.get_clock().now().nanoseconds)
        for last in (self._base, self._status):
            last.wait_for_all_acked(_DELIVERY)
        for timer in self._own_timers:
            self.destroy_timer(timer)
        self._listener.destroy_node()
        for subscription in self._driver_inputs:
            subscription.destroy()
        for service in self._service_servers:
            self.destroy_service(service)
        for publisher in (*self._targets.values(), self._base, self._command, self._status, self._diagnostics):
            self.destroy_publisher(publisher)

    def _joint_input(self, stream: FeedbackStream, group: str, topic: str) -> tuple[FeedbackStream, JointReader]:
        def refuse(_: Flaw | None) -> None:
            with self._lock:
                stream.store(None, 0, *self._now())

        return stream, JointReader(self, self._listener, topic, self._robot.gates[group], _FEEDBACK, refuse)

    def _hear(self) -> None:
        """Store what has come of the joints. An executor would wake this process for each of 1,000 messages a second.

        It has a thread of its own: a message of any length must not delay a control tick.
        """
        (now_ns, steady_ns), system_ns = self._now(), time.time_ns()
        longest, self._heard_ns = steady_ns - self._heard_ns, steady_ns
        for stream, reader in self._joint_inputs:
            for joints in reader.read():
                # What came since the last time: the system's clock may have been set meanwhile.
                age_ns = min(max(system_ns - joints.received_ns, 0), longest) if joints.received_ns else 0
                arrived_ns = now_ns if self._simulated else now_ns - age_ns
                with self._lock:
                    stream.store(joints.positions, joints.stamp_ns, arrived_ns, steady_ns - age_ns)
                if joints.stamp_ns == 0 and stream.unstamped == 1:
                    self.get_logger().warning(
                        f"{reader.topic}: no stamps: messages that come late cannot be told from new ones"
                    )

    def _driver_error_subscriptions(self, qos: QoSProfile) -> list[BoundedSubscription]:
        kind = message_class(self._robot.driver_errors.type)
        if kind is None:
            self.get_logger().info(f"{self._robot.driver_errors.type} is not installed: driver errors are not watched")
            return []
        return [
            BoundedSubscription(self, kind, topic, self._driver_error_callback(topic), qos)
            for topic in self._robot.driver_errors.topics
        ]

    def _driver_error_callback(self, topic: str) -> Callable[[Any], None]:
        def store(message: Any) -> None:
            errors = driver_error_text(message)
            with self._lock:
                self._controller.set_driver_error(topic, errors)

        return store

    def _on_chunk(self, message: ActionChunk) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self._chunk_latency = (now_ns - nanoseconds(message.header.stamp)) / 1e9
        chunk = chunk_from_message(message)
        with self._lock:
            reason = self._controller.accept(chunk, now_ns)
        if reason not in (Reason.NONE, Reason.CHUNK_WHILE_TAKEOVER):
            self.get_logger().warning(
                f"chunk {message.chunk_id} of {message.policy_id[:_SHOWN]!r}, session {message.session:016x}, dropped, "
                f"{int(reason)}: {reason.text}",
                throttle_duration_sec=_WARN_PERIOD,
            )

    def _on_unreadable_chunk(self) -> None:
        with self._lock:
            self._controller.chunks.drops[Reason.CHUNK_UNREADABLE] += 1

    def _on_policy(self, message: PolicyStatus) -> None:
        now_ns, steady_ns = self._now()
        sent, received, answered = message.bridge_stamp, message.bridge_received, message.header.stamp
        trip = RoundTrip(nanoseconds(sent), nanoseconds(received), nanoseconds(answered), now_ns)
        with self._lock:
            self._controller.policy_clocks.hear(message.session, message.machine[:_SHOWN], trip, steady_ns)

    def _on_estop(self, message: Bool) -> None:
        with self._lock:
            self._controller.set_estop(message.data)

    def _on_heartbeat(self, message: Heartbeat) -> None:
        with self._lock:
            self._heartbeats.hear(
                message.session, time.monotonic_ns(), pressed=message.pressed, deadman=message.deadman
            )

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._arm_wanted = False
        with self._lock:
            if request.data:
                reason, about = self._arm()
            else:
                self._controller.disarm()
                reason, about = Reason.NONE, ""
        if request.data and reason == Reason.NONE:
            self._hold_base()
        return self._answer(response, reason, "armed" if request.data else "disarmed", about)

    def _arm(self) -> tuple[Reason, str]:
        """As MotionController.arm, of which two must never command the same arms; and what a refusal is about."""
        if self.count_publishers(self._robot.interfaces.bridge_status) > 1:
            return Reason.ANOTHER_BRIDGE, ""
        self._controller.set_foreign_publishers(self._target_watch.others())
        if self._leaving:
            return Reason.NOT_ARMED, ""
        return self._controller.arm(), self._controller.refused

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._controller.stop()
        return self._answer(
            response, Reason.NONE, "stopping, until a newer task or instruction of the policy, or ~/arm"
        )

    def _on_takeover(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            if request.data:
                reason = self._controller.take_over(self._newest(self._person, time.monotonic_ns()))
                about = self._controller.refused
            else:
                self._controller.give_back()
                reason, about = Reason.NONE, ""
        return self._answer(response, reason, "taken over" if request.data else "given back to the policy", about)

    def _look_for_others(self) -> None:
        others, before = self._target_watch.others(), self._others
        self._others = others
        with self._lock:
            self._controller.set_foreign_publishers(others)
        if others and others != before:
            self.get_logger().error(f"{Reason.FOREIGN_PUBLISHER.text}: {others}")

    def _name_the_silent(self) -> None:
        groups = self._robot.actuated.items()
        silent, before = [g.feedback for n, g in groups if not self._feedback[n].received], self._silent
        self._silent = silent
        if silent and silent != before:
            domain = os.environ.get("ROS_DOMAIN_ID") or 0
            self.get_logger().warning(
                f"nothing heard on {', '.join(silent)} for {_SILENCE:g} s: is the robot's driver running, "
                f"and in this ROS_DOMAIN_ID, {domain}?"
            )

    def _home_callback(self, *, torso: bool) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def home(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            with self._lock:
                reason = self._controller.home(self.get_clock().now().nanoseconds, torso=torso)
                about = self._controller.refused
            return self._answer(response, reason, f"moving the {'torso' if torso else 'arms'} to the start pose", about)

        return home

    def _answer(self, response: Any, reason: Reason, done: str, about: str = "") -> Any:
        response.success = reason == Reason.NONE
        why = ": ".join(filter(None, (reason.text, about)))
        response.message = done if response.success else f"refused, {int(reason)}: {why}"
        self.get_logger().info(response.message)
        return response

    def _tick(self) -> None:
        with self._lock:
            now_ns, steady_ns = self._now()
            command = self._controller.step(self._collect(now_ns, steady_ns))
            self._armed = command.state.armed
            refused, about = self._arm() if self._arm_wanted else (Reason.NONE, "")
        if refused == Reason.NONE and self._arm_wanted:
            self._arm_wanted = False
            self._hold_base()
        elif refused not in (Reason.NONE, Reason.FEEDBACK_MISSING):
            self.get_logger().warning(
                f"not armed yet, {int(refused)}: {refused.text}{': ' * bool(about)}{about}",
                throttle_duration_sec=_WARN_PERIOD,
            )
        if command.motion is not None:
            self._send(command, now_ns)
        self._tick_count += 1
        changed = self._shown != (command.state, command.reason)
        if changed or self._tick_count % self._status_ticks == 0:
            self._announce(command)
            self._publish_status(command, now_ns)

    def _count_backwards(self) -> None:
        self._backwards += 1

    def _now(self) -> tuple[int, int]:
        """The node's clock and the steady clock, ns, read together: again where the thread had to wait between them."""
        for _ in range(_READINGS):
            before_ns = time.monotonic_ns()
            now_ns, steady_ns = self.get_clock().now().nanoseconds, time.monotonic_ns()
            if steady_ns - before_ns < _TOGETHER_NS:
                break
        return now_ns, steady_ns

    def _collect(self, now_ns: int, steady_ns: int) -> Inputs:
        feedback = self._newest(self._feedback, steady_ns)
        self._heartbeat_age, released = self._heartbeats.now(steady_ns, armed=self._armed)
        person = self._newest(self._person, steady_ns) if self._controller.taken_over else {}
        return Inputs(now_ns, steady_ns, feedback, self._heartbeat_age, released, self._backwards, person)

    @staticmethod
    def _newest(streams: Mapping[str, FeedbackStream], steady_ns: int) -> dict[str, JointFeedback]:
        return {name: stream.newest(steady_ns) for name, stream in streams.items()}

    def _send(self, command: Command, now_ns: int) -> None:
        assert command.motion is not None
        for name, message in target_messages(self._robot, command, now_ns, self._settings.home_speed):
            self._targets[name].publish(message)
        self._command.publish(command_message(self._robot, command.motion, now_ns))

    def _announce(self, command: Command) -> None:
        """Log a change of state or reason; a fault and the emergency stop keep the base still."""
        grave = command.state in (State.FAULT, State.ESTOP)
        if grave and (self._shown is None or self._shown[0] != command.state):
            self._hold_base()
        if self._state_log.due(command.state, command.reason, time.monotonic()):
            text = f"{command.state.name}, {int(command.reason)}: {reason_text(command)}"
            if grave:
                self.get_logger().error(text)
            else:
                self.get_logger().info(text)

    def _hold_base(self) -> None:
        """Zero speed: the base continues with its last command."""
        self._base.publish(self._base.msg_type())

    def _publish_status(self, command: Command, now_ns: int) -> None:
        self._shown = (command.state, command.reason)
        statistics = self._loop.statistics()
        with self._lock:
            message = status_message(command, self._controller, statistics, now_ns)
            steady_ns = time.monotonic_ns()
            message.feedback = [stream_status(name, stream, steady_ns) for name, stream in self._feedback.items()]
            message.heartbeat_age = self._heartbeat_age
        self._last_status = message
        self._status.publish(message)

    def _publish_diagnostics(self) -> None:
        topics = {name: self._robot.groups[name].feedback for name in self._feedback}
        publishers = {
            n: self.publishing_nodes(t) for n, t in {**topics, "chunks": self._robot.interfaces.action_chunk}.items()
        }
        name = self.get_fully_qualified_name().lstrip("/")
        message = DiagnosticArray(
            status=status_diagnostics(name, self._last_status, self._settings.watchdog, publishers, self._chunk_latency)
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point."""
    never_wait_for_output()
    run(BridgeNode)
