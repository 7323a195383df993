"""Figures of a session: latency, skew, drops, command rate, and the error against the recorded targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from fastwam_policy.policies.familiarity import Familiarity
from fastwam_policy.reports.session import STAGES, Session
from fastwam_policy.runtime.reasons import CAMERA_WATCHDOGS, PolicyReason
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim import contacts
from galaxea_r1lite_sim.tasks import TASKS

_LONGEST = 1000  # letters of a text: those of messages may have any length
_LONGEST_STATUS = 1.0  # s that a status message counts for: they come at 10 Hz
_LEAST_SHARE = 0.01  # of the time, of a reason that the headline names
_UNARMED = (State.INACTIVE, State.DISARMED)
ALARMS = {Reason.PLAN_STALE, Reason.CLOCK_JUMPED_BACK, Reason.CLOCK_JUMPED_AHEAD} | {
    reason for reason in Reason if Reason.FEEDBACK_MISSING <= reason < Reason.CHUNK_OLD_EPOCH
}


def open_loop_error(session: Session, robot: RobotConfig) -> dict[str, NDArray[np.float64]]:
    """Absolute difference between predicted and recorded targets, by group: [chunks, H, joints], NaN past the end."""
    result = {}
    horizon = max((len(chunk.times) for chunk in session.chunks), default=0)
    for group, place in robot.slices.items():
        if group in session.recorded and session.chunks:
            reference = session.recorded[group]
            errors = np.full((len(session.chunks), horizon, place.stop - place.start), np.nan)
            for row, chunk in zip(errors, session.chunks, strict=True):  # chunks of two policies may differ in length
                row[: len(chunk.times)] = np.abs(chunk.actions[:, place] - reference.at(chunk.times))
            result[group] = errors
    return result


def summarise(session: Session, robot: RobotConfig) -> dict[str, Any]:
    """All figures as plain data: times in ms unless the name says s, errors in rad and mm."""
    status = session.policy_status[-1] if session.policy_status else None
    tracking = [s for s in session.bridge_status if s.state == State.TRACKING]
    latency = np.array([chunk.latency_ms for chunk in session.chunks])
    skews = np.array([max(abs(s.skew) for s in m.streams) for m in session.policy_status if m.chunks and m.streams])
    error = open_loop_error(session, robot)
    return {
        "duration_s": session.duration,
        "policy_id": status.policy_id if status else None,
        "identity": session.identity,
        "random_weights": bool(status.random_weights) if status else None,
        "instruction": status.instruction if status else None,
        "chunks": len(session.chunks),
        "start_state": _start_state(session),
        "simulation": _task(session.simulation),
        "contacts": _contacts(session.simulation),
        "latency": {
            stage: {"p50": float(np.percentile(column, 50)), "p99": float(np.percentile(column, 99))}
            for stage, column in zip(STAGES, latency.T, strict=True)
        }
        if len(latency)
        else {},
        "skew": {"p50": 1e3 * float(np.percentile(skews, 50)), "max": 1e3 * float(skews.max())} if skews.size else {},
        "drops": {
            "policy": _counted(session.policy_status, "drops"),
            "bridge": _counted(session.bridge_status, "drops"),
        },
        "unusable": dict(session.unusable),
        "states": _shares(session.bridge_status),
        "held": _held(session.bridge_status),
        "interventions": _counted(session.bridge_status, "interventions"),
        "watchdogs": _watchdogs(session.bridge_status) | _bad_cameras(session.policy_status),
        "takeover": _takeover(session.bridge_status),
        "tracking_share": len(tracking) / len(session.bridge_status) if session.bridge_status else 0.0,
        "command": {
            "rate_hz": float(np.median([s.control_rate for s in tracking])),
            "period_p99": float(np.median([s.control_period_p99 for s in tracking])),
            "period_max": float(max(s.control_period_max for s in tracking)),
        }
        if tracking
        else {},
        "open_loop_error": {
            group: {
                "unit": robot.groups[group].unit,
                "mean": float(np.nanmean(values)),
                "first_step": _mean(values[:, 0]),
                "last_step": _mean(values[:, -1]),
            }
            for group, values in error.items()
            if np.isfinite(values).any()
        },
    }


def _start_state(session: Session) -> dict[str, Any]:
    """The joints at arming against the band of the policy's training data; empty where it does not say."""
    armed = [_stamp(status) for status in session.bridge_status if status.state not in _UNARMED]
    known = [status for status in session.policy_status if getattr(status, "state_known", 0)]
    if not known:
        return {}
    status = [one for one in known if _stamp(one) <= armed[0]][-1:] if armed else []
    last = status[0] if status else known[0]
    return {"inside": int(last.state_inside), "known": int(last.state_known), "outside": list(last.state_outside)}


