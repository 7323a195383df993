"""Watchdogs: what must not happen while the arms move, each with its limit, its reasons and its reaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.settings import BridgeSettings, Reaction, Watch
from galaxea_r1lite_bridge.execution.types import Inputs

Vector = NDArray[np.float64]

_SECOND = 1_000_000_000
_FROZEN_TRAVEL = 0.05  # rad commanded while the feedback stands still: above what friction and backlash hide
_TRACKING_TIME = 0.2  # s that the tracking error must last: a servo's normal lag passes its limit for moments
_UNIT_SHARE = 0.02  # of what is commanded: a stroke that is sent as 0 to 1 moves by half of it
_UNIT_TIME = 1.0  # s that a gripper has to move
_INTERLEAVED = 3  # steps back of the node's clock within a second: one may be a clock that was set
_JUMP_MEMORY_NS = 1_000_000_000  # ns that a jump is held for, where it is no fault
_OVERRUN_MEMORY = 1.0  # s for which a late control loop counts as late


@dataclass(frozen=True)
class Finding:
    """A limit that is passed now."""

    reason: Reason
    reaction: Reaction
    detail: str


@dataclass(frozen=True)
class Tick:
    """What the watchdogs see of a control tick.

    Attributes:
        inputs: all that is known.
        measured: positions [D]; None: a joint stream is missing, stale or refused.
        command: last command [D]; None: not armed, or held after a fault.
        observed_ns: stamp of the observation that the plan comes from; None: no policy's plan is followed.
    """

    inputs: Inputs
    measured: Vector | None
    command: Vector | None
    observed_ns: int | None


class Watchdogs:
    """Checks all conditions once a control tick. Not thread-safe."""

    def __init__(self, settings: BridgeSettings, joints: Joints, limiter: Limiter) -> None:
        """`limiter` has the joints' limits. Without a closed loop, feedback and commands are not compared."""
        limits, closed = settings.watchdog, settings.closed_loop
        self._all: list[Watchdog] = [
            ClockJump(limits.clock_jump),  # before what it does to the stamps of feedback
            FeedbackAge(limits.feedback_age),
            Heartbeat(limits.heartbeat, required=settings.require_heartbeat),
            *(
                [FeedbackJump(limits.feedback_jump, joints, limiter.velocity, limits.feedback_age.limit)]
                if closed
                else []
            ),
            Overrun(limits.overrun),
            *([FrozenFeedback(limits.frozen_feedback, joints)] if closed else []),
            *([TrackingError(limits.tracking_error, joints)] if closed else []),
            *([FeedbackUnit(limits.feedback_unit, joints, limiter.upper - limiter.lower)] if closed else []),
            ChunkAge(limits.chunk_age),
        ]

    def check(self, tick: Tick) -> list[Finding]:
        """What is wrong now, worst first."""
        found = [finding for watchdog in self._all for finding in watchdog.check(tick)]
        return sorted(found, key=lambda finding: finding.reaction, reverse=True)

    def reset(self) -> None:
        """Forget what was commanded: for arming."""
        for watchdog in self._all:
            watchdog.reset()


class Watchdog:
    """One condition."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def check(self, tick: Tick) -> Iterator[Finding]:
        """What is wrong now; for once a control tick."""
        return self._findings(tick)

    def reset(self) -> None:
        """Forget what was commanded: for arming."""

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        raise NotImplementedError

    def _found(self, reason: Reason, detail: str) -> Finding:
        return Finding(reason, self.watch.reaction, detail)


class FeedbackAge(Watchdog):
    """Age of each joint stream's newest usable message, s; and whether the stream can be believed."""

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        for group, feedback in tick.inputs.feedback.items():
            if feedback.usable(self.watch.limit):
                continue
            if feedback.refused != Reason.NONE:
                yield self._found(feedback.refused, group)
            elif feedback.invalid:
                yield self._found(Reason.FEEDBACK_INVALID, group)
            elif feedback.positions is None:
                yield self._found(Reason.FEEDBACK_MISSING, group)
            else:
                yield self._found(Reason.FEEDBACK_STALE, f"{group}, {feedback.age:.2f} s")


class Heartbeat(Watchdog):
    """Time since the last heartbeat of each sender that must go on, s; and whether all say that they are pressed."""

    def __init__(self, watch: Watch, *, required: bool) -> None:
        super().__init__(watch)
        self._required = required

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        age = tick.inputs.heartbeat_age
        if age > self.watch.limit:
            yield self._found(Reason.HEARTBEAT_LOST, f"{age:.2f} s")
        elif age < 0 and self._required:
            yield self._found(Reason.HEARTBEAT_LOST, "none is heard")
        elif tick.inputs.released:
            yield Finding(Reason.HEARTBEAT_RELEASED, Reaction.HOLD, "")


