"""Where the arms may be: off the table, in a box, away from each other, the robot's body and themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.robot.body import Body, Distances, Meeting, Placed
from galaxea_r1lite_bridge.robot.config import RobotConfig

_NOT_WORTH_IT = 1e-3  # m that the torso's uncertainty takes at most: then it takes that everywhere

_REASONS = {
    Meeting.ARMS: Reason.LIMIT_ARM_DISTANCE,
    Meeting.OWN_ARM: Reason.LIMIT_OWN_ARM,
    Meeting.BODY: Reason.LIMIT_BODY,
}
KINDS = (Reason.LIMIT_TABLE, Reason.LIMIT_BOX, *_REASONS.values())


@dataclass(frozen=True)
class Limit:
    """Two bodies that must stay apart: links of the robot, `the table`, or `the box`."""

    reason: Reason
    first: str
    second: str
    margin: float


@dataclass(frozen=True)
class Look:
    """The clearances that may be small at K positions.

    Attributes:
        limits: numbers [L] of the limits that may be near.
        clearance: how far inside each of them [K, L] the robot is, m, < 0 outside.
        lost: how much of it [L] is taken off at the first position because the torso's pose is not known better.
        placed: the robot's capsules.
    """

    limits: NDArray[np.int_]
    clearance: NDArray[np.float64]
    lost: NDArray[np.float64]
    placed: Placed


@dataclass(frozen=True)
class Nearest:
    """Two bodies that are near each other.

    Attributes:
        text: which they are and how far apart.
        points: of the one's and the other's surface [2, 3], m.
        clearance: m beyond their margin.
    """

    text: str
    points: NDArray[np.float64]
    clearance: float


class Workspace:
    """Limits of the arms' motion in the base frame.

    Attributes:
        body: the robot's capsules.
        limits: what each of the N clearances is of.
        table_height: z of the table plane, m.
        box: lowest and highest x, y, z of a tool, [2, 3] m.
        tips: numbers of the limits of each arm's fingers and tool over the table.
        arm_of: the arm of each limit [N]; of those between the arms the second.
        arms: the axes of each arm's joints.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self.body = body = Body(robot)
        self.table_height, self.box = robot.workspace.table_height, np.array(robot.workspace.box)
        self.torso = slice(len(robot.joint_names), None)
        margins = robot.workspace.margins
        tips = np.concatenate([body.fingers, body.tools])
        fingers = {body.links[k] for k in body.fingers}
        others = [k for k in range(tips.min()) if body.arms[k] >= 0 and body.links[k] not in fingers]
        self._low = np.concatenate([tips, others]).astype(int)
        self.limits = [
            Limit(_REASONS[p.meeting], body.links[p.first], body.links[p.second], getattr(margins, p.meeting.value))
            for p in body.pairs
        ]
        self.limits += [Limit(Reason.LIMIT_TABLE, body.links[k], "the table", margins.fingertips) for k in tips]
        self.limits += [Limit(Reason.LIMIT_TABLE, body.links[k], "the table", margins.table) for k in others]
        self.limits += [Limit(Reason.LIMIT_BOX, body.links[k], "the box", 0.0) for k in body.tools]
        self.margins = np.array([limit.margin for limit in self.limits])
        self._paired = len(body.pairs)  # limits between two bodies; then those over the table, and of the box
        self.tips = [self._paired + np.flatnonzero(body.arms[tips] == arm) for arm in range(len(body.tools))]
        self._distances = Distances(body)
        self._first = np.concatenate([[p.first for p in body.pairs], self._low, body.tools]).astype(int)
        self._second = np.concatenate([[p.second for p in body.pairs], self._low, body.tools]).astype(int)
        self.arm_of = np.maximum(body.arms[self._first], body.arms[self._second])
        self._moves = np.arange(len(self.limits)) < self._paired  # table and box stand still
        self.arms = [body.kinematics.turning(robot.groups[name].joints) for name in robot.workspace.arms]
        self._moved_by = [
            np.array([[frame in chain for chain in body.chains] for frame in arm.frames.tolist()]) for arm in self.arms
        ]
        self._turning = body.kinematics.turning([j for group in robot.standing.values() for j in group.joints])
        self._carried = self._carries()

    def look(self, placed: Placed, uncertainty: NDArray[np.float64] | None = None, within: float = np.inf) -> Look:
        """The clearances that may be less than `within` m where the body is placed.

        They are what remains where the torso may be off by `uncertainty` [J] rad. A limit that is not in the look is
        further away at all positions than `within` and what the uncertainty takes once more.
        """
        off = np.zeros(len(self._turning.frames)) if uncertainty is None or not len(uncertainty) else uncertainty
        lost = self._carried @ off
        near, apart = self._distances.near(placed, self.margins[: self._paired] + within + 2 * lost)
        lost = lost[near]
        still = self._still(placed) - self.margins[self._paired :]
        taken = self._taken(placed, off)
        still -= taken
        close = (still.min(axis=0) < within + taken[0]).nonzero()[0]
        return Look(
            np.concatenate([near, self._paired + close]),
            np.concatenate([apart - (self.margins[near] + lost), still[:, close]], axis=1),
            np.concatenate([lost, taken[0, close]]),
            placed,
        )

    def clearance(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """All clearances [K, N] at `positions` [K, D] with the torso where they say, m."""
        return self.look(self.body.place(positions)).clearance

    def travel(self, placed: Placed, limits: NDArray[np.int_]) -> NDArray[np.float64]:
        """Largest change [K - 1, L] that the clearance of some `limits` [L] can have between positions, m."""
        moved = placed.travel()
        return moved[:, self._first[limits]] + self._moves[limits] * moved[:, self._second[limits]]

    def text(self, look: Look, place: int) -> str:
        """The two bodies of a limit in a look and how far they are apart at its first position, for people."""
        of = self.limits[look.limits[place]]
        apart = look.clearance[0, place] + look.lost[place] + of.margin
        return f"{of.first} and {of.second}, {1e3 * apart:.0f} mm"

    def nearest(self, position: NDArray[np.float64]) -> Nearest:
        """The two bodies that are nearest to each other, beyond their margin, at `position` [D]."""
        look = self.look(self.body.place(position[None]))
        clearance, placed = look.clearance[0, : len(self.limits) - len(self.body.tools)], look.placed
        limit = int(clearance.argmin())
        _, points, towards = self.nearest_at(placed, np.array([limit]))
        radii = [self.body.radii[self._first[limit]], -self.body.radii[self._second[limit]] * self._moves[limit]]
        surface = points[..., 0] - np.multiply.outer(radii, towards[:, 0])
        return Nearest(self.text(look, limit), surface, float(clearance[limit]))

    def nearest_at(
        self, placed: Placed, limits: NDArray[np.int_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """What :meth:`Body.nearest` says of one of the `limits` [K] at each position: all of pairs, or of the table."""
        rows, first = np.arange(len(limits)), self._first[limits]
        if self._moves[limits].all():
            return self.body.nearest(placed, first, self._second[limits], rows)
        begin, end = placed.begin[:, rows, first], placed.end[:, rows, first]
        lowest = np.where(begin[2] < end[2], begin, end)
        table = lowest.copy()
        table[2] = self.table_height
        up = np.broadcast_to([[0.0], [0.0], [1.0]], lowest.shape)
        return lowest[2] - self.body.radii[first] - self.table_height, np.stack([lowest, table]), up

    def carried(self, arm: int, limits: NDArray[np.int_]) -> NDArray[np.bool_]:
        """Whether each joint of an arm moves the first and the second body of some `limits` [K], [2, J, K]."""
        moves = self._moved_by[arm]
        return np.stack([moves[:, self._first[limits]], moves[:, self._second[limits]] & self._moves[limits]])

    def _still(self, placed: Placed) -> NDArray[np.float64]:
        """Distances [K, T + A] of what can come near the table, and of the tools inside the box, m."""
        heights = np.minimum(placed.begin[2].take(self._low, axis=1), placed.end[2].take(self._low, axis=1))
        tools = placed.begin.take(self.body.tools, axis=2)
        low, high = self.box[:, :, None, None]
        inside = np.minimum(tools - low, high - tools).min(axis=0)
        return np.concatenate([heights - (self.body.radii[self._low] + self.table_height), inside], axis=1)

    def _taken(self, placed: Placed, uncertainty: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the torso's `uncertainty` [J] takes of these distances [K or 1, T + A], to first order, m."""
        most = float(uncertainty @ self.body.reach[self._turning.frames])
        if most < _NOT_WORTH_IT:
            return np.full((1, len(self._low) + len(self.body.tools)), most)
        begin, end = placed.begin.take(self._low, axis=2), placed.end.take(self._low, axis=2)
        lowest = np.where(begin[2] < end[2], begin, end)
        points = np.concatenate([lowest, placed.begin.take(self.body.tools, axis=2)], axis=2)
        moved = np.abs(self._turning.moved(placed.frames, points.transpose(2, 0, 1)[:, :, None]))  # [T + A, 3, J, K]
        moved = np.concatenate([moved[: len(self._low), 2], moved[len(self._low) :].max(axis=1)])
        return np.einsum("tjk,j->kt", moved, uncertainty)

    def _carries(self) -> NDArray[np.float64]:
        """How far a rad of each torso joint can move the bodies of a pair towards each other, [P, J] m."""
        found = np.zeros((len(self.body.pairs), len(self._turning.frames)))
        for number, pair in enumerate(self.body.pairs):
            one, other = self.body.chains[pair.first], self.body.chains[pair.second]
            for joint, frame in enumerate(self._turning.frames):
                found[number, joint] = self.body.reach[frame] if (frame in one) != (frame in other) else 0.0
        return found
