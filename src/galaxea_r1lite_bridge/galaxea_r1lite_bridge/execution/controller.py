"""The bridge's state machine: from chunks and measured joints to one command a control tick."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.admission import ChunkGate
from galaxea_r1lite_bridge.execution.arming import ArmingGate
from galaxea_r1lite_bridge.execution.blending import Plan
from galaxea_r1lite_bridge.execution.clocks import Clocks, Elapsed
from galaxea_r1lite_bridge.execution.following import Follower
from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.leading import Leader
from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.plan import Chunk, slow_move
from galaxea_r1lite_bridge.execution.policy_clocks import PolicyClocks
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings, Reaction
from galaxea_r1lite_bridge.execution.takeover import Takeover
from galaxea_r1lite_bridge.execution.torso import TorsoEstimate
from galaxea_r1lite_bridge.execution.types import Command, Inputs, JointFeedback
from galaxea_r1lite_bridge.execution.watchdogs import Finding, Tick, Watchdogs
from galaxea_r1lite_bridge.execution.workspace import Workspace
from galaxea_r1lite_bridge.execution.workspace_guard import WorkspaceGuard
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays

_SECOND = 1_000_000_000
_SLOW = 0.5  # speed of the plan under a watchdog's reaction `slow`
_CLOCK_JUMPS = (Reason.CLOCK_JUMPED_BACK, Reason.CLOCK_JUMPED_AHEAD)


class MotionController:
    """Follows chunks, or a person, while armed, brakes and holds otherwise; sends nothing while disarmed.

    Every command is inside the position, velocity and acceleration limits, and only such motions are begun from which
    braking ends inside the workspace. Not thread-safe: the owner serialises the calls. Time is always an argument.

    Attributes:
        settings: the parameters.
        joints: what the D numbers of a command are.
        limiter: limits of the joints.
        guard: of the workspace.
        chunks: which ones are taken, and how many were not.
        policy_clocks: of the machines that they come from.
        plan: the chunks in use.
        seam: largest difference between the old and the new plan when the last chunk was taken, rad.
        interventions: how often each limit began to change commands.
        refused: what the last refusal of arm, home or take_over was about.
    """

    def __init__(self, robot: RobotConfig, settings: BridgeSettings) -> None:
        self.settings = settings
        self.joints = Joints.of(robot)
        self.limiter = Limiter(*limit_arrays(robot.actuated))
        workspace = Workspace(robot)
        leader = Leader(workspace, [robot.actuated_slices[name] for name in robot.workspace.arms])
        self.guard = WorkspaceGuard(workspace, leader, self.limiter, settings.max_dt)
        self.chunks = ChunkGate(self.joints.names, settings.watchdog.chunk_age.limit, settings.future_tolerance)
        self.policy_clocks = PolicyClocks()
        self.plan = Plan(settings.blending, settings.blend_window, settings.ensemble_decay)
        self.seam = 0.0
        self.interventions: Counter[Reason] = Counter()
        self.refused = ""
        self._arming = ArmingGate(self.joints, self.limiter, self.guard, wait_until_still=settings.closed_loop)
        self._watchdogs = Watchdogs(settings, self.joints, self.limiter)
        self._follower = Follower(self.joints, self.limiter, self.guard, settings.gripper_hysteresis)
        groups = [name for name, group in robot.commanded.items() if group.takeover is not None]
        self._takeover = Takeover(self.joints, self.limiter, groups)
        self._clocks = Clocks(settings.max_dt)
        self._torso = TorsoEstimate(self.joints.torso.stop - self.joints.torso.start)
        self._motion: Motion | None = None  # None: disarmed
        self._reason, self._detail = Reason.NOT_ARMED, ""
        self._latched: State | None = None
        self._disarming = self._homing = self._home_torso = False
        self._now_ns = 0  # node clock at the last control tick
        self._pose: NDArray[np.float64] | None = None  # measured then
        self._findings: Sequence[Finding] = ()
        self._limiting: frozenset[Reason] = frozenset()

    @property
    def commanding(self) -> bool:
        """Whether commands are being sent."""
        return self._motion is not None

    @property
    def taken_over(self) -> bool:
        """Whether a person has taken over, whether their input is followed now or not."""
        return self._takeover.on

    @property
    def followed(self) -> Chunk | None:
        """The policy's newest chunk in use; None: it is not a policy that moves the arms."""
        return None if self._homing or self._takeover.on else self.plan.newest

    @property
    def _in_charge(self) -> bool:
        """Whether a plan may move the arms: armed, not latched, not on the way to being disarmed."""
        return self._motion is not None and self._latched is None and not self._disarming

    @property
    def _stopping(self) -> bool:
        """Whether somebody asked for a stop, and the arms have not come to rest yet."""
        return self._motion is not None and self._reason == Reason.STOP_REQUESTED and bool(self._motion.velocity.any())

    def accept(self, chunk: Chunk, now_ns: int) -> Reason:
        """Take a chunk into use, or return why it was dropped (and count it)."""
        busy = Reason.CHUNK_NOT_ASKED_FOR if self._stopping else Reason.NONE
        busy = Reason.CHUNK_WHILE_HOMING if self._homing else busy
        busy = Reason.CHUNK_WHILE_TAKEOVER if self._takeover.on else busy
        busy = Reason.CHUNK_CLOCKS_DIFFER if self.policy_clocks.differs(chunk.session) else busy
        admitted, reason = self.chunks.admit(chunk, now_ns, busy)
        if admitted is not None and self._motion is not None and self._in_charge:
            place = self._motion.position
            rest = np.tile(place[self.joints.torso], (len(admitted.positions), 1))
            whole = replace(admitted, positions=np.concatenate([admitted.positions, rest], axis=1))
            old = self.plan.sample(now_ns)[0] if self.plan else place
            self.seam = float(np.abs(whole.sample(now_ns)[0] - old)[self.joints.angular].max(initial=0.0))
            self.plan.add(whole, now_ns)
        return reason

    def arm(self) -> Reason:
        """Begin to command from the pose measured last; return NONE, or why it was refused. Ends a fault.

        Only chunks observed since the last control tick will count, of the first policy session that has one. Arming
        arms that are armed already lets them follow another session, unless a plan is being followed.
        """
        self.refused = ""
        if self._in_charge:
            if self._stopping:
                return Reason.NOT_STILL  # braking is not cut short
            if not self.plan:
                self.chunks.open(self._now_ns)
            return Reason.NONE
        reason, self.refused = self._arming.refusal(self._findings, self.policy_clocks.worst)
        if reason == Reason.NONE and self._motion is not None and self._motion.velocity.any():
            return Reason.NOT_STILL  # braking is not cut short
        if reason == Reason.NONE:
            self._latched, self._disarming = None, False
            self._reset(Reason.ARMED)
            self._motion = self._arming.start()
            self._watchdogs.reset()
            self.guard.reset()
            self._follower.begin()
            self.chunks.open(self._now_ns)
        return reason

    def disarm(self) -> None:
        """Come to rest and then command no more; the robot's own controller keeps its last target."""
        self.chunks.close()
        if self._motion is not None:
            self._disarming = True
            if self._latched is None:
                self._reset(Reason.NOT_ARMED)

    def stop(self) -> None:
        """Brake and hold until the policy that is followed begins a newer epoch, or the arms are armed again."""
        self.chunks.stop(self._now_ns)
        if self._in_charge:
            self._reset(Reason.STOP_REQUESTED)

    def home(self, now_ns: int, *, torso: bool = False) -> Reason:
        """Move slowly to the start pose: arms and grippers, or what no policy moves; return NONE, or why not.

        Like :meth:`stop` it ends the epoch of the policy that is followed.
        """
        if self._motion is None or not self._in_charge:
            return self._refuse()
        if self._motion.velocity.any():
            return Reason.NOT_STILL
        self.refused = ""
        if outside := self._arming.outside(self._motion.position):  # the torso, which is where it is measured
            self.refused = outside
            return Reason.OUTSIDE_LIMITS
        start = np.clip(self._motion.position, self.limiter.lower, self.limiter.upper)
        place = self.joints.torso if torso else self.joints.policy
        goal = start.copy()
        goal[place] = self.joints.home[place]
        fastest = self.limiter.velocity
        speed = np.where(self.joints.angular, np.minimum(fastest, self.settings.home_speed), fastest)
        self._reset(Reason.HOMING)
        self._motion = Motion(start, self._motion.velocity)
        self.plan.add(slow_move(start, goal, speed, now_ns), now_ns)
        self.chunks.end_epoch(now_ns)
        self._homing, self._home_torso = True, torso
        return Reason.NONE

    def take_over(self, person: Mapping[str, JointFeedback]) -> Reason:
        """Follow a person's input instead of the policy's chunks; return NONE, or why not.

        From rest, or while a plan of the policy is followed. `person` is the newest input by group; it must be near the
        measured positions. It ends with :meth:`give_back`, and with all that ends a policy's epoch.
        """
        if self._motion is None or not self._in_charge:
            return self._refuse()
        self.refused = ""
        if self._takeover.on:
            return Reason.NONE
        if self._homing or self._torso_moves:
            return Reason.HOMING
        if not self.plan and self._motion.velocity.any():
            return Reason.NOT_STILL  # braking is not cut short
        if self._findings and self._findings[0].reaction >= Reaction.HOLD:
            self.refused = self._findings[0].detail
            return self._findings[0].reason
        assert self._pose is not None  # else a watchdog holds
        reason, self.refused = self._takeover.refusal(person, self._pose)
        if reason == Reason.NONE:
            self._reset(Reason.TAKEOVER)
            self._takeover.on = True
        return reason

    def give_back(self) -> None:
        """A person takes over no longer: brake, and follow what the policy observes from now on."""
        if self._takeover.on:
            self._reset(Reason.TAKEOVER_ENDED)
            self.chunks.resume(self._now_ns)

    def set_estop(self, pressed: bool) -> None:
        """Emergency stop pressed or released; pressed latches until armed again."""
        self._arming.estop_pressed = pressed
        if pressed:
            self._latch(State.ESTOP, Reason.ESTOP_PRESSED)

    def set_driver_error(self, source: str, error: str) -> None:
        """Error that a driver reports, empty: none any more."""
        self._arming.driver_errors.pop(source, None)
        if error:
            self._arming.driver_errors[source] = error
            if self._motion is not None:
                self._latch(State.FAULT, Reason.DRIVER_ERROR, f"{source}: {error}")

    def set_foreign_publishers(self, names: str) -> None:
        """Nodes that publish targets of the robot as well, empty: none."""
        self._arming.foreign_publishers = names
        if names and self._motion is not None:
            self._latch(State.FAULT, Reason.FOREIGN_PUBLISHER)
            if self._reason == Reason.FOREIGN_PUBLISHER:
                self._detail = names  # a node's name is known a little later than its publisher

    def step(self, inputs: Inputs) -> Command:
        """Advance one control tick and return what to send. An error of ours is a fault, in which the arms brake."""
        self._now_ns = inputs.now_ns
        elapsed = self._clocks.tick(inputs.now_ns, inputs.steady_ns)
        try:
            return self._step(inputs, elapsed)
        except Exception as error:
            if self._latched is None:
                logging.getLogger(__name__).exception("control step")
            self._latch(State.FAULT, Reason.CONTROL_FAILED, repr(error))
            if self._motion is None:
                return self._command(State.FAULT, self._reason, self._detail)
            return self._come_to_rest(elapsed.dt)

    def _step(self, inputs: Inputs, elapsed: Elapsed) -> Command:
        self.policy_clocks.forget(inputs.steady_ns)
        self.plan.delay(elapsed.ahead_ns)
        pose = self._pose = inputs.pose(self.joints.groups, self.settings.watchdog.feedback_age.limit)
        self._arming.see(inputs.steady_ns, pose)
        self._see_torso(inputs.steady_ns, pose)
        findings = self._findings = self._watch(inputs, pose)
        for jump in (finding.reason for finding in findings if finding.reason in _CLOCK_JUMPS):
            self.chunks.clock_jumped(inputs.now_ns)
            if self._motion is not None and self._latched is None and not self._takeover.on:
                self._reset(jump)
        if self._motion is None:
            return self._command(self._latched or State.DISARMED, self._reason, self._detail)
        self._follow_torso()
        worst = self._findings[0] if self._findings else None
        if worst is not None and worst.reaction == Reaction.FAULT:
            self._latch(State.FAULT, worst.reason, worst.detail)
        if not self._in_charge:
            return self._come_to_rest(elapsed.dt)
        if worst is not None and worst.reaction == Reaction.HOLD:
            return self._wait(worst, elapsed)
        if self._takeover.on:
            return self._obey(inputs, elapsed, pose, worst)
        if not self.plan:
            return self._brake(self._reason, self._detail, elapsed.dt)
        ended = inputs.now_ns > self.plan.end_ns
        command = self._follow(inputs.now_ns, elapsed, pose, worst)
        return self._end(command) if ended else command

    def _watch(self, inputs: Inputs, pose: NDArray[np.float64] | None) -> Sequence[Finding]:
        command = self._motion.position if self._motion is not None and self._in_charge else None
        followed = self.followed
        observed_ns = None if followed is None else followed.stamp_ns
        return self._watchdogs.check(Tick(inputs, pose, command, observed_ns))

    def _obey(
        self, inputs: Inputs, elapsed: Elapsed, pose: NDArray[np.float64] | None, slowed: Finding | None
    ) -> Command:
        """One tick towards a person's input, or to a hold where that must not be followed."""
        assert self._motion is not None
        assert pose is not None  # else a watchdog holds
        reason, detail = self._takeover.refusal(inputs.person, pose)
        self.plan.clear()
        if reason != Reason.NONE:
            return self._brake(reason, detail, elapsed.dt)
        begin_ns = inputs.now_ns - elapsed.plan_ns
        way = self._takeover.plan(inputs.person, self._motion.position, begin_ns, inputs.steady_ns)
        self.plan.add(way, inputs.now_ns)
        command = self._follow(inputs.now_ns, elapsed, pose, slowed)
        return replace(command, state=State.TAKEOVER, reason=command.reason or Reason.TAKEOVER)

    def _follow(
        self, now_ns: int, elapsed: Elapsed, pose: NDArray[np.float64] | None, slowed: Finding | None
    ) -> Command:
        """One tick along the plan."""
        assert self._motion is not None
        followed = self._follower.follow(
            self.plan, self._motion, now_ns, elapsed, pose if self.settings.closed_loop else None,
            slow=1.0 if slowed is None else _SLOW, torso=self._home_torso,
            policy=self.followed is not None,
        )  # fmt: skip
        self._motion = followed.motion
        self._count(followed.limits)
        reason, detail = (Reason.NONE, "") if slowed is None else (slowed.reason, slowed.detail)
        if self._homing:
            reason = Reason.HOMING
        if elapsed.pace == 0 and not self._motion.velocity.any():
            return self._command(State.HOLDING, Reason.LIMIT_CLOCK, "it stands still", followed.limited)
        if followed.barrier is not None and not self._motion.velocity.any():
            return self._command(State.HOLDING, followed.barrier.reason, followed.barrier.detail, followed.limited)
        return self._command(State.TRACKING, reason, detail, followed.limited)

    def _end(self, command: Command) -> Command:
        """The plan is over: on the way to its last step, or there."""
        assert command.motion is not None
        reason = Reason.AT_HOME if self._homing else Reason.STARVED
        if command.motion.velocity.any():
            return replace(command, state=State.STOPPING, reason=reason)
        self._reset(reason)
        return replace(command, state=State.HOLDING, reason=reason)

    def _wait(self, finding: Finding, elapsed: Elapsed) -> Command:
        """Hold until a watchdog's condition is over."""
        if finding.reason == Reason.PLAN_STALE:
            self._reset(Reason.PLAN_STALE)
        if self._homing:  # a chunk is on time again afterwards, but the way home must not be caught up in a hurry
            self.plan.delay(elapsed.plan_ns)
        return self._brake(finding.reason, finding.detail, elapsed.dt)

    def _come_to_rest(self, dt: float) -> Command:
        """Brake in a latched state or on the way to being disarmed."""
        command = self._brake(self._reason, self._detail, dt)
        if self._disarming and command.state == State.HOLDING:
            self._motion, self._disarming = None, False
            command = replace(command, state=State.DISARMED, motion=None)
        return command if self._latched is None else replace(command, state=self._latched)

    def _brake(self, reason: Reason, detail: str, dt: float) -> Command:
        """Come to rest within the limits, then hold."""
        assert self._motion is not None
        all_groups = self._torso_moves  # also the command with which the torso comes to rest
        self._motion = self.limiter.brake(self._motion, dt)
        self._follower.reset()
        self._takeover.pause()
        self._count(frozenset())
        state = State.STOPPING if self._motion.velocity.any() else State.HOLDING
        return replace(self._command(state, reason, detail), all_groups=all_groups)

    def _command(self, state: State, reason: Reason, detail: str, limited: NDArray[np.int_] | None = None) -> Command:
        if limited is None:
            limited = np.zeros(len(self.joints.home), int)
        lag = self.plan.lag_ns / _SECOND
        return Command(state, reason, detail, self._motion, limited, self.followed, lag, self._torso_moves)

    def _reset(self, reason: Reason) -> None:
        """Forget the plan, and whose it was."""
        self.plan.clear()
        self._follower.reset()
        self._findings = [finding for finding in self._findings if finding.reason != Reason.PLAN_STALE]
        self._takeover.end()
        self._homing = self._home_torso = False
        self._reason, self._detail = reason, ""

    def _refuse(self) -> Reason:
        """Why nothing moves the arms."""
        self.refused = self._detail if self._latched is not None else ""
        return self._reason if self._latched is not None else Reason.NOT_ARMED

    def _latch(self, state: State, reason: Reason, detail: str = "") -> None:
        if self._latched not in (State.ESTOP, state):
            self._latched = state
            self.chunks.close()
            self._reset(reason)
            self._detail = detail

    def _see_torso(self, steady_ns: int, pose: NDArray[np.float64] | None) -> None:
        """Where the torso is, and how well that is known, while it is not commanded."""
        if self._torso_moves:
            self._torso.reset()
        elif pose is not None:
            self._torso.see(steady_ns, pose[self.joints.torso])
        self.guard.uncertainty = self._torso.uncertainty

    def _follow_torso(self) -> None:
        """What no policy moves is where it is measured, except while it is moved to the start pose."""
        if self._motion is not None and not self._torso_moves and self._torso.known:
            position = self._motion.position.copy()
            position[self.joints.torso] = self._torso.position
            self._motion = Motion(position, self._motion.velocity)

    @property
    def _torso_moves(self) -> bool:
        """Whether the torso is on its way to the start pose, or coming to rest."""
        return self._motion is not None and bool(self._home_torso or self._motion.velocity[self.joints.torso].any())

    def _count(self, limits: frozenset[Reason]) -> None:
        self.interventions.update(limits - self._limiting)
        self._limiting = limits