def _stamp(status: Any) -> tuple[int, int]:
    return int(status.header.stamp.sec), int(status.header.stamp.nanosec)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _task(statuses: Sequence[Any]) -> dict[str, Any]:
    """Whether and when the simulated task was done; empty without a simulator."""
    if not statuses:
        return {}
    done = next((float(status.time) for status in statuses if status.success), None)
    last = statuses[-1]
    distance = last.distance if hasattr(last, "distance") else last.corner_distance  # as version 0.1 called it at first
    return {
        "task": getattr(last, "task", "fold"),
        "success": done is not None,
        "time_s": done,
        "seed": int(last.seed),
        "distance_cm": 100 * float(distance),
        "real_time_factor": float(np.median([status.real_time_factor for status in statuses])),
    }


def _contacts(statuses: Sequence[Any]) -> dict[str, Any]:
    """What the simulated robot touched; empty without a simulator, or with one that did not say so."""
    if not statuses or not hasattr(statuses[-1], "contacts"):
        return {}
    return contacts.summarise([contacts.of_messages(statuses[-1].contacts)])


def _counted(statuses: Sequence[Any], field: str) -> dict[str, int]:
    """What a counter of the status messages counted during the session: nodes may have run before it."""
    if not statuses:
        return {}
    first, last = (
        Counter({f"{one.reason} {one.text}": int(one.count) for one in getattr(message, field)})
        for message in (statuses[0], statuses[-1])
    )
    return dict(last - first)


def _watchdogs(statuses: Sequence[Any]) -> dict[str, int]:
    """How often each watchdog or stop began to act on a bridge that was armed."""
    began = Counter(
        Reason(now.reason)
        for before, now in zip([None, *statuses], statuses, strict=False)
        if now.reason in ALARMS and now.state not in _UNARMED and (before is None or before.reason != now.reason)
    )
    return {f"{int(reason)} {reason.text}": count for reason, count in sorted(began.items())}


def _bad_cameras(statuses: Sequence[Any]) -> dict[str, int]:
    """How often a watchdog of the cameras began to act."""
    began = Counter(
        PolicyReason(now.reason)
        for before, now in zip([None, *statuses], statuses, strict=False)
        if now.reason in CAMERA_WATCHDOGS and (before is None or before.reason != now.reason)
    )
    return {f"{int(reason)} {reason.text}": count for reason, count in sorted(began.items())}


def _takeover(statuses: Sequence[Any]) -> dict[str, float]:
    """How often somebody took over, and for which share of the time; empty where nobody did."""
    over = [status.state == State.TAKEOVER for status in statuses]
    count = sum(now and not before for before, now in zip([False, *over], over, strict=False))
    return {"count": count, "share": float(_weights(statuses) @ over)} if count else {}


def _shares(statuses: Sequence[Any]) -> dict[str, float]:
    """Share of the time by state, and by reason where it is not simply tracking."""
    shares: dict[str, float] = {}
    for status, weight in zip(statuses, _weights(statuses), strict=True):
        reason = f" ({status.reason} {_name(Reason, status.reason)})" if status.reason else ""
        name = state_name(status.state) + reason
        shares[name] = shares.get(name, 0.0) + float(weight)
    return _largest_first(shares)


def _held(statuses: Sequence[Any]) -> dict[str, float]:
    """Share of the time for each reason to hold, the largest first."""
    shares: dict[str, float] = {}
    for status, weight in zip(statuses, _weights(statuses), strict=True):
        if status.state == State.HOLDING:
            name = reason_text(status.reason)
            shares[name] = shares.get(name, 0.0) + float(weight)
    return _largest_first(shares)


def _largest_first(shares: dict[str, float]) -> dict[str, float]:
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _weights(statuses: Sequence[Any]) -> NDArray[np.float64]:
    """The share of the time for which each status message was the newest; they come at 10 Hz and at every change."""
    times = np.array([second + nanosecond / 1e9 for second, nanosecond in map(_stamp, statuses)])
    lengths = np.clip(np.diff(times), 0.0, _LONGEST_STATUS)
    lengths = np.append(lengths, np.median(lengths) if lengths.any() else 1.0)[: len(times)]
    return np.asarray(lengths / lengths.sum(), np.float64) if len(times) else lengths


def state_name(number: int) -> str:
    """The name of a state, also of one that only a newer version knows."""
    return _name(State, number)


def reason_text(number: int) -> str:
    """A reason's number and what it means, without the advice that follows it."""
    return f"{number} {Reason(number).text.partition(':')[0]}" if number in list(Reason) else f"unknown reason {number}"


