"""Cameras and joints in, action chunks out."""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus, DropCount, PolicyStatus, StreamStatus
from fastwam_msgs.srv import SetInstruction
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.nodes.observation_inputs import (
    WARN_PERIOD,
    ObservationInputs,
    camera_watch,
    frame_source,
    policy_source,
)
from fastwam_policy.nodes.task_server import TaskServer
from fastwam_policy.policies.base import Policy, PolicyInfo
from fastwam_policy.policies.familiarity import familiarity
from fastwam_policy.policies.loading import load_policy, policy_identity
from fastwam_policy.policies.robot_check import check_instruction, check_robot
from fastwam_policy.runtime.frames import FrameSource
from fastwam_policy.runtime.hovering import Replanning
from fastwam_policy.runtime.inference_loop import ABSENT, ChunkResult, InferenceLoop
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.execution.clocks import STANDSTILL, Standstill
from galaxea_r1lite_bridge.nodes import diagnostics
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.nodes.managed_node import LATCHED, ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_OPTIONS = ("mapping", "device", "engine", "dtype", "quantize", "denoise_steps", "warm_start", "mode")
_MEMORY = 1.0  # s beyond a replan interval, for a policy that is told what was seen meanwhile
_RATE_WINDOW = 5.0  # s over which the chunk rate is reported
_SETTLE_TIME, _SETTLE_STEP = 4.0, 0.05  # s


