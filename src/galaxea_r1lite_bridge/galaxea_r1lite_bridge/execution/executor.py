"""The bridge's state machine: from chunks and measured joints to one command a control tick."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.blending import Plan
from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.plan import Chunk, minimum_jerk
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.watchdogs import Finding, Reaction, WatchdogConfig, Watchdogs
from galaxea_r1lite_bridge.execution.workspace import KINDS, Workspace

_SECOND = 1_000_000_000
_FOLLOW_TIME = 0.1  # s: a plan waits when its target is further ahead than a joint moves in this time at its limit
_BRAKING_POINTS = 4  # where the way of braking is checked against the workspace
_SLOW = 0.5  # speed of the plan under a watchdog's reaction `slow`
_LOOK_AHEAD = (0.04, 0.1, 0.2, 0.3, 0.4)  # s of the plan checked against workspace and acceleration limits
_STILL_TIME, _STILL = 0.2, 0.02  # arms that moved less than 0.02 rad in 0.2 s are still
_HOME_STEP_NS = _SECOND // 15
_PEAK = 15 / 8  # of a minimum-jerk motion's speed over its mean
_INSIDE = 1e-3  # rad or mm: a joint resting at its limit is not outside
_ABSURD = 1e9  # rad or mm: the arithmetic of a plan could overflow beyond it


@dataclass(frozen=True)
class ExecutorConfig:
    """Everything about execution that is not a limit of the robot.

    Attributes:
        watchdogs: their limits and reactions.
        future_tolerance: s, how far an observation's stamp may lie ahead of this clock.
        max_dt: s, longest control period that the limits may use: a late tick must not become a jump.
        follows: whether feedback answers to the commands; in a replay it does not, and what compares the two is off.
        home_speed: rad/s, largest joint speed of the move to the start pose.
    """

    watchdogs: WatchdogConfig
    future_tolerance: float
    max_dt: float
    follows: bool = True
    home_speed: float = 0.3


@dataclass
class JointFeedback:
    """Newest usable message of one joint stream."""

    positions: NDArray[np.float64] | None = None
    age: float = -1.0
    """s since it was received, -1: never."""
    invalid: bool = False
    """The message after it was unusable: NaN or too few entries."""


@dataclass(frozen=True)
class Inputs:
    """What the bridge knows at one control tick."""

    now_ns: int
    """Node clock, which may be a simulated one."""
    steady_ns: int
    """Steady clock."""
    feedback: Mapping[str, JointFeedback]
    heartbeat_age: float = -1.0
    """s since the operator's last heartbeat, -1: never."""


@dataclass(frozen=True)
class Command:
    """Result of one control tick."""

    state: State
    reason: Reason
    detail: str
    motion: Motion | None
    """Positions and velocities [D] to send now, in rad and mm; None: send nothing."""
    limited: NDArray[np.int_]
    """[D], the Reason of the limit that changed a joint's target, 0 where none did."""
    chunk: Chunk | None = None
    """Chunk in use."""
    lag: float = 0.0
    """s by which the plan lies behind the clock, because it had to be slowed down."""
    all_groups: bool = False
    """Whether to send the groups, too, that no policy moves."""


