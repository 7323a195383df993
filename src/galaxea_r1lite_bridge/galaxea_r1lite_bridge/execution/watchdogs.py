"""Watchdogs: what must not happen while the arms move, each with its limit, its number and its reaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason

if TYPE_CHECKING:
    from galaxea_r1lite_bridge.execution.executor import Inputs

_SECOND = 1_000_000_000
_FROZEN_TRAVEL = 0.05  # rad commanded while the feedback stands still: above what friction and backlash hide
_TRACKING_TIME = 0.2  # s that the tracking error must last: a servo's normal lag passes its limit for moments
_OVERRUN_MEMORY = 1.0  # s for which a late control loop counts as late


class Reaction(IntEnum):
    """What a watchdog does, the worse the higher."""

    SLOW = 1
    """The plan is followed at half speed."""
    HOLD = 2
    """Brake and hold until the condition is over, then go on by itself."""
    FAULT = 3
    """Brake and hold until armed again."""


@dataclass(frozen=True)
class Watch:
    """Limit of one watchdog and its reaction."""

    limit: float
    reaction: Reaction


@dataclass(frozen=True)
class Finding:
    """A limit that is passed now."""

    reason: Reason
    reaction: Reaction
    detail: str


Report = Callable[[Reason, Watch, str], None]


@dataclass(frozen=True)
class WatchdogConfig:
    """All watchdogs. Limits in s, and rad where the name says so.

    Attributes:
        chunk_age: observation of the chunk in use.
        feedback_age: newest message of a joint stream, by arrival.
        frozen_feedback: time for which positions repeat exactly while the arm is commanded to move.
        feedback_jump: rad between two control ticks, beyond what the velocity limits explain.
        tracking_error: rad between command and measured position, for longer than moments.
        clock_jump: difference between the node's clock and the steady clock over one tick.
        overrun: time between two control ticks.
        heartbeat: time since the operator's last heartbeat; None: not required.
    """

    chunk_age: Watch
    feedback_age: Watch
    frozen_feedback: Watch
    feedback_jump: Watch
    tracking_error: Watch
    clock_jump: Watch
    overrun: Watch
    heartbeat: Watch | None = None


@dataclass
class Watchdogs:
    """Checks all conditions once a control tick. Not thread-safe."""

    config: WatchdogConfig
    groups: Mapping[str, slice]
    arms: NDArray[np.bool_]
    """[D], joints in rad: a gripper may rightly be held off its target."""
    velocity: NDArray[np.float64]
    """Velocity limits [D]."""
    follows: bool = True
    """Whether the feedback answers to the commands; in a replay it does not."""
    _before: Inputs | None = None
    _measured: NDArray[np.float64] | None = None
    _moved_ns: dict[str, int] = field(default_factory=dict)
    _commanded: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _frozen: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Positions of each group at which the feedback froze, until others come."""
    _off_since_ns: int | None = None
    _late_ns: int | None = None
    _late_by: float = 0.0

    def reset(self) -> None:
        """Forget what was commanded: for arming."""
        self._moved_ns.clear()
        self._commanded.clear()
        self._off_since_ns = None

    def check(
        self, inputs: Inputs, measured: NDArray[np.float64] | None, command: NDArray[np.float64] | None
    ) -> Sequence[Finding]:
        """What is wrong now, worst first.

        Args:
            inputs: of this tick.
            measured: positions [D]; None: a joint stream is missing, stale or invalid.
            command: last command [D]; None: not armed.
        """
        config, before = self.config, self._before
        found: list[Finding] = []

        def report(reason: Reason, watch: Watch, detail: str) -> None:
            found.append(Finding(reason, watch.reaction, detail))

        for group, feedback in inputs.feedback.items():
            if feedback.invalid:
                report(Reason.FEEDBACK_INVALID, config.feedback_age, group)
            elif feedback.positions is None:
                report(Reason.FEEDBACK_MISSING, config.feedback_age, group)
            elif feedback.age > config.feedback_age.limit:
                report(Reason.FEEDBACK_STALE, config.feedback_age, f"{group}, {feedback.age:.2f} s")
        if config.heartbeat is not None and not 0 <= inputs.heartbeat_age <= config.heartbeat.limit:
            report(Reason.HEARTBEAT_LOST, config.heartbeat, f"{inputs.heartbeat_age:.2f} s")
        if before is not None:
            period = (inputs.steady_ns - before.steady_ns) / _SECOND
            jump = (inputs.now_ns - before.now_ns) / _SECOND - period
            if inputs.now_ns < before.now_ns:
                report(Reason.CLOCK_JUMPED_BACK, config.clock_jump, f"{(before.now_ns - inputs.now_ns) / 1e9:.2f} s")
            elif before.now_ns and jump > config.clock_jump.limit:  # at 0 a simulated clock has not begun
                report(Reason.CLOCK_JUMPED_AHEAD, config.clock_jump, f"{jump:.2f} s")
            if period > config.overrun.limit:
                self._late_ns, self._late_by = inputs.steady_ns, period
            if self.follows and measured is not None:
                self._check_jump(measured, period, report)
        if self._late_ns is not None and inputs.steady_ns - self._late_ns < _OVERRUN_MEMORY * _SECOND:
            report(Reason.CONTROL_OVERRUN, config.overrun, f"{1e3 * self._late_by:.0f} ms")
        if measured is not None and self.follows:
            self._check_frozen(inputs, command, report)
            if command is not None:
                self._check_tracking(inputs, measured, command, report)
        self._before, self._measured = inputs, measured
        return sorted(found, key=lambda finding: -finding.reaction)

    def _check_jump(self, measured: NDArray[np.float64], period: float, report: Report) -> None:
        if self._measured is None:
            return
        excess = np.abs(measured - self._measured) - 2 * self.velocity * period
        excess[~self.arms] = 0.0
        if (worst := float(excess.max())) > self.config.feedback_jump.limit:
            report(Reason.FEEDBACK_JUMPED, self.config.feedback_jump, f"{self._group(excess)}, {worst:.2f} rad")

    def _check_frozen(self, inputs: Inputs, command: NDArray[np.float64] | None, report: Report) -> None:
        for group, place in self.groups.items():
            if not self.arms[place].any():
                continue
            now = inputs.feedback[group].positions
            frozen = self._frozen.get(group)
            if now is not None and frozen is not None:
                if np.array_equal(now, frozen):  # where that arm really is, nobody knows
                    report(Reason.FEEDBACK_FROZEN, self.config.frozen_feedback, f"{group}, unchanged since then")
                    continue
                del self._frozen[group]
            if command is None:
                continue
            before = None if self._before is None else self._before.feedback[group].positions
            same = now is not None and before is not None and np.array_equal(now, before)
            if group not in self._moved_ns or not same:
                self._moved_ns[group], self._commanded[group] = inputs.steady_ns, command[place]
            standing = (inputs.steady_ns - self._moved_ns[group]) / _SECOND
            travel = float(np.abs(command[place] - self._commanded[group]).max())
            if standing > self.config.frozen_feedback.limit and travel > _FROZEN_TRAVEL:
                report(Reason.FEEDBACK_FROZEN, self.config.frozen_feedback, f"{group}, {standing:.2f} s")
                if now is not None:
                    self._frozen[group] = now

    def _check_tracking(
        self, inputs: Inputs, measured: NDArray[np.float64], command: NDArray[np.float64], report: Report
    ) -> None:
        error = np.where(self.arms, np.abs(command - measured), 0.0)
        if (worst := float(error.max())) <= self.config.tracking_error.limit:
            self._off_since_ns = None
            return
        if self._off_since_ns is None:
            self._off_since_ns = inputs.steady_ns
        if inputs.steady_ns - self._off_since_ns > _TRACKING_TIME * _SECOND:
            report(Reason.TRACKING_ERROR, self.config.tracking_error, f"{self._group(error)}, {worst:.2f} rad")

    def _group(self, values: NDArray[np.float64]) -> str:
        index = int(values.argmax())
        return next(group for group, place in self.groups.items() if place.start <= index < place.stop)
