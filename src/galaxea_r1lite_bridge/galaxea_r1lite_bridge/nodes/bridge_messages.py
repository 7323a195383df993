"""The messages that bridge_node publishes, from a control tick's command and the counters of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState

from fastwam_msgs.msg import BridgeStatus, DropCount, StreamStatus
from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.feedback import FeedbackStream
from galaxea_r1lite_bridge.execution.limits import Motion
from galaxea_r1lite_bridge.execution.policy_clocks import differ
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import WatchdogSettings
from galaxea_r1lite_bridge.execution.types import Command
from galaxea_r1lite_bridge.nodes import diagnostics
from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.deadline_loop import PeriodStatistics
from galaxea_r1lite_bridge.robot.config import RobotConfig

_LONGEST_TEXT = 1000  # characters of a driver's errors: a status must stay within the bound of a message


def reason_text(command: Command) -> str:
    """The reason's sentence and what it is about."""
    return ": ".join(filter(None, (command.reason.text, command.detail)))


def target_messages(
    robot: RobotConfig, command: Command, now_ns: int, held_speed: float
) -> Iterator[tuple[str, JointState]]:
    """Target of each group that a command moves, with the group's name.

    Arms that hold after a fault or an emergency stop may be held back by something: should they come free, they are
    asked to be no faster than `held_speed`, rad/s.
    """
    assert command.motion is not None
    held = command.state in (State.FAULT, State.ESTOP) and not command.motion.velocity.any()
    for name, group in (robot.actuated if command.all_groups else robot.commanded).items():
        gate, position = robot.gates[name], command.motion.position[robot.actuated_slices[name]]
        message = JointState(name=gate.names, position=gate.write(position).tolist())
        if group.unit == "rad" and group.moved_by == "policy":
            # In this field the robot reads the largest speed at which to follow the position.
            speeds = np.minimum(group.limits.velocity, held_speed if held else np.inf)
            message.velocity = gate.write_speeds(speeds).tolist()
        message.header.stamp = time_message(now_ns)
        yield name, message


def command_message(robot: RobotConfig, motion: Motion, now_ns: int) -> JointState:
    """What was sent to the joints that the policy moves, with its velocities."""
    count = len(robot.joint_names)
    message = JointState(
        name=robot.joint_names, position=motion.position[:count].tolist(), velocity=motion.velocity[:count].tolist()
    )
    message.header.stamp = time_message(now_ns)
    return message


def status_message(command: Command, controller: MotionController, loop: PeriodStatistics, now_ns: int) -> BridgeStatus:
    """Status after a control tick, without the joint streams."""
    message = BridgeStatus(
        state=int(command.state),
        reason=int(command.reason),
        reason_text=reason_text(command),
        session=controller.chunks.session or 0,
        epoch=controller.chunks.epoch,
        arm_again=controller.chunks.needs_arming,
        taken_over=controller.taken_over,
        plan_age=-1.0,
        plan_remaining=-1.0,
        plan_lag=command.lag,
        seam=controller.seam,
        limited=(command.limited[controller.joints.policy] != 0).tolist(),
        revocations=controller.chunks.revocations,
        control_rate=loop.rate,
        control_period_p99=loop.p99,
        control_period_max=loop.longest,
        drops=_counts(controller.chunks.drops),
        interventions=_counts(controller.interventions),
    )
    message.header.stamp = time_message(now_ns)
    if (clock := controller.policy_clocks.worst) is not None:
        message.policy_machine = clock.machine
        message.policy_clock_offset, message.policy_round_trip = clock.shortest.offset, clock.shortest.seconds
    if command.chunk is not None:
        message.chunk_id = command.chunk.chunk_id
        message.plan_age = (now_ns - command.chunk.stamp_ns) / 1e9
        message.plan_remaining = max(0.0, (command.chunk.end_ns - now_ns) / 1e9 + command.lag)
    return message


def stream_status(name: str, stream: FeedbackStream, steady_ns: int) -> StreamStatus:
    """How a joint stream is doing."""
    return StreamStatus(
        name=name,
        received=stream.received,
        rejected=stream.rejected,
        age=stream.newest(steady_ns).age,
        offset=stream.offset,
        rate=stream.arrivals.rate(steady_ns / 1e9),
        jitter=stream.arrivals.jitter(steady_ns / 1e9),
    )


def _counts(counted: Mapping[Reason, int]) -> list[DropCount]:
    return [DropCount(reason=int(reason), text=reason.text, count=count) for reason, count in sorted(counted.items())]


def driver_error_text(message: Any) -> str:
    """The errors in a driver's message, shortened; empty where there is none."""
    text = "; ".join(
        f"{error.name} {error.error_code} {' '.join(error.error_description)}".strip()
        for error in message.errors
        if error.error_code
    )
    return text[:_LONGEST_TEXT]


def status_diagnostics(
    node: str,
    status: BridgeStatus,
    limits: WatchdogSettings,
    publishers: Mapping[str, Sequence[str]],
    latency: float,
) -> Sequence[DiagnosticStatus]:
    """State, control loop, chunks and joint streams.

    Args:
        node: name of the node.
        status: newest one.
        limits: from which on a loop or a stream is late.
        publishers: nodes that publish the `chunks`, and each joint stream; there should be one.
        latency: s, from the last chunk's observation to its arrival.
    """
    state = State(status.state)
    level = diagnostics.OK if state.armed else diagnostics.WARN
    level = diagnostics.ERROR if state in (State.FAULT, State.ESTOP) else level
    late = status.control_period_max > 1e3 * limits.overrun.limit
    return [
        diagnostics.diagnostic(
            node,
            "state",
            level,
            f"{state.name}: {status.reason_text or state.text}",
            {"reason": status.reason, "epoch": status.epoch, "heartbeat age [s]": status.heartbeat_age}
            | diagnostics.counts(status.interventions),
        ),
        diagnostics.diagnostic(
            node,
            "control loop",
            diagnostics.WARN if late else diagnostics.OK,
            "late" if late else "ok",
            {
                "rate [Hz]": status.control_rate,
                "period p99 [ms]": status.control_period_p99,
                "period max [ms]": status.control_period_max,
            },
        ),
        _clock_diagnostic(node, status),
        _chunk_diagnostic(node, status, publishers["chunks"], latency),
        *diagnostics.stream_diagnostics(node, status.feedback, limits.feedback_age.limit, publishers),
    ]


def _clock_diagnostic(node: str, status: BridgeStatus) -> DiagnosticStatus:
    differs = differ(status.policy_clock_offset, status.policy_round_trip)
    return diagnostics.diagnostic(
        node,
        "policy clock",
        diagnostics.ERROR if differs else diagnostics.OK,
        Reason.CLOCKS_DIFFER.text if differs else "ok" if status.policy_machine else "no policy answers",
        {
            "machine": status.policy_machine,
            "ahead of this one [s]": status.policy_clock_offset,
            "round trip [s]": status.policy_round_trip,
        },
    )


def _chunk_diagnostic(node: str, status: BridgeStatus, publishers: Sequence[str], latency: float) -> DiagnosticStatus:
    level, text = diagnostics.OK, "ok"
    if len(publishers) != 1:
        level, names = diagnostics.WARN, f": {', '.join(publishers)}" if publishers else ""
        text = f"{len(publishers)} publishers of chunks; the bridge follows one session of them{names}"
    elif status.plan_age < 0:
        text = "no plan"
    values = {
        "latency, observation to bridge [s]": latency,
        "plan age [s]": status.plan_age,
        "seam [rad]": status.seam,
        **diagnostics.counts(status.drops),
    }
    return diagnostics.diagnostic(node, "chunks", level, text, values)
