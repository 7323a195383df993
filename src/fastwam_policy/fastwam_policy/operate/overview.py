"""What bridge and policy say of themselves, for a person: on the operator's screen, and in `fastwam status`."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from fastwam_msgs.msg import BridgeStatus, DropCount, PolicyStatus, StreamStatus
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.execution.policy_clocks import differ
from galaxea_r1lite_bridge.execution.reasons import Reason, State

_COLOURS = {
    State.HOLDING: "green", State.TRACKING: "bold green", State.TAKEOVER: "bold cyan", State.STOPPING: "yellow",
    State.FAULT: "bold red", State.ESTOP: "bold white on red",
}  # fmt: skip
_MOST_COUNTS = 3
_UNABLE = (State.INACTIVE, State.FAULT, State.ESTOP)
_ABLE = (PolicyState.IDLE, PolicyState.RUNNING)


def obstacles(bridge: BridgeStatus | None, policy: PolicyStatus | None) -> list[str]:
    """What keeps a task from being run, a line each; None: it is not heard."""
    return [*_of_bridge(bridge), *_of_policy(policy)]


def _of_bridge(bridge: BridgeStatus | None) -> Iterator[str]:
    if bridge is None:
        yield "no status from bridge_node: does it run, in this ROS domain and namespace?"
        return
    if bridge.state in _UNABLE:
        yield f"bridge {State(bridge.state).name}, {bridge.reason}: {bridge.reason_text}"
    if bridge.arm_again:
        yield "bridge: it was stopped before it followed a policy, and must be armed again"
    if differ(bridge.policy_clock_offset, bridge.policy_round_trip):
        offset = f"{bridge.policy_clock_offset:+.3f} s"
        yield f"bridge: {Reason.CLOCKS_DIFFER.text} ({bridge.policy_machine}'s is {offset} from the bridge's)"
    silent = [stream.name for stream in bridge.feedback if stream.rate == 0]
    if silent:
        yield f"bridge: no feedback of {', '.join(silent)}"


def _of_policy(policy: PolicyStatus | None) -> Iterator[str]:
    if policy is None:
        yield "no status from policy_node: does it run, in this ROS domain and namespace?"
    elif policy.state not in _ABLE:
        yield f"policy {PolicyState(policy.state).name}, {policy.reason}: {policy.reason_text}"


def headline(bridge: BridgeStatus | None, policy: PolicyStatus | None) -> Text:
    """The bridge's state and reason, and the policy's, a line each."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if bridge is None:
        text.append("no status from the bridge", "bold red")
    else:
        state = State(bridge.state)
        text.append(state.name, _COLOURS.get(state, "bold"))
        text.append(f", {bridge.reason} {bridge.reason_text}" if bridge.reason else "")
        text.append("; arm again" if bridge.arm_again else "", "yellow")
        text.append(" | taken over, and held" if bridge.taken_over and state != State.TAKEOVER else "", "yellow")
    text.append("\n")
    if policy is None:
        return text.append("no policy", "bold red")
    text.append(f"policy {PolicyState(policy.state).name}", "green" if policy.state in _ABLE else "yellow")
    text.append(f", {policy.reason} {policy.reason_text}" if policy.reason else "")
    return text.append(" | RANDOM WEIGHTS" if policy.random_weights else "", "bold red")


def figures(bridge: BridgeStatus | None, policy: PolicyStatus | None) -> Table:
    """Names and values: instruction, times, plan, control loop, limits, drops."""
    shown = Table.grid(padding=(0, 1), expand=True)
    shown.add_column(no_wrap=True, style="dim")
    shown.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
    for name, value in [*_policy_figures(policy), *_bridge_figures(bridge)]:
        shown.add_row(name, value)
    return shown


def _policy_figures(policy: PolicyStatus | None) -> Iterator[tuple[str, str]]:
    if policy is None:
        return
    yield "policy", policy.policy_id
    yield "instruction", policy.instruction
    if len(policy.latency_p50):
        times = f"p50 {policy.latency_p50[-1]:.0f}, p99 {policy.latency_p99[-1]:.0f} ms"
        yield "inference", f"{times}, {policy.chunk_rate:.1f} Hz"
    yield "chunks", f"{policy.chunks}{_counts(policy.drops, PolicyReason)}"


def _bridge_figures(bridge: BridgeStatus | None) -> Iterator[tuple[str, str]]:
    if bridge is None:
        return
    if bridge.plan_age >= 0:
        lag = f", {bridge.plan_lag:.2f} s behind" if bridge.plan_lag > 0.01 else ""
        yield "plan", f"{bridge.plan_age:.2f} s old, {bridge.plan_remaining:.2f} s left{lag}"
    else:
        yield "plan", "none"
    heard = bridge.heartbeat_age
    yield "heartbeat", "none" if heard < 0 else f"{heard:.2f} s ago"
    loop = f"p99 {bridge.control_period_p99:.0f}, max {bridge.control_period_max:.0f} ms"
    yield "control", f"{bridge.control_rate:.0f} Hz, {loop}"
    yield "limited", _counts(bridge.interventions, Reason).lstrip(", ") or "never"
    yield "dropped", _counts(bridge.drops, Reason).lstrip(", ") or "none"


def _counts(counts: Iterable[DropCount], reasons: type[Reason] | type[PolicyReason]) -> str:
    """The most frequent ones."""
    most = sorted(counts, key=lambda count: -count.count)[:_MOST_COUNTS]
    return "".join(f", {count.count} {reasons(count.reason).name.lower()}" for count in most)


def streams(bridge: BridgeStatus | None, policy: PolicyStatus | None) -> Table:
    """What comes from the robot: joints as the bridge sees them, cameras as the policy does."""
    shown = Table(box=None, padding=(0, 1), pad_edge=False)
    shown.add_column("stream", no_wrap=True)
    for name in ("Hz", "age", "bad"):
        shown.add_column(name, justify="right", no_wrap=True)
    joints: list[StreamStatus] = list(bridge.feedback) if bridge is not None else []
    known = {stream.name for stream in joints}
    seen = [stream for stream in policy.streams if stream.name not in known] if policy is not None else []
    for stream in [*joints, *seen]:
        age = f"{stream.age:.2f}" if stream.age >= 0 else "never"
        row = (stream.name, f"{stream.rate:.0f}", age, str(stream.rejected) if stream.rejected else "")
        shown.add_row(*row, style="red" if stream.rate == 0 else None)
    return shown


def fields(message: Any) -> Any:
    """A message as JSON has it: objects, lists, numbers, texts; None where a number is not finite."""
    if hasattr(message, "get_fields_and_field_types"):
        return {name: fields(getattr(message, name)) for name in message.get_fields_and_field_types()}
    if isinstance(message, (array, np.ndarray)):
        message = message.tolist()
    if isinstance(message, list):
        return [fields(each) for each in message]
    if isinstance(message, float):
        return message if math.isfinite(message) else None
    return message
