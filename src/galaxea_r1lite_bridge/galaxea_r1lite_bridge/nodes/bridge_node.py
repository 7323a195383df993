"""Executes action chunks on the robot: topics in, Executor.step at a steady rate, joint targets out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.msg import ActionChunk, BridgeStatus, DropCount, StreamStatus
from galaxea_r1lite_bridge.execution.executor import Command, Executor, ExecutorConfig, JointFeedback
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import chunk_from_message, time_message
from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig, joint_positions, share_directory

_WARN_PERIOD = 2.0  # s between two equal warnings


class BridgeNode(ManagedNode):
    """Node ``bridge_node``. Parameters: config/bridge_node.yaml. Services: ~/arm, ~/stop. Starts disarmed."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__("bridge_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and the robot's YAML."""
        values = declare_parameters(self, share_directory() / "config" / "bridge_node.yaml")
        self._rate: float = values["control_rate"]
        self._status_ticks = max(1, round(self._rate / values["status_rate"]))
        self._arm_wanted: bool = values["arm_on_start"]
        self._robot = RobotConfig.load(Path(values["robot_config"]) if values["robot_config"] else None)
        lower, upper = self._robot.position_limits
        self._limiter = Limiter(lower, upper, self._robot.velocity_limits, self._robot.acceleration_limits)
        self._timing = ExecutorConfig(
            max_chunk_age=values["max_chunk_age"],
            max_feedback_age=values["max_feedback_age"],
            future_tolerance=values["future_tolerance"],
            max_dt=2.0 / self._rate,
        )

    def activate(self) -> None:
        """Subscribe, and start the control thread in the disarmed state."""
        robot = self._robot
        self._lock = threading.Lock()
        self._executor = Executor(self._timing, self._limiter, robot.joint_names, robot.slices)
        self._feedback = {group: _Stream(len(robot.groups[group].joints)) for group in robot.slices}
        self._tick_count = 0
        self._shown: tuple[State, Reason] | None = None
        self._targets: dict[str, Publisher] = {
            name: self.create_publisher(JointState, group.target, qos_profile(robot.qos.target))
            for name, group in robot.commanded.items()
        }
        self._status = self.create_publisher(BridgeStatus, robot.interfaces.bridge_status, 10)
        self._inputs = [
            self.create_subscription(
                JointState, robot.groups[name].feedback, self._feedback_callback(name), qos_profile(robot.qos.sensor)
            )
            for name in robot.slices
        ]
        self._inputs.append(self.create_subscription(ActionChunk, robot.interfaces.action_chunk, self._on_chunk, 5))
        self._service_servers = [
            self.create_service(SetBool, "~/arm", self._on_arm),
            self.create_service(Trigger, "~/stop", self._on_stop),
        ]
        self._loop = DeadlineLoop(self._rate, self._tick, self._on_control_error)
        self._loop.start()
        self.get_logger().info(f"active at {self._rate:g} Hz, disarmed: call ~/arm to let chunks move the arms")

    def deactivate(self) -> None:
        """Stop commanding and let go of all topics."""
        self._loop.stop()
        self._publish_status(
            Command(State.INACTIVE, Reason.NONE, None, self._limiter.velocity < 0, None),
            self.get_clock().now().nanoseconds,
        )
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for service in self._service_servers:
            self.destroy_service(service)
        for publisher in (*self._targets.values(), self._status):
            self.destroy_publisher(publisher)

    def _feedback_callback(self, group: str) -> Callable[[JointState], None]:
        stream = self._feedback[group]

        def store(message: JointState) -> None:
            positions = joint_positions(message.position, stream.count)
            with self._lock:
                stream.store(positions)
            if positions is None:
                self.get_logger().warning(
                    f"{self._robot.groups[group].feedback}: expected {stream.count} finite positions, got "
                    f"{list(message.position)}; the bridge holds until a good message comes",
                    throttle_duration_sec=_WARN_PERIOD,
                )

        return store

    def _on_chunk(self, message: ActionChunk) -> None:
        with self._lock:
            chunk = chunk_from_message(message)
            reason = self._executor.accept(chunk, self.get_clock().now().nanoseconds)
        if reason != Reason.NONE:
            self.get_logger().warning(
                f"chunk {message.chunk_id} dropped, {int(reason)}: {reason.text}", throttle_duration_sec=_WARN_PERIOD
            )

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        with self._lock:
            if request.data:
                reason = self._executor.arm(self._measured())
            else:
                self._arm_wanted = False
                self._executor.disarm()
                reason = Reason.NONE
        response.success = reason == Reason.NONE
        done = "armed" if request.data else "disarmed"
        response.message = done if response.success else f"refused, {int(reason)}: {reason.text}"
        self.get_logger().info(response.message)
        return response

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._executor.stop()
        response.success, response.message = True, "holding; chunks of the running epoch are ignored"
        return response

    def _tick(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        with self._lock:
            measured = self._measured()
            if self._arm_wanted and self._executor.arm(measured) == Reason.NONE:
                self._arm_wanted = False
            command = self._executor.step(now_ns, measured)
        if command.positions is not None:
            stamp = time_message(now_ns)
            for name, place in self._robot.slices.items():
                message = JointState(name=self._robot.groups[name].joints, position=command.positions[place].tolist())
                message.header.stamp = stamp
                self._targets[name].publish(message)
        self._tick_count += 1
        if self._tick_count % self._status_ticks == 0 or self._shown != (command.state, command.reason):
            self._publish_status(command, now_ns)

    def _publish_status(self, command: Command, now_ns: int) -> None:
        self._shown = (command.state, command.reason)
        statistics = self._loop.statistics()
        message = BridgeStatus(
            state=int(command.state),
            reason=int(command.reason),
            reason_text=command.reason.text,
            epoch=self._executor.epoch,
            plan_age=-1.0,
            plan_remaining=-1.0,
            seam=self._executor.seam,
            limited=command.limited.tolist(),
            control_rate=statistics.rate,
            control_period_p99=statistics.p99,
            control_period_max=statistics.longest,
        )
        message.header.stamp = time_message(now_ns)
        if command.chunk is not None:
            message.chunk_id = command.chunk.chunk_id
            message.plan_age = (now_ns - command.chunk.stamp_ns) / 1e9
            message.plan_remaining = max(0.0, (command.chunk.end_ns - now_ns) / 1e9)
        with self._lock:
            drops = sorted(self._executor.drops.items())
            message.feedback = [stream.status(name) for name, stream in self._feedback.items()]
        message.drops = [DropCount(reason=int(reason), text=reason.text, count=count) for reason, count in drops]
        self._status.publish(message)

    def _measured(self) -> dict[str, JointFeedback]:
        return {name: stream.feedback() for name, stream in self._feedback.items()}

    def _on_control_error(self, error: BaseException) -> None:
        self.get_logger().fatal(f"control thread ended, no command is sent any more: {error!r}")
        self.exit_status = 1
        self.finished.set()


class _Stream:
    """Newest message of one joint topic, aged by its arrival on the steady clock: a sensor's stamp may be wrong."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._received = self._rejected = 0
        self._newest = JointFeedback()
        self._arrival = 0.0

    def store(self, positions: object) -> None:
        self._received += 1
        if positions is None:
            self._rejected += 1
            self._newest.invalid = True
        else:
            self._newest = JointFeedback(positions)  # type: ignore[arg-type]
            self._arrival = time.monotonic()

    def feedback(self) -> JointFeedback:
        age = -1.0 if self._newest.positions is None else time.monotonic() - self._arrival
        return JointFeedback(self._newest.positions, age, self._newest.invalid)

    def status(self, name: str) -> StreamStatus:
        return StreamStatus(name=name, received=self._received, rejected=self._rejected, age=self.feedback().age)


def main() -> None:
    """Entry point."""
    run(BridgeNode)