class PolicyNode(ManagedNode):
    """Node ``policy_node``. Parameters: config/policy_node.yaml. Interfaces: docs/reference/nodes.md."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters, load the policy and warm it up on the inference thread.

        A policy that runs elsewhere may be started later than this node: it is asked again until it answers.
        """
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "policy_node.yaml")
        source = policy_source(values)
        self._robot = RobotConfig.load(values["robot_config"])
        self._status_period: float = 1.0 / values["status_rate"]
        self._run_on_start: bool = values["run_on_start"]
        self._max_observation_age: float = values["max_observation_age"]
        self._watch = camera_watch(self._robot, values)
        self._bridge, self._bridge_stamp, self._bridge_received = BridgeView(), Time(), Time()
        realtime = values["realtime"] != "off"

        def make_policy() -> Policy:
            options = {name: values[name] for name in _OPTIONS if values[name]}
            if realtime:
                options["realtime"] = values["realtime"]
            policy = load_policy(source, options)
            if values["torch_threads"] and "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(values["torch_threads"])  # of this thread
            check_robot(policy.info, self._robot, source)
            if realtime and "realtime_chunking" not in policy.info.abilities:
                raise ConfigError(f"realtime {values['realtime']}: {policy.info.name} cannot continue a running plan")
            self._identity = yaml.safe_dump(policy_identity(policy, source), sort_keys=False)
            return policy

        def make_frames(info: PolicyInfo) -> FrameSource:
            memory = max(values["replan_interval"], values["hover_interval"]) + _MEMORY
            ages = values["max_skew"], values["max_observation_age"], memory
            return frame_source(info, self._robot, *ages, self._watch)

        self._loop = InferenceLoop(
            make_policy,
            make_frames,
            lambda: self.get_clock().now().nanoseconds,
            self._publish_chunk,
            Replanning(self._robot, values["replan_interval"], values["hover_interval"]),
            executing=self._bridge.executing,
            realtime=realtime,
        )
        self._loop.load(values["instruction"])
        self._info = info = self._loop.info
        self._bridge_input = BoundedSubscription(
            self, BridgeStatus, self._robot.interfaces.bridge_status, self._on_bridge, 10
        )
        self._tasks = TaskServer(
            self, self._robot, self._loop, self._bridge, values["task_time_limit"],
            require_heartbeat=values["require_heartbeat"],
        )  # fmt: skip
        if info is ABSENT:
            self.get_logger().warning(f"{self._loop.detail}; it is asked again until it answers")
        else:
            self._introduce()

    def activate(self) -> None:
        """Subscribe, and begin to compute chunks or wait for a task."""
        robot = self._robot
        self._chunk_publisher = self.create_publisher(ActionChunk, robot.interfaces.action_chunk, 5)
        self._status_publisher = self.create_publisher(PolicyStatus, robot.interfaces.policy_status, 10)
        self._identity_publisher = self.create_publisher(String, robot.interfaces.policy_identity, LATCHED)
        self._observe()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._service = self.create_service(SetInstruction, "~/set_instruction", self._on_set_instruction)
        # Status must be published when a simulated clock stands still, too.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._status_timers = [
            self.create_timer(self._status_period, self._publish_status, clock=steady),
            self.create_timer(diagnostics.PERIOD, self._publish_diagnostics, clock=steady),
        ]
        self._standstill = Standstill()
        self._shown: tuple[int, int] | None = None
        self._committed = 0
        self._last_status = PolicyStatus()
        self._loop.activate(start=self._run_on_start)
        self.get_logger().info("active" if self._run_on_start else "active, waiting for a task")

    def _introduce(self) -> None:
        info = self._info
        if info.identity.origin == "random":
            self.get_logger().warning(f"policy {info.name} has RANDOM weights: its actions mean nothing")
        self.get_logger().info(f"policy {info.name}, task: {self._loop.instruction}")

    def _observe(self) -> None:
        """Subscribe to what the policy looks at, and say who it is."""
        self._buffer = self._loop.frames.buffer
        self._inputs = ObservationInputs(self, self._robot, self._buffer, self._on_jump_back, self._watch)
        if self._info is not ABSENT:
            self._identity_publisher.publish(String(data=self._identity))

    def _meet(self) -> None:
        """A policy that runs elsewhere has answered for the first time."""
        if self._info is not self._loop.info:
            self._info = self._loop.info
            self._introduce()
            self._inputs.destroy()
            self._observe()

    def deactivate(self) -> None:
        """Stop computing and release all topics."""
        self._loop.deactivate()
        self._publish_status()
        self._inputs.destroy()
        self._tasks.end()
        for timer in self._status_timers:
            self.destroy_timer(timer)
        self.destroy_service(self._service)
        for publisher in (self._chunk_publisher, self._status_publisher, self._identity_publisher, self._diagnostics):
            self.destroy_publisher(publisher)

    def settle(self) -> None:
        """Let a task that was running stop the bridge and send its result."""
        if not (self._configured and self._tasks.running):
            return
        give_up = time.monotonic() + _SETTLE_TIME
        while self._tasks.running and time.monotonic() < give_up:
            self.executor.spin_once(timeout_sec=_SETTLE_STEP)
        for _ in range(2):  # the result is on its way
            self.executor.spin_once(timeout_sec=_SETTLE_STEP)

    def cleanup(self) -> None:
        """End the inference thread and free the model."""
        self._tasks.destroy()
        self._bridge_input.destroy()
        self._loop.stop()
        del self._tasks, self._loop

    def _on_bridge(self, status: BridgeStatus) -> None:
        self._bridge_stamp, self._bridge_received = status.header.stamp, self.get_clock().now().to_msg()
        self._bridge.store(status)

    def _on_jump_back(self) -> None:
        epoch = self._loop.reset()
        self._loop.drops[PolicyReason.CLOCK_JUMPED_BACK] += 1
        self.get_logger().warning(f"{PolicyReason.CLOCK_JUMPED_BACK.text}; epoch {epoch}")

    def _on_set_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        try:
            check_instruction(self._info, request.instruction, self._info.name)
        except ConfigError as error:
            response.code, response.message, response.epoch = response.NO_EMBEDDING, str(error), self._loop.epoch
            return response
        response.epoch = self._loop.set_instruction(request.instruction)
        response.success, response.message = True, f"task: {request.instruction}"
        self.get_logger().info(response.message)
        return response

    def _publish_chunk(self, result: ChunkResult) -> None:
        chunk = result.chunk
        message = ActionChunk(
            session=result.session,
            chunk_id=result.chunk_id,
            epoch=result.epoch,
            policy_id=self._info.name,
            instruction=result.instruction,
            step=duration_message(chunk.step_ns),
            inference_start=time_message(result.inference_start_ns),
            committed_steps=chunk.committed,
        )
        self._committed = chunk.committed
        message.header.stamp = time_message(chunk.stamp_ns)
        message.decode_ms, message.encode_ms, message.prefill_ms, message.denoise_ms, message.total_ms = (
            result.latency_ms
        )
        message.trajectory.joint_names = chunk.names
        message.trajectory.points = [
            JointTrajectoryPoint(positions=row.tolist(), time_from_start=duration_message(step * chunk.step_ns))
            for step, row in enumerate(chunk.actions)
        ]
        self._chunk_publisher.publish(message)

    def _publish_status(self) -> None:
        self._meet()
        loop = self._loop
        now_ns = self.get_clock().now().nanoseconds
        recent = [at for at in list(loop.published_at) if at > time.monotonic() - _RATE_WINDOW]
        drops: Counter[PolicyReason] = Counter(loop.drops)
        streams = []
        for name, stream in self._buffer.streams.items():
            drops.update(stream.rejected)
            newest = stream.entries[-1][0] if stream.entries else None
            rate, jitter = self._buffer.arrivals(name)
            streams.append(
                StreamStatus(
                    name=name,
                    received=stream.received,
                    rejected=stream.rejected.total(),
                    age=-1.0 if newest is None else (now_ns - newest) / 1e9,
                    offset=self._inputs.offset(name),
                    skew=stream.skew_ns / 1e9,
                    rate=rate,
                    jitter=jitter,
                )
            )
        known = familiarity(self._info, loop.frames.newest_joints())
        state, reason, detail = loop.state, loop.reason, loop.detail
        standing = self._standstill.seconds(now_ns, time.monotonic_ns())
        if standing > STANDSTILL and state != PolicyState.FAULT:  # nothing new can be observed
            state = PolicyState.WAITING if state == PolicyState.RUNNING else state
            reason, detail = PolicyReason.CLOCK_STANDS_STILL, f"{standing:.1f} s"
        message = PolicyStatus(
            machine=platform.node(),
            bridge_stamp=self._bridge_stamp,
            bridge_received=self._bridge_received,
            state=int(state),
            reason=int(reason),
            reason_text=": ".join(filter(None, (reason.text, detail))),
            policy_id=self._info.name,
            random_weights=self._info.identity.origin == "random",
            instruction=loop.instruction,
            session=loop.session,
            epoch=loop.epoch,
            chunks=loop.chunks,
            chunk_rate=len(recent) / _RATE_WINDOW,
            latency_p50=loop.latency_percentile(50),
            latency_p99=loop.latency_percentile(99),
            streams=streams,
            committed_steps=self._committed,
            state_inside=known.inside,
            state_known=known.known,
            state_outside=known.outside,
            drops=[DropCount(reason=int(reason), text=reason.text, count=n) for reason, n in sorted(drops.items())],
        )
        message.header.stamp = time_message(now_ns)
        self._last_status = message
        self._status_publisher.publish(message)
        if self._shown != (message.state, message.reason) and message.reason:
            self.get_logger().warning(f"{message.reason}: {message.reason_text}", throttle_duration_sec=WARN_PERIOD)
        self._shown = (message.state, message.reason)

    def _publish_diagnostics(self) -> None:
        name, status = self.get_fully_qualified_name().lstrip("/"), self._last_status
        state = PolicyState(status.state)
        other = diagnostics.WARN if status.reason else diagnostics.OK
        level = {PolicyState.FAULT: diagnostics.ERROR, PolicyState.WAITING: diagnostics.WARN}.get(state, other)
        latency = dict(zip(("decode", "encode", "prefill", "denoise", "total"), status.latency_p50, strict=False))
        message = DiagnosticArray(
            status=[
                diagnostics.diagnostic(
                    name,
                    "inference",
                    level,
                    f"{state.name}: {status.reason_text or status.instruction}",
                    {
                        "chunks": status.chunks,
                        "chunk rate [Hz]": status.chunk_rate,
                        "session": f"{status.session:016x}",
                        "epoch": status.epoch,
                        "committed steps": status.committed_steps,
                        **{f"latency p50 {stage} [ms]": value for stage, value in latency.items()},
                        **diagnostics.counts(status.drops),
                    },
                ),
                *diagnostics.stream_diagnostics(
                    name, status.streams, self._max_observation_age, self._inputs.publishers()
                ),
            ]
        )
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> None:
    """Entry point."""
    run(PolicyNode)
