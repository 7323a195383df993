"""One control tick along a plan: slowed down as a whole where it must be, limited joint by joint in what is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.blending import Plan
from galaxea_r1lite_bridge.execution.clocks import Elapsed
from galaxea_r1lite_bridge.execution.hysteresis import Hysteresis
from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.speed import LOOK_AHEAD, Speed
from galaxea_r1lite_bridge.execution.workspace_guard import Barrier, WorkspaceGuard

_SECOND = 1_000_000_000
_AHEAD_NS = np.array([round(t * _SECOND) for t in (0.0, *LOOK_AHEAD)])


@dataclass(frozen=True)
class Followed:
    """A tick's motion and what shaped it.

    Attributes:
        motion: what to send.
        limited: [D], the Reason of the limit that changed a joint's target, 0 where none did.
        limits: all limits that act.
        barrier: the workspace limit before which the plan waits, and the two bodies that it is about.
    """

    motion: Motion
    limited: NDArray[np.int_]
    limits: frozenset[Reason]
    barrier: Barrier | None


@dataclass
class Follower:
    """Follows a plan within the limits and inside the workspace; delays it where that takes longer than planned."""

    joints: Joints
    limiter: Limiter
    guard: WorkspaceGuard
    gripper_hysteresis: float
    """mm, of a policy's plans."""

    def __post_init__(self) -> None:
        self._speed = Speed(self.limiter, self.joints.angular)
        limits = self.limiter.lower, self.limiter.upper
        self._straight = False
        self._hysteresis = Hysteresis(~self.joints.angular, *limits, self.gripper_hysteresis)

    def follow(
        self, plan: Plan, previous: Motion, now_ns: int, elapsed: Elapsed, measured: NDArray[np.float64] | None,
        *, slow: float, torso: bool, policy: bool,
    ) -> Followed:  # fmt: skip
        """The next motion along `plan`, which is delayed by what it falls behind.

        Args:
            plan: with at least one chunk.
            previous: last command.
            now_ns: time of the plan.
            elapsed: time since the last command.
            measured: position [D] from which no command may be too far; None: no such limit.
            slow: factor 0..1 on the plan's speed.
            torso: whether the plan moves the torso; otherwise it stands still.
            policy: whether it is a policy's plan.
        """
        plan.prune(now_ns)
        positions, velocities = plan.samples(now_ns + _AHEAD_NS)
        still = slice(0, 0) if torso else self.joints.torso
        positions[:, still] = previous.position[still]
        if policy:
            held, place = self._hysteresis.held(previous.position, positions[0])
        else:
            self._hysteresis.forget()
            held, place = np.zeros_like(self.joints.angular), positions[0]
        positions[:, held] = np.maximum(positions[:, held], place[held])  # the arms keep clear with the wider opening
        look = self.guard.ahead(previous.position, positions)
        rate = self._speed.rate(velocities) * look.room * slow
        position, velocity, led = positions[0], velocities[0].copy(), look.positions
        if delay_ns := round((1.0 - rate) * elapsed.plan_ns):
            plan.delay(delay_ns)
            position, velocity = plan.sample(now_ns)
            position[still] = previous.position[still]
        if not np.array_equal(led[0], positions[0]):
            position = self.guard.led(position) if delay_ns else led[0]
            velocity = (led[1] - led[0]) / LOOK_AHEAD[0]
        velocity[still] = 0.0
        position, velocity = np.where(held, place, position), np.where(held, 0.0, velocity)
        motion, limited = self.limiter.follow(previous, position, velocity * rate, elapsed.dt, measured, elapsed.pace)
        motion = self._held(still, motion, previous)
        limited[still] = 0
        if self._speed.share(velocities[0]) > 1.0 + 1e-6:
            limited[self.joints.angular & (np.abs(velocity) > self.limiter.velocity)] = Reason.LIMIT_VELOCITY
        around = self._around(previous, position, elapsed, measured, still) if self._straight else None
        blocked = self.guard.blocked(previous, motion) if around is None else None
        if blocked is not None:
            around = self._around(previous, position, elapsed, measured, still)
            motion = self.limiter.brake(previous, elapsed.dt)
        motion, self._straight = around or motion, around is not None
        self._speed.note(motion, position)
        limits = {Reason(code) for code in np.unique(limited) if code}
        limits |= {stopped.reason for stopped in (look.barrier, blocked) if stopped is not None}
        limits |= look.along
        limits |= {Reason.LIMIT_CLOCK} if elapsed.uneven else set()
        return Followed(motion, limited, frozenset(limits), blocked or look.barrier)

    @staticmethod
    def _held(still: slice, motion: Motion, previous: Motion) -> Motion:
        """These joints stay where they are, wherever that is measured: a limit must not begin to move them."""
        position, velocity = motion.position.copy(), motion.velocity.copy()
        position[still], velocity[still] = previous.position[still], 0.0
        return Motion(position, velocity)

    def _around(
        self, previous: Motion, position: NDArray[np.float64], elapsed: Elapsed, measured: NDArray[np.float64] | None,
        still: slice,
    ) -> Motion | None:  # fmt: skip
        """The next motion straight to `position` [D]: next to a limit the fastest one for each joint may be blocked.

        What was begun straight goes on so: each joint at its fastest is another direction, which would be blocked next.
        """
        motion = self.limiter.straight(previous, position, elapsed.dt, measured, elapsed.pace)
        if motion is None:
            return None
        motion = self._held(still, motion, previous)
        return motion if self.guard.blocked(previous, motion) is None else None

    def reset(self) -> None:
        """No plan is followed any more: nothing is behind it."""
        self._speed.reset()
        self._straight = False

    def begin(self) -> None:
        """Begin anew from wherever the joints are."""
        self.reset()
        self._hysteresis.forget()
