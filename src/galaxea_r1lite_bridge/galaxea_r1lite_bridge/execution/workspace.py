"""Where the arms may be: off the table, in a box, away from each other, the robot's body and themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.robot.body import Body, Distances, Meeting, Placed
from galaxea_r1lite_bridge.robot.config import RobotConfig

_NOT_WORTH_IT = 1e-3  # m that the torso's uncertainty takes at most: then it takes that everywhere
_MEASURED = 0.03  # m within a limit's margin that a clearance is exact

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
    """The clearances at K positions.

    Attributes:
        clearance: how far inside each limit [K, N] the robot is, m, < 0 outside: exact up to 3 cm, a bound beyond.
        placed: its capsules.
        lost: how much of the clearance [K, N] is taken off because the torso's pose is not known better.
    """

    clearance: NDArray[np.float64]
    placed: Placed
    lost: NDArray[np.float64]


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
        pairs, table = len(body.pairs), len(self._low)
        self._pairs, self._table, self._box = slice(0, pairs), slice(pairs, pairs + table), slice(pairs + table, None)
        self.tips = [pairs + np.flatnonzero(body.arms[tips] == arm) for arm in range(len(body.tools))]
        self._distances = Distances(body, self.margins[self._pairs] + _MEASURED)
        self._first = np.concatenate([[p.first for p in body.pairs], self._low, body.tools]).astype(int)
        self._second = np.concatenate([[p.second for p in body.pairs], self._low, body.tools]).astype(int)
        self.arm_of = np.maximum(body.arms[self._first], body.arms[self._second])
        self._moves = np.arange(len(self.limits)) < pairs  # table and box stand still
        axes = [body.kinematics.axes[joint] for group in robot.standing.values() for joint in group.joints]
        self._torso_frames = np.array([frame for frame, _ in axes], int)
        self._torso_axes = np.array([axis for _, axis in axes]).reshape(-1, 3)
        self._carried = self._carries()

    def look(self, placed: Placed, uncertainty: NDArray[np.float64] | None = None) -> Look:
        """The clearances where the body is placed, by a torso that may be off by `uncertainty` [3] rad."""
        body = self.body
        lost = np.zeros((len(self.limits), placed.begin.shape[2]))
        if uncertainty is not None and uncertainty.any():
            self._lose(lost, placed, uncertainty)
        clearance = np.empty_like(lost)
        clearance[self._pairs] = self._distances.at(placed, float(lost[self._pairs].max(initial=0.0)))
        heights = np.minimum(placed.begin[2, self._low], placed.end[2, self._low]) - body.radii[self._low, None]
        clearance[self._table] = heights - self.table_height
        tools = placed.begin[:, body.tools]
        low, high = self.box[:, :, None, None]
        clearance[self._box] = np.minimum(tools - low, high - tools).min(axis=0)
        clearance -= self.margins[:, None] + lost
        return Look(clearance.T, placed, lost.T)

    def clearance(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The clearances [K, N] at `positions` [K, D] with the torso where they say."""
        return self.look(self.body.place(positions)).clearance

    def travel(self, placed: Placed, limits: NDArray[np.int_]) -> NDArray[np.float64]:
        """Largest change [K - 1, L] that the clearance of some `limits` [L] can have between positions, m."""
        moved = placed.travel()
        return (moved[self._first[limits]] + self._moves[limits, None] * moved[self._second[limits]]).T

    def text(self, limit: int, look: Look) -> str:
        """The two bodies of a limit and how far they are apart at the first position of a look, for people."""
        of = self.limits[limit]
        apart = look.clearance[0, limit] + look.lost[0, limit] + of.margin
        if self._moves[limit]:  # maybe it is only known to be at least that
            apart = self.body.distances_at(look.placed, self._first[limit], self._second[limit], np.array(0))
        return f"{of.first} and {of.second}, {1e3 * apart:.0f} mm"

    def nearest(self, position: NDArray[np.float64]) -> Nearest:
        """The two bodies that are nearest to each other, beyond their margin, at `position` [D]."""
        look = self.look(self.body.place(position[None]))
        placed, pairs = look.placed, self._pairs
        clearance = look.clearance[0, : self._box.start].copy()
        clearance[pairs] = (
            self.body.distances(placed, self._first[pairs], self._second[pairs])[:, 0] - self.margins[pairs]
        )
        limit = int(clearance.argmin())
        first, second = int(self._first[limit]), int(self._second[limit])
        if self._moves[limit]:
            points = self.body.nearest_points(placed, first, second)
        else:
            ends = (placed.begin[:, first, 0], placed.end[:, first, 0])
            low = min(ends, key=lambda end: float(end[2])) - [0.0, 0.0, self.body.radii[first]]
            points = np.stack([low, [*low[:2], self.table_height]])
        return Nearest(self.text(limit, look), points, float(clearance[limit]))

    def distance(self, placed: Placed, limits: NDArray[np.int_]) -> NDArray[np.float64]:
        """Distance [K] of one of the `limits` [K] at each position: of a pair, or over the table; m."""
        rows, first = np.arange(len(limits)), self._first[limits]
        if self._moves[limits].all():
            return self.body.distances_at(placed, first, self._second[limits], rows)
        return np.minimum(placed.begin[2, first, rows], placed.end[2, first, rows]) - self.body.radii[first]

    def _lose(self, lost: NDArray[np.float64], placed: Placed, uncertainty: NDArray[np.float64]) -> None:
        """Fill in the clearance [N, K] that the torso's `uncertainty` [J] takes, to first order."""
        lost[self._pairs] = (self._carried @ uncertainty)[:, None]
        most = float(uncertainty @ self.body.reach[self._torso_frames])
        if most < _NOT_WORTH_IT:
            lost[self._table] = lost[self._box] = most
            return
        lower = placed.begin[2, self._low] < placed.end[2, self._low]
        points = np.where(lower, placed.begin[:, self._low], placed.end[:, self._low])
        points = np.concatenate([points, placed.begin[:, self.body.tools]], axis=1)[:, :, None]  # [3, T, 1, K]
        poses = placed.frames[self._torso_frames, :, :3]  # [J, K, 3, 4]
        x, y, z = points - poses[..., 3].transpose(2, 0, 1)[:, None]  # [T, J, K]
        a, b, c = np.einsum("jkid,jd->ijk", poses[..., :3], self._torso_axes)
        up = np.abs(a * y - b * x)
        table = len(self._low)
        lost[self._table] = np.einsum("tjk,j->tk", up[:table], uncertainty)
        side = np.maximum(np.abs(b * z - c * y), np.abs(c * x - a * z))[table:]
        lost[self._box] = np.einsum("tjk,j->tk", np.maximum(up[table:], side), uncertainty)

    def _carries(self) -> NDArray[np.float64]:
        """How far a rad of each torso joint can move the bodies of a pair towards each other, [P, J] m."""
        found = np.zeros((len(self.body.pairs), len(self._torso_frames)))
        for number, pair in enumerate(self.body.pairs):
            one, other = (set(self.body.chain(k)) for k in (pair.first, pair.second))
            for joint, frame in enumerate(self._torso_frames):
                found[number, joint] = self.body.reach[frame] if (frame in one) != (frame in other) else 0.0
        return found