@dataclass
class Executor:
    """Follows chunks while armed, brakes and holds otherwise; sends nothing while disarmed.

    Every command is inside the position, velocity and acceleration limits, and only such motions are begun from which
    braking ends inside the workspace. Not thread-safe: the owner serialises the calls. Time is always an argument.
    """

    config: ExecutorConfig
    limiter: Limiter
    names: Sequence[str]
    """Joints that a policy moves: the columns of a chunk, and the first entries of a command."""
    groups: Mapping[str, slice]
    """Place of each joint group in the command; those after `names` are moved by :meth:`home` only."""
    arms: NDArray[np.bool_]
    """[D], joints in rad."""
    plan: Plan
    start_pose: NDArray[np.float64]
    """[D] of :meth:`home`."""
    workspace: Workspace | None = None
    drops: Counter[Reason] = field(default_factory=Counter)
    interventions: Counter[Reason] = field(default_factory=Counter)
    """How often each limit began to change commands."""
    epoch: int = 0
    """Newest epoch seen."""
    seam: float = 0.0
    """Largest difference between the old and the new plan when the last chunk was taken, rad."""
    _motion: Motion | None = None
    _reason: Reason = Reason.NOT_ARMED
    _detail: str = ""
    _latched: State | None = None
    _yield_to: NDArray[np.float64] | None = None
    """[D], where arms that could not follow were when that was noticed."""
    _disarming: bool = False
    _homing: bool = False
    _home_torso: bool = False
    _newest_id: int = 0
    _blocked_epoch: int = -1
    _last: Inputs | None = None
    _pressed: bool = False
    _driver_errors: dict[str, str] = field(default_factory=dict)
    _error: float = 0.0
    _clearance: NDArray[np.float64] | None = None
    _worst: Finding | None = None
    _limiting: frozenset[Reason] = frozenset()

    def __post_init__(self) -> None:
        self._watchdogs = Watchdogs(
            self.config.watchdogs, self.groups, self.arms, self.limiter.velocity, self.config.follows
        )
        self._history: deque[tuple[int, NDArray[np.float64]]] = deque()

    @property
    def _torso(self) -> slice:
        """Place of what no policy moves."""
        return slice(len(self.names), len(self.limiter.lower))

    @property
    def commanding(self) -> bool:
        """Whether commands are being sent."""
        return self._motion is not None

    def accept(self, chunk: Chunk, now_ns: int) -> Reason:
        """Take a chunk into use, or return why it was dropped (and count it)."""
        ordered = chunk.ordered(self.names)
        reason = Reason.CHUNK_WRONG_JOINTS if ordered is None else self._admission(ordered, now_ns)
        if ordered is None or reason != Reason.NONE:
            self.drops[reason] += 1
            return reason
        self.epoch, self._newest_id = chunk.epoch, chunk.chunk_id
        if self._motion is None or self._latched is not None or self._disarming:
            return Reason.NONE  # nothing to follow it
        self._add(ordered, now_ns)
        return Reason.NONE

    def arm(self) -> Reason:
        """Begin to command from the pose measured last; return NONE, or why it was refused. Ends a fault."""
        if self._motion is not None and self._latched is None and not self._disarming:
            return Reason.NONE
        if self._pressed:
            return Reason.ESTOP_PRESSED
        if self._driver_errors:
            return Reason.DRIVER_ERROR
        if self._worst is not None and self._worst.reaction >= Reaction.HOLD:
            return self._worst.reason
        if not self._history:
            return Reason.FEEDBACK_MISSING
        pose = self._history[-1][1]
        if self.config.follows and not self._still():
            return Reason.NOT_STILL
        policy = slice(0, len(self.names))
        outside = (pose < self.limiter.lower - _INSIDE) | (pose > self.limiter.upper + _INSIDE)
        if outside[policy].any():
            return Reason.OUTSIDE_LIMITS
        if self.workspace is not None and self.workspace.clearance(pose[None]).min() < 0:
            return Reason.OUTSIDE_WORKSPACE
        self._latched, self._disarming, self._yield_to = None, False, None
        self._reset(Reason.ARMED)
        pose = pose.copy()
        pose[policy] = np.clip(pose, self.limiter.lower, self.limiter.upper)[policy]
        self._motion = Motion(pose, np.zeros_like(pose))
        self._watchdogs.reset()
        return Reason.NONE

    def disarm(self) -> None:
        """Come to rest and then command no more; the robot's own controller keeps its last target."""
        if self._motion is not None:
            self._disarming = True
            if self._latched is None:
                self._reset(Reason.NOT_ARMED)

    def stop(self) -> None:
        """Brake and hold, and ignore the chunks of all epochs seen so far."""
        self._blocked_epoch = self.epoch
        if self._motion is not None and self._latched is None and not self._disarming:
            self._reset(Reason.STOP_REQUESTED)

    def home(self, now_ns: int, *, torso: bool = False) -> Reason:
        """Move slowly to the start pose: arms and grippers, or what no policy moves; return NONE, or why not.

        Like :meth:`stop` it ignores the chunks of all epochs seen so far.
        """
        if self._motion is None or self._latched is not None or self._disarming:
            return self._reason if self._latched is not None else Reason.NOT_ARMED
        if self._motion.velocity.any():
            return Reason.NOT_STILL
        own = self._torso if torso else slice(0, len(self.names))
        goal = self._motion.position.copy()
        goal[own] = self.start_pose[own]
        speed = np.where(self.arms, np.minimum(self.limiter.velocity, self.config.home_speed), self.limiter.velocity)
        duration = _PEAK * float((np.abs(goal - self._motion.position) / speed).max())
        steps = max(1, int(np.ceil(duration * _SECOND / _HOME_STEP_NS)))
        path = minimum_jerk(self._motion.position, goal, steps)
        self._reset(Reason.HOMING)
        self.plan.add(Chunk(0, self.epoch, now_ns, _HOME_STEP_NS, [], path), now_ns)
        self._homing, self._home_torso, self._blocked_epoch = True, torso, self.epoch
        return Reason.NONE

    def set_estop(self, pressed: bool) -> None:
        """Emergency stop pressed or released; pressed latches until armed again."""
        self._pressed = pressed
        if pressed:
            self._latch(State.ESTOP, Reason.ESTOP_PRESSED)

    def set_driver_error(self, source: str, error: str) -> None:
        """Error that a driver reports, empty: none any more."""
        self._driver_errors.pop(source, None)
        if error:
            self._driver_errors[source] = error
            if self._motion is not None:
                self._latch(State.FAULT, Reason.DRIVER_ERROR, f"{source}: {error}")

    def step(self, inputs: Inputs) -> Command:
        """Advance one control tick and return what to send."""
        before = self._last or inputs
        self._last = inputs
        elapsed = inputs.now_ns - before.now_ns
        pose = self._measured(inputs)
        self._remember(inputs, pose)
        last = None if self._motion is None else self._motion.position
        findings = self._watchdogs.check(inputs, pose, last)
        worst = self._worst = findings[0] if findings else None
        for finding in findings:
            if finding.reason in (Reason.CLOCK_JUMPED_BACK, Reason.CLOCK_JUMPED_AHEAD):
                elapsed = inputs.steady_ns - before.steady_ns
                self._newest_id = 0
                if self._motion is not None and self._latched is None:
                    self._reset(finding.reason)
        dt = min(max(elapsed / _SECOND, 0.0), self.config.max_dt)
        if self._motion is None:
            return Command(self._latched or State.DISARMED, self._reason, self._detail, None, self._unlimited())
        self._follow_torso(pose)
        worst = self._with_chunk_age(worst, inputs.now_ns)
        if worst is not None and worst.reaction == Reaction.FAULT:
            latched = self._latch(State.FAULT, worst.reason, worst.detail)
            if latched and worst.reason == Reason.TRACKING_ERROR:
                self._yield_to = pose
        if self._latched is not None or self._disarming:
            return self._rest(dt)
        if worst is not None and worst.reaction == Reaction.HOLD:
            if worst.reason == Reason.PLAN_STALE:
                self._reset(Reason.PLAN_STALE)
            if self._homing:  # a chunk is on time again afterwards, but the way home must not be caught up in a hurry
                self.plan.delay(round(dt * _SECOND))
            return self._brake(worst.reason, worst.detail, dt)
        if not self.plan:
            return self._brake(self._reason, self._detail, dt)
        ended = inputs.now_ns > self.plan.end_ns
        reason = Reason.AT_HOME if self._homing else Reason.STARVED
        command = self._follow(inputs.now_ns, dt, pose, worst)
        if not ended:
            return command
        assert command.motion is not None
        if command.motion.velocity.any():  # on its way to the last step
            return replace(command, state=State.STOPPING, reason=reason)
        self._reset(reason)
        return replace(command, state=State.HOLDING, reason=reason)

    def _follow(self, now_ns: int, dt: float, pose: NDArray[np.float64] | None, slowed: Finding | None) -> Command:
        """One tick along the plan."""
        previous = self._motion
        assert previous is not None
        self.plan.prune(now_ns)
        ahead = [self.plan.sample(now_ns + round(t * _SECOND)) for t in (0.0, *_LOOK_AHEAD)]
        velocities = np.array([velocity for _, velocity in ahead])
        led = self._led(np.array([position for position, _ in ahead]))
        share = float((np.abs(velocities[0]) / self.limiter.velocity)[self.arms].max(initial=0.0))
        room, ahead_reason = self._room(led[1:])
        rate = min(1.0, 1.0 / max(share, 1e-9), self._bends(velocities)) * max(0.0, 1.0 - self._error) * room
        rate *= _SLOW if slowed is not None else 1.0
        self.plan.delay(round((1.0 - rate) * dt * _SECOND))
        position, velocity = self.plan.sample(now_ns)
        touches = not np.array_equal(led[0], ahead[0][0])
        if touches:
            position, velocity = self._led(position[None])[0], (led[1] - led[0]) / _LOOK_AHEAD[0]
        if not self._home_torso:
            position[self._torso], velocity[self._torso] = previous.position[self._torso], 0.0
        measured = pose if self.config.follows else None
        motion, limited = self.limiter.follow(previous, position, velocity * rate, dt, measured)
        if share > 1.0 + 1e-6:
            limited[self.arms & (np.abs(velocity) > self.limiter.velocity)] = Reason.LIMIT_VELOCITY
        blocked = self._blocked(motion)
        if blocked is not None:
            motion = self.limiter.brake(previous, dt)
        inside = np.clip(position, self.limiter.lower, self.limiter.upper)
        off = np.abs(inside - motion.position) / (self.limiter.velocity * _FOLLOW_TIME)
        self._error = float(off[self.arms].max(initial=0.0))
        self._motion = motion
        reasons = {Reason(code) for code in np.unique(limited) if code} | ({blocked} if blocked else set())
        reasons |= {ahead_reason} if ahead_reason else set()
        reasons |= {Reason.LIMIT_TABLE} if touches else set()
        self._count(frozenset(reasons))
        reason, detail = (slowed.reason, slowed.detail) if slowed is not None else (Reason.NONE, "")
        if self._homing:
            reason = Reason.HOMING
        barrier = blocked or ahead_reason
        still = not motion.velocity.any()
        if barrier is not None and still:
            reason, detail = barrier, ""
        state = State.HOLDING if barrier is not None and still else State.TRACKING
        chunk = None if self._homing else self.plan.newest
        return Command(state, reason, detail, motion, limited, chunk, self.plan.lag_ns / _SECOND, self._torso_moves)

    def _led(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions [K, D] of the plan, led along the table where they dip into it a little."""
        return positions if self.workspace is None else self.workspace.lifted(positions)

    def _bends(self, velocities: NDArray[np.float64]) -> float:
        """Speed 0..1 at which the plan may be followed if its velocities [now and _LOOK_AHEAD, D] are to be reached.

        At `rate` a change of velocity by dv over t needs the acceleration rate^2 dv / t.
        """
        change = np.abs(velocities[1:] - velocities[0])[:, self.arms]
        possible = np.array(_LOOK_AHEAD)[:, None] * self.limiter.acceleration[self.arms]
        return float(np.sqrt((possible / np.maximum(change, 1e-9)).min(initial=1.0)))

    def _room(self, ahead: NDArray[np.float64]) -> tuple[float, Reason | None]:
        """Speed 0..1 at which the plan may go on, less the sooner it leaves the workspace, and the limit.

        `ahead` [_LOOK_AHEAD, D] are the positions of the plan.
        """
        if self.workspace is None or self._motion is None:
            return 1.0, None
        clearance = self.workspace.clearance(np.concatenate([self._motion.position[None], ahead]))
        self._clearance, clearance = clearance[0], clearance[1:]
        bad = (clearance < 0) & (clearance < self._clearance)
        if not bad.any():
            return 1.0, None
        first = int(bad.any(axis=1).argmax())
        return first / len(_LOOK_AHEAD), KINDS[int(clearance[first].argmin())]

    def _blocked(self, motion: Motion) -> Reason | None:
        """The workspace limit that braking from `motion` would end outside of, if any.

        A motion out of a place that is outside (the torso was moved) is allowed.
        """
        if self.workspace is None or self._clearance is None:
            return None
        worst = self.workspace.clearance(self.limiter.braking(motion, _BRAKING_POINTS)).min(axis=0)
        bad = (worst < 0) & (worst < self._clearance)
        return KINDS[int(np.where(bad, worst, np.inf).argmin())] if bad.any() else None

    def _rest(self, dt: float) -> Command:
        """Brake in a latched state or on the way to being disarmed."""
        command = self._brake(self._reason, self._detail, dt) if self._yield_to is None else self._give_way(dt)
        if self._disarming and command.state == State.HOLDING:
            self._motion, self._disarming = None, False
            command = replace(command, state=State.DISARMED, motion=None)
        return command if self._latched is None else replace(command, state=self._latched)

    def _brake(self, reason: Reason, detail: str, dt: float) -> Command:
        """Come to rest within the limits, then hold."""
        assert self._motion is not None
        return self._holding(self.limiter.brake(self._motion, dt), reason, detail)

    def _give_way(self, dt: float) -> Command:
        """Go back to where the arms are, so that they neither push on nor leap when they come free."""
        before = self._motion
        assert before is not None
        assert self._yield_to is not None
        goal = np.where(self.arms, self._yield_to, before.position)
        goal[self._torso] = before.position[self._torso]
        motion, _ = self.limiter.follow(before, goal, np.zeros_like(goal), dt)
        if self.workspace is not None:
            self._clearance = self.workspace.clearance(before.position[None])[0]
            if self._blocked(motion) is not None:
                motion = self.limiter.brake(before, dt)
        return self._holding(motion, self._reason, self._detail)

    def _holding(self, motion: Motion, reason: Reason, detail: str) -> Command:
        """Send a motion that no plan asks for."""
        torso = self._torso_moves
        self._motion = motion
        self._error = 0.0
        self._count(frozenset())
        state = State.STOPPING if self._motion.velocity.any() else State.HOLDING
        chunk = None if self._homing else self.plan.newest
        lag = self.plan.lag_ns / _SECOND
        return Command(state, reason, detail, self._motion, self._unlimited(), chunk, lag, torso)

    def _reset(self, reason: Reason) -> None:
        """Forget the plan."""
        self.plan.clear()
        self._homing = self._home_torso = False
        self._reason, self._detail, self._error = reason, "", 0.0

    def _latch(self, state: State, reason: Reason, detail: str = "") -> bool:
        """Return whether that is new."""
        if self._latched in (State.ESTOP, state):
            return False
        self._latched, self._yield_to = state, None
        self._reset(reason)
        self._detail = detail
        return True

    def _add(self, chunk: Chunk, now_ns: int) -> None:
        assert self._motion is not None
        rest = np.tile(self._motion.position[self._torso], (len(chunk.positions), 1))
        chunk = replace(chunk, positions=np.concatenate([chunk.positions, rest], axis=1))
        old = self.plan.sample(now_ns)[0] if self.plan else self._motion.position
        self.seam = float(np.abs(chunk.sample(now_ns)[0] - old)[self.arms].max(initial=0.0))
        self.plan.add(chunk, now_ns)

    def _admission(self, chunk: Chunk, now_ns: int) -> Reason:
        if not (np.abs(chunk.positions) < _ABSURD).all():  # nor is NaN
            return Reason.CHUNK_NOT_FINITE
        if chunk.epoch < self.epoch or chunk.epoch <= self._blocked_epoch:
            return Reason.CHUNK_OLD_EPOCH
        if chunk.epoch == self.epoch and chunk.chunk_id <= self._newest_id:
            return Reason.CHUNK_OUT_OF_ORDER
        if chunk.stamp_ns > now_ns + self.config.future_tolerance * _SECOND:
            return Reason.CHUNK_FROM_FUTURE
        if now_ns - chunk.stamp_ns > self.config.watchdogs.chunk_age.limit * _SECOND:
            return Reason.CHUNK_TOO_OLD
        if self._homing:
            return Reason.CHUNK_WHILE_HOMING
        return Reason.NONE

    def _with_chunk_age(self, worst: Finding | None, now_ns: int) -> Finding | None:
        watch, chunk = self.config.watchdogs.chunk_age, self.plan.newest
        if chunk is None or self._homing or now_ns - chunk.stamp_ns <= watch.limit * _SECOND:
            return worst
        finding = Finding(Reason.PLAN_STALE, watch.reaction, f"{(now_ns - chunk.stamp_ns) / _SECOND:.2f} s")
        return finding if worst is None or worst.reaction < finding.reaction else worst

    def _follow_torso(self, pose: NDArray[np.float64] | None) -> None:
        """What no policy moves is where it is measured, except while it is moved to the start pose."""
        if pose is not None and self._motion is not None and not self._torso_moves:
            position = self._motion.position.copy()
            position[self._torso] = pose[self._torso]
            self._motion = Motion(position, self._motion.velocity)

    @property
    def _torso_moves(self) -> bool:
        """Whether the torso is on its way to the start pose, or coming to rest."""
        return self._motion is not None and bool(self._home_torso or self._motion.velocity[self._torso].any())

    def _count(self, reasons: frozenset[Reason]) -> None:
        self.interventions.update(reasons - self._limiting)
        self._limiting = reasons

    def _unlimited(self) -> NDArray[np.int_]:
        return np.zeros(len(self.limiter.lower), int)

    def _remember(self, inputs: Inputs, pose: NDArray[np.float64] | None) -> None:
        if pose is None:
            self._history.clear()
            return
        self._history.append((inputs.steady_ns, pose))
        while inputs.steady_ns - self._history[0][0] > _STILL_TIME * _SECOND:
            self._history.popleft()

    def _still(self) -> bool:
        """Whether the joints in rad have been still for a while; false while that is not known."""
        if self._history[-1][0] - self._history[0][0] < 0.5 * _STILL_TIME * _SECOND:
            return False
        moved = np.ptp(np.array([pose for _, pose in self._history]), axis=0)
        return bool((moved[self.arms] < _STILL).all())

    def _measured(self, inputs: Inputs) -> NDArray[np.float64] | None:
        pose = np.empty(len(self.limiter.lower))
        for group, place in self.groups.items():
            feedback = inputs.feedback[group]
            if feedback.invalid or feedback.positions is None:
                return None
            if feedback.age > self.config.watchdogs.feedback_age.limit:
                return None
            pose[place] = feedback.positions
        return pose
