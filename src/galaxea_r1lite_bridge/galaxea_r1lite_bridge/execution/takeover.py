"""A person in the policy's place: when their input may be followed, and the plan that it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.types import JointFeedback

MAX_AGE = 0.2
"""s, the oldest input that is followed."""
NEAR, NEAR_MM = 0.1, 10.0
"""rad and mm from the measured positions within which an input begins to be followed."""
_SECOND = 1_000_000_000
_STEP_NS = _SECOND // 15  # to where the input is: the arms lag by it; with less they would overshoot
_NEVER = JointFeedback()

Vector = NDArray[np.float64]


class Takeover:
    """Follows a person's input from where the arms are, as long as it is young and does not leap.

    An input begins to be followed near the measured positions. Where it stops to come, or leaps further than the arms
    move in `MAX_AGE`, it begins anew. A gripper's may leap: a button closes it. Joints without an input come to rest.

    `groups` are those with an input.

    Attributes:
        on: whether a person has taken over, whether their input is followed now or not.
    """

    def __init__(self, joints: Joints, limiter: Limiter, groups: Sequence[str]) -> None:
        self.on = False
        self._joints, self._groups = joints, groups
        places = [joints.groups[group] for group in groups]
        self._columns = np.array([column for place in places for column in range(place.start, place.stop)], int)
        angular = joints.angular[self._columns]
        self._near = np.where(angular, NEAR, NEAR_MM)
        self._leap = np.where(angular, limiter.velocity[self._columns] * MAX_AGE, np.inf)
        self._input: _Input | None = None  # that the last command was for; None: there was none

    def end(self) -> None:
        """The person takes over no longer."""
        self.on = False
        self.pause()

    def pause(self) -> None:
        """The arms brake: the input begins anew."""
        self._input = None

    def refusal(self, person: Mapping[str, JointFeedback], measured: Vector) -> tuple[Reason, str]:
        """Why a person's input, by group, must not be followed at the `measured` positions [D], and what that is about.

        NONE: it may.
        """
        if not self._groups:
            return Reason.TAKEOVER_INPUT, "no group of the robot file has a topic `takeover`"
        for group in self._groups:
            stream = person.get(group, _NEVER)
            if not stream.usable(MAX_AGE):
                return Reason.TAKEOVER_INPUT, f"{group}, {_why(stream)}"
        positions = self._positions(person)
        if self._input is not None and (np.abs(positions - self._input.newest) <= self._leap).all():
            return Reason.NONE, ""
        off = np.abs(positions - measured[self._columns])
        if (off <= self._near).all():  # NaN is not
            return Reason.NONE, ""
        worst = int(np.nan_to_num(off / self._near, nan=np.inf).argmax())
        column = self._columns[worst]
        unit = "rad" if self._joints.angular[column] else "mm"
        return Reason.TAKEOVER_FAR, f"{self._joints.every_name[column]}, {off[worst]:.3g} {unit}"

    def plan(self, person: Mapping[str, JointFeedback], position: Vector, stamp_ns: int, steady_ns: int) -> Chunk:
        """The way from the last command, at `position` [D] and `stamp_ns`, to an input that is not refused.

        `steady_ns` is the time on the steady clock.
        """
        positions = self._positions(person)
        if self._input is None:
            self._input = _Input(positions, steady_ns)
        goal = position.copy()
        goal[self._columns] = self._input.follow(positions, steady_ns)
        return Chunk(0, 0, stamp_ns, _STEP_NS, [], np.stack([position, goal]))

    def _positions(self, person: Mapping[str, JointFeedback]) -> Vector:
        streams = [person[group] for group in self._groups]
        return np.concatenate([stream.positions for stream in streams if stream.positions is not None])


class _Input:
    """An input between its messages: it goes to the newest one in the time that lay between the last two.

    Without that, arms that are led by 30 messages a second would be accelerated and braked 30 times a second.

    Attributes:
        newest: positions [columns].
    """

    def __init__(self, positions: Vector, steady_ns: int) -> None:
        self.newest = self._begin = positions
        self._since_ns: NDArray[np.int64] = np.full(len(positions), steady_ns)
        self._way_ns: NDArray[np.float64] = np.ones(len(positions))

    def follow(self, positions: Vector, steady_ns: int) -> Vector:
        """Where it is now, given the newest positions [columns]."""
        passed_ns = steady_ns - self._since_ns
        place = self._begin + np.minimum(passed_ns / self._way_ns, 1.0) * (self.newest - self._begin)
        moved = positions != self.newest
        self._begin = np.where(moved, place, self._begin)
        self._way_ns = np.where(moved, np.clip(passed_ns, 1, MAX_AGE * _SECOND), self._way_ns)
        self._since_ns = np.where(moved, steady_ns, self._since_ns)
        self.newest = positions
        return place


def _why(stream: JointFeedback) -> str:
    """Why an input is not usable."""
    if stream.refused != Reason.NONE:
        return stream.refused.text
    if stream.positions is None:
        return "none comes" if not stream.invalid else "none of its messages is usable"
    return f"{stream.age:.2f} s old{', unusable messages since' if stream.invalid else ''}"