def _name(kind: type[IntEnum], number: int) -> str:
    return kind(number).name if number in list(kind) else f"unknown {kind.__name__.lower()} {number}"


def headline(summary: dict[str, Any]) -> str:
    """What happened, in a sentence or two."""
    said = f"{summary['duration_s']:.1f} s, {summary['chunks']} chunks."
    if done := summary["simulation"]:
        task = TASKS.get(done["task"])
        thing, verb = (task.thing.capitalize(), task.done) if task else (f"Task {done['task']}", "done")
        said = f"{thing} {verb} in {done['time_s']:.1f} s." if done["success"] else f"{thing} not {verb}: {said}"
    if held := summary["held"]:
        share = sum(held.values())
        reasons = [f"{reason} ({100 * part:.0f} %)" for reason, part in held.items() if part >= _LEAST_SHARE]
        said += f" Held {100 * share:.0f} % of the time" + (f": {'; '.join(reasons)}." if reasons else ".")
    if takeover := summary["takeover"]:
        said += f" A person took over {takeover['count']} x, {100 * takeover['share']:.0f} % of the time."
    return said


def table(summary: dict[str, Any]) -> Table:
    """The figures for a terminal."""
    result = Table(title="Session", show_header=False)
    for name, value in rows(summary):
        result.add_row(name, value)
    return result


def rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as lines of name and text."""
    lines = [
        (
            "policy",
            f"{summary['policy_id']}" + (", RANDOM weights: errors mean nothing" if summary["random_weights"] else ""),
        ),
        ("instruction", str(summary["instruction"])),
        ("length", f"{summary['duration_s']:.1f} s"),
        ("chunks", str(summary["chunks"])),
    ]
    if policy := summary["identity"]:
        source, origin = policy.get("source") or policy.get("folder", ""), policy.get("origin", "origin not known")
        lines.insert(1, ("weights", f"{origin}, {source}, sha256 {policy.get('sha256') or 'not known'}"))
        if before := policy.get("distilled_from"):
            lines.insert(2, ("distilled from", before))
    if start := summary.get("start_state"):
        lines.append(("joints at arming", str(Familiarity(**start))))
    if done := summary["simulation"]:
        text = f"yes, after {done['time_s']:.1f} s" if done["success"] else "no"
        task = TASKS.get(done["task"])
        lines.append(
            (
                f"{task.thing} {task.done}" if task else f"task {done['task']}",
                f"{text}; {done['distance_cm']:.1f} cm from its place; seed {done['seed']}, "
                f"{done['real_time_factor']:.2f} of real time",
            )
        )
    if touched := summary["contacts"]:
        lines += contacts.texts(touched).items()
    for stage, value in summary["latency"].items():
        lines.append((f"latency {stage}", f"p50 {value['p50']:.1f} ms, p99 {value['p99']:.1f} ms"))
    if summary["skew"]:
        lines.append(
            ("skew within an observation", f"p50 {summary['skew']['p50']:.1f} ms, max {summary['skew']['max']:.1f} ms")
        )
    for side, drops in summary["drops"].items():
        lines.append((f"drops, {side}", "; ".join(f"{count} x {reason}" for reason, count in drops.items()) or "none"))
    if unusable := summary["unusable"]:
        lines.append(("unusable, left out", "; ".join(f"{count} x {topic}" for topic, count in unusable.items())))
    states = (f"{state} {100 * share:.0f} %" for state, share in summary["states"].items())
    lines.append(("bridge states", ", ".join(states) or "no status"))
    if takeover := summary.get("takeover"):
        lines.append(("taken over", f"{takeover['count']} x, {100 * takeover['share']:.0f} % of the time"))
    limits = (f"{count} x {limit}" for limit, count in summary["interventions"].items())
    lines.append(("limits began to act", "; ".join(limits) or "never"))
    alarms = (f"{count} x {alarm}" for alarm, count in summary["watchdogs"].items())
    lines.append(("watchdogs began to act", "; ".join(alarms) or "never"))
    if summary["command"]:
        command = summary["command"]
        lines.append(
            (
                "commands while tracking",
                f"{command['rate_hz']:.1f} Hz, period p99 {command['period_p99']:.1f} ms, "
                f"max {command['period_max']:.1f} ms",
            )
        )
    for group, error in summary["open_loop_error"].items():
        digits = 3 if error["unit"] == "rad" else 1
        first, last = (
            "-" if error[step] is None else f"{error[step]:.{digits}f}" for step in ("first_step", "last_step")
        )
        lines.append(
            (
                f"open-loop error {group}",
                f"mean {error['mean']:.{digits}f} {error['unit']} (first step {first}, last {last})",
            )
        )
    return [(name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") for name, text in lines]
