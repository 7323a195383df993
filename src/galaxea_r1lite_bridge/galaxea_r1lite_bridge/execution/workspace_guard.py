"""What the arms may not enter, and braking before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.leading import Leader
from galaxea_r1lite_bridge.execution.limits import MOST_PARTS, Limiter, Motion
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.workspace import Look, Workspace

_PART = 0.04  # m that anything moves at most in a part of the way of braking, unless that needs too many parts
_NEAR = 0.03  # m from which on nothing is passed between two positions that are checked
_BEND = 0.04  # m, radius of the tightest curve on which two bodies pass each other
_EQUAL = 1e-9  # m between clearances that differ by arithmetic only
_ROUNDING = 5e-4  # m that the clearance may be below its floor between two positions that are checked


@dataclass(frozen=True)
class Barrier:
    """A limit that stops the arms, and the two bodies that it is about."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Ahead:
    """What a plan leads to.

    Attributes:
        positions: [1 + K, D] of the plan, led along what they touch.
        along: what that is.
        room: rate 0..1 at which the plan may go on, less the sooner it leaves the workspace.
        barrier: where it does.
    """

    positions: NDArray[np.float64]
    along: frozenset[Reason]
    room: float
    barrier: Barrier | None


@dataclass
class WorkspaceGuard:
    """Allows only motions from which braking ends inside the workspace.

    Each clearance has a floor: 0, or where it was when it was found below that (the torso was moved). No command goes
    below the floor, nor does braking from it, whatever the periods of the control ticks that brake. A floor below 0
    rises with the clearance, and is lowered by the torso only: what an arm does cannot wear it away.

    Attributes:
        workspace: what must not be left; None: nothing.
        leader: how plans are led along it; None: not at all.
        limiter: how fast each joint brakes.
        longest: longest control period that a tick counts as, s.
        uncertainty: rad that each joint of the torso may be off.
    """

    workspace: Workspace | None
    leader: Leader | None
    limiter: Limiter
    longest: float
    uncertainty: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next command is the first one: what is outside there is where it begins."""
        self._floor: NDArray[np.float64] | None = None
        self._torso: NDArray[np.float64] = np.zeros(0)
        self._known: NDArray[np.float64] = np.zeros(0)

    def outside(self, position: NDArray[np.float64]) -> Barrier | None:
        """The limit that is passed furthest at `position` [D], if any; the torso is taken to be where it says."""
        if self.workspace is None:
            return None
        look = self.workspace.look(self.workspace.body.place(position[None]), within=0.0)
        if look.clearance.min(initial=0.0) >= 0:
            return None
        return self._barrier(look, int(look.clearance[0].argmin()))

    def led(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """A position [D] of a plan, led along what it touches a little."""
        return position if self.leader is None else self.leader.lead(position[None], self.uncertainty)[0][0]

    def ahead(self, position: NDArray[np.float64], positions: NDArray[np.float64]) -> Ahead:
        """What a plan leads to from `position` [D], the last command.

        Args:
            position: last command.
            positions: [1 + K, D] of the plan, that of now and those ahead, the first one soonest.
        """
        if self.leader is None:
            return Ahead(positions, frozenset(), 1.0, None)
        led, look, along = self.leader.lead(np.concatenate([position[None], positions]), self.uncertainty, first=1)
        now, then = look.clearance[0], look.clearance[2:]
        outside = np.where((then < 0) & (then < now), then, 0.0)
        leaves = outside.any(axis=1)
        if not leaves.any():
            return Ahead(led[1:], along, 1.0, None)
        first = int(leaves.argmax())
        return Ahead(led[1:], along, first / len(then), self._barrier(look, int(outside[first].argmin())))

    def blocked(self, previous: Motion, motion: Motion) -> Barrier | None:
        """The limit that `motion`, or braking from it, would pass, if any; `previous` is the command before."""
        if self.workspace is None:
            return None
        speed = np.abs(motion.velocity)
        way = float(speed @ (self.workspace.body.levers * speed / self.limiter.acceleration)) / 2
        parts = min(max(1, math.ceil(way / _PART)), MOST_PARTS)
        rows = np.concatenate([previous.position[None], self.limiter.braking(motion, parts, self.longest)])
        body = self.workspace.body
        look = self.workspace.look(body.place(rows), self.uncertainty, _NEAR)
        floor = self._floor_at(previous, look, commanded=bool(motion.velocity[self.workspace.torso].any()))
        near = np.flatnonzero(look.clearance[1:].min(axis=0) < _NEAR)
        if not len(near):
            return None
        clearance, floor, limits = look.clearance[:, near], floor[near], look.limits[near]
        now, least = clearance[0], clearance[1:].min(axis=0)
        between = _between(clearance[1:], self.workspace.travel(look.placed, limits)[1:]).min(axis=0)
        passed = np.where(
            (least < np.minimum(floor, now) - _EQUAL) | (between < floor - _ROUNDING), between - floor, np.inf
        )
        worst = int(passed.argmin())
        return self._barrier(look, int(near[worst])) if passed[worst] < np.inf else None

    def _floor_at(self, previous: Motion, look: Look, *, commanded: bool) -> NDArray[np.float64]:
        """How low each clearance [L] of a look may be, brought up to date with the last command and the torso.

        What is not in the look is far from its floor, which is 0 then.
        """
        assert self.workspace is not None
        torso, now = previous.position[self.workspace.torso], look.clearance[0]
        same = np.array_equal(torso, self._torso) and np.array_equal(self.uncertainty, self._known)
        if self._floor is None:
            floor = now
        elif same or commanded:
            floor = self._floor[look.limits]
        else:
            position = previous.position.copy()
            position[self.workspace.torso] = self._torso
            before = self.workspace.look(self.workspace.body.place(position[None]), self._known, 0.0)
            worn = np.zeros_like(self._floor)  # what the arms had gone below it stays gone
            worn[before.limits] = np.maximum(self._floor[before.limits] - before.clearance[0], 0.0)
            floor = now + worn[look.limits]
        self._torso, self._known = torso.copy(), self.uncertainty.copy()
        floor = np.minimum(np.maximum(floor, now - look.lost), 0.0)
        self._floor = np.zeros(len(self.workspace.limits))
        self._floor[look.limits] = floor
        return floor

    def _barrier(self, look: Look, place: int) -> Barrier:
        assert self.workspace is not None
        return Barrier(self.workspace.limits[look.limits[place]].reason, self.workspace.text(look, place))


def _between(clearance: NDArray[np.float64], travel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least clearance [K - 1, N] between successive positions with `clearance` [K, N], m.

    On a curve of radius `_BEND` the distance to anything is a parabola at most: over a `travel` [K - 1, N] its lowest
    point is below both ends by up to travel^2 / (8 radius), and by less where the ends differ.
    """
    deepest = np.maximum(travel, 1e-9) ** 2 / (8 * _BEND)
    level = np.maximum(1 - np.abs(np.diff(clearance, axis=0)) / (4 * deepest), 0.0)
    return np.minimum(clearance[1:], clearance[:-1]) - deepest * level**2
