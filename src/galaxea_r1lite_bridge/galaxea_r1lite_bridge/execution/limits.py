"""Position, velocity, acceleration and step limits as one pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason

_ROUNDING = 1e-6  # rad or mm: smaller changes are arithmetic
_NOTICEABLE = 1e-3  # rad or mm: what counts as an intervention
_SHORTEST = 1e-6  # s: in less time than that nothing moves
_ASTRAY = 0.2  # of the acceleration limit: what a motion along a line may be off it
_REST = 1e-9  # rad/s or mm/s: slower is at rest

_POSITION, _STEP = int(Reason.LIMIT_POSITION), int(Reason.LIMIT_STEP)
_VELOCITY, _ACCELERATION = int(Reason.LIMIT_VELOCITY), int(Reason.LIMIT_ACCELERATION)

MOST_PARTS = 16
"""Parts of a way of braking that can be asked for."""
_SHARES = [np.linspace(0, 1, parts + 1)[None, :, None] for parts in range(MOST_PARTS + 1)]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A command: position [D] in rad and mm, and the velocity [D] per second with which it was reached."""

    position: Vector
    velocity: Vector


@dataclass(frozen=True)
class Limiter:
    """Limits of a command vector of D joints, in rad and mm.

    Attributes:
        lower: lowest position [D].
        upper: highest position [D].
        velocity: largest speed [D], rad/s and mm/s.
        acceleration: largest change of speed [D], rad/s^2 and mm/s^2; also for braking.
        step: largest distance between command and measured position [D]; infinity: none.
    """

    lower: Vector
    upper: Vector
    velocity: Vector
    acceleration: Vector
    step: Vector

    def outside(self, position: Vector, tolerance: float) -> NDArray[np.bool_]:
        """Joints [D] that are outside their position limits by more than `tolerance`."""
        return ~((position >= self.lower - tolerance) & (position <= self.upper + tolerance))  # NaN is outside

    def follow(
        self, previous: Motion, position: Vector, velocity: Vector, dt: float, measured: Vector | None = None,
        pace: float = 1.0,
    ) -> tuple[Motion, NDArray[np.int_]]:  # fmt: skip
        """Return the command nearest to a moving target that the limits allow, and what limited each joint [D].

        What limited a joint is the Reason of the limit, 0 where none did. The limits hold in real time, and in the
        time of a slower clock as well; but what is then too fast may be slowed down as hard as real time allows.

        Args:
            previous: last command.
            position: wanted position [D].
            velocity: wanted velocity [D] there, in the time of the clock.
            dt: real time since the last command, s; 0 leaves the command as it is.
            measured: position [D] that `step` counts from; None: no such limit.
            pace: of the clock by which the target moves, 0..1 of real time.
        """
        real, dt = dt, dt * pace
        if dt < _SHORTEST:
            return self.brake(previous, real), np.zeros(len(position), int)
        before, hardest = previous.velocity / pace, self.acceleration * (real / pace)
        lower, upper = self.lower, self.upper
        if measured is not None:
            lower, upper = np.maximum(lower, measured - self.step), np.minimum(upper, measured + self.step)
        inside = np.maximum(np.minimum(position, upper), lower)
        # A target faster than the limits cannot be matched: its velocity must not outweigh the way to its position.
        velocity = np.clip(velocity, -self.velocity, self.velocity)
        # Match the target's velocity, and close the remaining gap as fast as braking before it allows.
        gap = inside - (previous.position + velocity * dt)
        wanted = velocity + np.sign(gap) * self._reachable(np.abs(gap), dt)
        command = self._bounded(previous.position, before, wanted, dt, lower, upper, hardest)
        # A gap that fits into this tick is closed exactly, if the next tick can then go on with the target's velocity.
        exact = (inside - previous.position) / dt
        fits = np.abs(self._bounded(previous.position, before, exact, dt, lower, upper, hardest) - exact) < _ROUNDING
        fits &= np.abs(exact - velocity) <= self.acceleration * dt
        command = np.where(fits, exact, command)
        moved = Motion(previous.position + command * dt, command)
        return Motion(moved.position, command * pace), self._causes(moved, position, velocity, dt, inside)

    def _causes(self, moved: Motion, position: Vector, velocity: Vector, dt: float, inside: Vector) -> NDArray[np.int_]:
        """The Reason why each joint [D] is not where the target is; 0 where it is."""
        off = np.abs(moved.position - position) > np.maximum(_NOTICEABLE, np.abs(velocity) * dt)
        fast = np.abs(moved.velocity) >= self.velocity - _ROUNDING
        outside = (position < self.lower) | (position > self.upper)
        stepped = np.abs(inside - position) > _ROUNDING
        causes = np.where(fast, _VELOCITY, _ACCELERATION)
        causes = np.where(outside, _POSITION, np.where(stepped, _STEP, causes))
        return np.where(off, causes, 0)

    def brake(self, previous: Motion, dt: float) -> Motion:
        """Return the command that comes to rest soonest."""
        if dt < _SHORTEST:
            return previous
        rest, hardest = np.zeros_like(previous.velocity), self.acceleration * dt
        command = self._bounded(previous.position, previous.velocity, rest, dt, self.lower, self.upper, hardest)
        command = np.where(np.abs(command) < _REST, 0.0, command)
        return Motion(previous.position + command * dt, command)

    def straight(
        self, previous: Motion, position: Vector, dt: float, measured: Vector | None = None, pace: float = 1.0
    ) -> Motion | None:
        """The next motion on the straight line to `position` [D], on which all joints keep their proportions.

        None where `previous` does not move along it, or too fast to come to rest there. All joints arrive at the same
        time, which takes longer than :meth:`follow`, but leads through no place that is not between begin and end.
        The arguments are those of :meth:`follow`.
        """
        dt = dt * pace
        if dt < _SHORTEST:
            return None
        before = previous.velocity / pace
        if measured is not None:
            position = np.clip(position, measured - self.step, measured + self.step)
        lower, upper = np.minimum(self.lower, previous.position), np.maximum(self.upper, previous.position)
        way = np.clip(position, lower, upper) - previous.position
        with np.errstate(over="ignore"):  # a joint may be measured beyond all reason
            length = float(way @ way)
        if length < _REST:
            return None
        share = float(before @ way) / length  # of the way, a second
        if share < 0 or (np.abs(before - share * way) > self.acceleration * dt * _ASTRAY).any():
            return None
        size = np.maximum(np.abs(way), _REST)
        change = (1 - _ASTRAY) * float((self.acceleration / size).min())
        most = min(change * (math.sqrt(dt**2 + 2 / change) - dt), float((self.velocity / size).min()))
        if share - change * dt > most:
            return None
        velocity = min(share + change * dt, most) * way
        return Motion(previous.position + velocity * dt, velocity * pace)

    def braking(self, motion: Motion, parts: int, period: float) -> NDArray[np.float64]:
        """Positions [2 parts + 1, D] on two ways of braking from `motion`, of which all others lie in between.

        A tick moves a joint at the speed of its end: the way is shorter the longer the ticks are, and not by the same
        share for all joints. The positions are evenly in time, from rest to `motion` by ticks of `period` s, and on
        from there to rest by ticks of no length.
        """
        speed = np.abs(motion.velocity)
        speed = np.stack([np.maximum(speed - self.acceleration * period / 2, 0.0), speed])
        needed = speed / self.acceleration
        times = np.minimum(_SHARES[parts] * needed.max(axis=1)[:, None, None], needed[:, None])
        ways = np.sign(motion.velocity) * (speed[:, None] * times - self.acceleration * times**2 / 2)
        return motion.position + np.concatenate([ways[0, :0:-1], ways[1]])

    def _bounded(
        self, place: Vector, before: Vector, wanted: Vector, dt: float, lower: Vector, upper: Vector, hardest: Vector
    ) -> Vector:
        """Velocity nearest to `wanted` within all limits, after `before` at `place`.

        From a command of this function there is always a next one: it only allows speeds from which braking at the
        acceleration limit ends before the position limit, whatever the later ticks' dt. `hardest` is by how much a
        speed may be reduced where it passes another limit.
        """
        change = self.acceleration * dt
        low, high = before - change, before + change
        towards_upper = self._reachable(np.maximum(upper - place, 0.0), dt)
        towards_lower = self._reachable(np.maximum(place - lower, 0.0), dt)
        ceiling = np.minimum(self.velocity, towards_upper)
        floor = -np.minimum(self.velocity, towards_lower)
        command = np.minimum(np.maximum(wanted, low), high)
        # Outside of the box (an arm armed there) the way back stays open, and rest is always allowed.
        command = np.minimum(np.maximum(command, np.minimum(floor, 0.0)), np.maximum(ceiling, 0.0))
        low = np.minimum(low, np.maximum(before - hardest, 0.0))
        high = np.maximum(high, np.minimum(before + hardest, 0.0))
        return np.minimum(np.maximum(command, low), high)

    def _reachable(self, gap: Vector, dt: float) -> Vector:
        """Largest speed v that one tick may have before braking over `gap`: v dt + v^2 / (2 a) = gap."""
        return self.acceleration * (np.sqrt(dt**2 + 2 * gap / self.acceleration) - dt)