class ClockJump(Watchdog):
    """Difference between the node's clock and the steady clock over one tick, s; any step back counts, for a second.

    A clock that goes back several times a second has two publishers, and may then seem whole for a while.
    """

    _before: Inputs | None = None
    _back = ""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._backwards: deque[int] = deque(maxlen=_INTERLEAVED)

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        now, before, self._before = tick.inputs, self._before, tick.inputs
        if before is None:
            return
        step, passed = now.now_ns - before.now_ns, now.steady_ns - before.steady_ns
        back = now.backwards - before.backwards or int(step < 0)
        self._backwards.extend([now.steady_ns] * min(back, _INTERLEAVED))
        if back:
            self._back = f"{-step / _SECOND:.2f} s" if step < 0 else "between two ticks"
        lately = [at for at in self._backwards if now.steady_ns - at < _SECOND]
        if len(lately) == _INTERLEAVED:
            yield self._found(Reason.CLOCK_INTERLEAVED, "")
        if lately:
            yield self._found(Reason.CLOCK_JUMPED_BACK, self._back)
        elif before.now_ns and step - passed > self.watch.limit * _SECOND:  # a simulated clock begins from 0
            yield self._found(Reason.CLOCK_JUMPED_AHEAD, f"{(step - passed) / _SECOND:.2f} s")


class FeedbackJump(Watchdog):
    """Change of a group's measured positions since they were last known, rad, beyond what can have moved them.

    That is twice the velocity limits; and while commands are sent no more than these moved meanwhile, and were ahead of
    the joints before: what a driver says after a silence is compared with what it said before it.
    """

    def __init__(self, watch: Watch, joints: Joints, velocity: Vector, max_age: float) -> None:
        """`max_age` is that of feedback that can be used, s."""
        super().__init__(watch)
        self._joints, self._velocity, self._max_age = joints, velocity, max_age
        self._groups = {group: place for group, place in joints.groups.items() if joints.angular[place].any()}
        self._known: dict[str, _Known] = {}
        self._command: Vector | None = None
        self._travel = np.zeros(len(velocity))  # of the commands, rad
        self._last_ns = self._since_ns = 0
        self._found_ns: int = -_JUMP_MEMORY_NS
        self._detail = ""

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        now_ns, last_ns, command = tick.inputs.steady_ns, self._last_ns, tick.command
        self._last_ns = now_ns
        if command is None or self._command is None:
            self._since_ns = now_ns
        else:
            self._travel = self._travel + np.abs(command - self._command)
        self._command = command
        holding = command is not None and self.watch.reaction == Reaction.HOLD  # for longer than the tick of the jump
        for group, place in self._groups.items():
            feedback, before = tick.inputs.feedback[group], self._known.get(group)
            if feedback.positions is None or not feedback.usable(self._max_age):
                continue
            ahead = None if command is None else np.abs(command[place] - feedback.positions)
            now = self._known[group] = _Known(now_ns, feedback.positions, self._travel[place], ahead)
            if before is None:
                continue
            moved = 2 * self._velocity[place] * (now_ns - before.steady_ns) / _SECOND
            if before.ahead is not None and before.steady_ns >= self._since_ns:
                moved = np.minimum(moved, before.ahead + now.travel - before.travel)
            elif before.steady_ns != last_ns:  # anybody may have moved the arms in a gap
                continue
            excess = np.where(self._joints.angular[place], np.abs(now.positions - before.positions) - moved, 0.0)
            if (worst := float(excess.max())) > self.watch.limit:
                self._detail, self._found_ns = f"{group}, {worst:.3g} rad", now_ns
        if now_ns == self._found_ns or (holding and now_ns - self._found_ns < _JUMP_MEMORY_NS):
            yield self._found(Reason.FEEDBACK_JUMPED, self._detail)


@dataclass(frozen=True)
class _Known:
    """A group's positions when they were known.

    Attributes:
        steady_ns: when that was.
        positions: [joints], rad.
        travel: of the commands until then [joints], rad.
        ahead: how far the command was from them; None: none was sent.
    """

    steady_ns: int
    positions: Vector
    travel: Vector
    ahead: Vector | None


class Overrun(Watchdog):
    """Time between two control ticks, s; remembered for a while."""

    _before_ns: int | None = None
    _late_ns: int | None = None
    _late_by = 0.0

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        now = tick.inputs.steady_ns
        if self._before_ns is not None and (period := (now - self._before_ns) / _SECOND) > self.watch.limit:
            self._late_ns, self._late_by = now, period
        self._before_ns = now
        if self._late_ns is not None and now - self._late_ns < _OVERRUN_MEMORY * _SECOND:
            yield self._found(Reason.CONTROL_OVERRUN, f"{1e3 * self._late_by:.0f} ms")


class FrozenFeedback(Watchdog):
    """Time for which a group's positions repeat exactly though it is commanded away, s; lasts until they change.

    An arm at rest may repeat them for long, and sets off a little after its command: only from then on it counts.
    """

    def __init__(self, watch: Watch, joints: Joints) -> None:
        super().__init__(watch)
        self._groups = {group: place for group, place in joints.groups.items() if joints.angular[place].any()}
        self._before: dict[str, Vector | None] = {}
        self._commanded: dict[str, Vector] = {}  # when the positions last changed
        self._near_ns: dict[str, int] = {}  # when the command was last near that
        self._frozen: dict[str, Vector] = {}

    def reset(self) -> None:
        """Forget what was commanded; what is frozen stays so."""
        self._commanded.clear()
        self._near_ns.clear()

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        before, self._before = self._before, {group: tick.inputs.feedback[group].positions for group in self._groups}
        if tick.measured is None:  # the arms brake meanwhile, unseen
            self.reset()
            return
        for group, place in self._groups.items():
            now = tick.measured[place]
            frozen = self._frozen.get(group)
            if frozen is not None:
                if np.array_equal(now, frozen):  # the arm's real position is unknown
                    yield self._found(Reason.FEEDBACK_FROZEN, f"{group}, unchanged since then")
                    continue
                del self._frozen[group]
            if tick.command is not None:
                yield from self._standing(group, now, before.get(group), tick.command[place], tick.inputs.steady_ns)

    def _standing(
        self, group: str, now: Vector, before: Vector | None, command: Vector, steady_ns: int
    ) -> Iterator[Finding]:
        if group not in self._commanded or before is None or not np.array_equal(now, before):
            self._commanded[group] = command
        if float(np.abs(command - self._commanded[group]).max()) <= _FROZEN_TRAVEL:
            self._near_ns[group] = steady_ns
        standing = (steady_ns - self._near_ns[group]) / _SECOND
        if standing > self.watch.limit:
            self._frozen[group] = now
            yield self._found(Reason.FEEDBACK_FROZEN, f"{group}, {standing:.2f} s")


class TrackingError(Watchdog):
    """Difference between command and measured position, rad, for longer than moments."""

    _since_ns: int | None = None

    def __init__(self, watch: Watch, joints: Joints) -> None:
        super().__init__(watch)
        self._joints = joints

    def reset(self) -> None:
        """Forget what was commanded."""
        self._since_ns = None

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        if tick.measured is None or tick.command is None:
            return
        now = tick.inputs.steady_ns
        error = np.where(self._joints.angular, np.abs(tick.command - tick.measured), 0.0)
        if (worst := float(error.max())) <= self.watch.limit:
            self._since_ns = None
            return
        if self._since_ns is None:
            self._since_ns = now
        if now - self._since_ns > _TRACKING_TIME * _SECOND:
            yield self._found(Reason.TRACKING_ERROR, f"{self._joints.group_of(error)}, {worst:.3g} rad")


class FeedbackUnit(Watchdog):
    """How far a gripper is commanded, mm, while its feedback looks as if it were sent as 0 to 1 instead.

    Feedback outside of 0 to 1, or that moved by 2 % of what was commanded, is in mm.
    """

    def __init__(self, watch: Watch, joints: Joints, strokes: Vector) -> None:
        """`strokes` [D] are the ranges of the joints."""
        super().__init__(watch)
        self._joints, self._strokes = joints, strokes
        self._places = np.flatnonzero(~joints.angular).tolist()
        self._since: dict[int, _Stroke] = {}

    def reset(self) -> None:
        """Forget what was commanded."""
        self._since.clear()

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        if tick.measured is None or tick.command is None:
            return
        now = tick.inputs.steady_ns
        for place in self._places:
            measured, command = float(tick.measured[place]), float(tick.command[place])
            since = self._since.get(place)
            if since is None or not 0 <= measured <= 1 or since.moved(measured, self.watch.limit):
                self._since[place] = _Stroke(measured, command)
                continue
            since.travel = max(since.travel, abs(command - since.command))
            if since.travel < self.watch.limit:
                since.near_ns = now
            elif now - since.near_ns > _UNIT_TIME * _SECOND:
                yield self._found(
                    Reason.FEEDBACK_UNIT,
                    f"{self._joints.every_name[place]}, {measured:.2f} mm after {since.travel:.0f} mm were commanded; "
                    f"a factor of {self._strokes[place]:.0f} if it is sent as 0 to 1: `messages: {{range: [0, 1]}}` "
                    "of its group in the robot file says so",
                )


@dataclass
class _Stroke:
    """A gripper's position and command when it was looked at anew, mm, and what was commanded since."""

    measured: float
    command: float
    travel: float = 0.0
    near_ns: int = 0
    """When it had not been commanded far yet."""

    def moved(self, measured: float, least: float) -> bool:
        """Whether it follows; `least` mm count as commanded, so that noise is no motion."""
        return abs(measured - self.measured) >= _UNIT_SHARE * max(self.travel, least)


class ChunkAge(Watchdog):
    """Age of the observation that the plan comes from, s."""

    def _findings(self, tick: Tick) -> Iterator[Finding]:
        if tick.observed_ns is None:
            return
        age = (tick.inputs.now_ns - tick.observed_ns) / _SECOND
        if age > self.watch.limit:
            yield self._found(Reason.PLAN_STALE, f"{age:.2f} s")
