"""The robot as capsules: where they are, which of them may meet, and how far these are apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.geometry import Capsule, link_solids
from galaxea_r1lite_bridge.robot.kinematics import BatchKinematics

Points = NDArray[np.float64]

_STALE = 0.03  # m that a capsule may have moved since all pairs were measured
_PARALLEL = 1e-9  # square of the sine of the angle between two segments that count as parallel
_NEARBY = 2  # joints between two links that are built so close that they may touch at the start pose


class Meeting(Enum):
    """What a pair of bodies is; the values are the keys of `workspace.margins`."""

    ARMS = "arms"
    BODY = "body"
    OWN_ARM = "own_arm"


@dataclass(frozen=True)
class Pair:
    """Two capsules, by number, that may come near each other."""

    first: int
    second: int
    meeting: Meeting


@dataclass(frozen=True)
class Placed:
    """Where all capsules are at K positions.

    Attributes:
        begin: one end of each capsule [3, C, K], m in the workspace's frame.
        end: the other end [3, C, K].
        frames: pose of each moving frame [F, K, 4, 4].
    """

    begin: Points
    end: Points
    frames: NDArray[np.float64]

    def travel(self) -> NDArray[np.float64]:
        """Furthest that a point of each capsule is displaced from one position to the next, [C, K - 1], m."""
        return _furthest(self.begin[..., 1:] - self.begin[..., :-1], self.end[..., 1:] - self.end[..., :-1])


class Body:
    """The capsules of a robot file over the positions of all its groups.

    Attributes:
        kinematics: of all links with a capsule, and of the tools.
        links: name of the link of each capsule [C].
        radii: of each capsule [C], m; 0 for an edge of a finger and a tool point, which only the table and box stop.
        arms: the arm [C] that a capsule belongs to, -1: none.
        fingers: numbers of the edges of all fingers.
        tools: number of each arm's tool point.
        pairs: all that may meet: an arm's link with another link that it is not next to.
        reach: furthest from the origin of each moving frame [F] that anything it carries can be, m.
        levers: furthest that one unit of each position [D] moves anything, m.
    """

    def __init__(self, robot: RobotConfig) -> None:
        kinematics, frame = robot.kinematics(), robot.workspace.frame
        parts = [
            (link, Capsule(np.array(shape.begin), np.array(shape.end), shape.radius))
            for link, shapes in robot.body.items()
            for shape in shapes
        ]
        shapes = len(parts)
        fingers = _fingers(robot)
        solids = link_solids(robot.urdf_path)
        edges = [(link, edge) for link in fingers for solid in solids.get(link, []) for edge in solid.edges()]
        tools = [(arm.tool.link, np.array(arm.tool.point)) for arm in robot.workspace.arms.values()]
        parts += edges + [(link, Capsule(point, point, 0.0)) for link, point in tools]
        self.fingers = shapes + np.arange(len(edges))
        self.tools = shapes + len(edges) + np.arange(len(tools))

        self.links = [link for link, _ in parts]
        self.radii = np.array([capsule.radius for _, capsule in parts])
        self.kinematics: BatchKinematics = kinematics.batch(self.links, robot.urdf_columns(), frame)
        places = [self.kinematics.place(link) for link in self.links]
        self._frame_of = np.array([number for number, _ in places])
        ends = [
            [pose[:3, :3] @ end + pose[:3, 3] for end in (capsule.begin, capsule.end)]
            for (_, capsule), (_, pose) in zip(parts, places, strict=True)
        ]
        self._ends = np.array(ends).transpose(1, 2, 0)  # [2, 3, C] in their moving frames
        self._squares = ((self._ends[1] - self._ends[0]) ** 2).sum(axis=0)
        self._inverse = np.where(self._squares > 0, 1 / np.maximum(self._squares, 1e-12), 0.0)
        self.reach = self.kinematics.reach(self._frame_of, np.linalg.norm(self._ends, axis=1).max(axis=0) + self.radii)
        self.levers = self.kinematics.levers(self.reach, sum(len(group.joints) for group in robot.actuated.values()))

        joints = [set(robot.groups[name].joints) for name in robot.workspace.arms]
        above = [set(kinematics.joints_above(link, frame)) for link in self.links]
        self.arms = np.array([next((k for k, own in enumerate(joints) if own & names), -1) for names in above])
        self.pairs = self._without_neighbours(
            robot,
            [
                Pair(a, b, self._meeting(a, b))
                for a, b in itertools.combinations(range(shapes), 2)
                if max(self.arms[a], self.arms[b]) >= 0
                and not (self.links[a] in fingers and self.links[b] in fingers and self.arms[a] == self.arms[b])
            ],
        )

    def chain(self, capsule: int) -> list[int]:
        """The moving frames that carry a capsule, the base last."""
        return self.kinematics.chain(int(self._frame_of[capsule]))

    def place(self, positions: NDArray[np.float64]) -> Placed:
        """Where the capsules are at `positions` [K, D], rad and mm."""
        frames = self.kinematics.frames(positions)
        poses = frames[:, :, :3].transpose(2, 3, 0, 1)[:, :, self._frame_of]  # [3, 4, C, K]
        begin, end = (
            poses[:, 0] * x[:, None] + poses[:, 1] * y[:, None] + poses[:, 2] * z[:, None] + poses[:, 3]
            for x, y, z in self._ends
        )
        return Placed(begin, end, frames)

    def distances(self, placed: Placed, first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.float64]:
        """Distances [P, K] between the surfaces of the capsules `first` [P] and `second` [P], m, < 0 overlapping."""
        rows = np.arange(placed.begin.shape[2])[None]
        return self.distances_at(placed, first[:, None], second[:, None], rows)

    def distances_at(
        self, placed: Placed, first: NDArray[np.int_], second: NDArray[np.int_], rows: NDArray[np.int_]
    ) -> NDArray[np.float64]:
        """The same at single positions: the three kinds of numbers are broadcast against each other."""
        between, _, _ = self._between(placed, first, second, rows)
        return np.sqrt(_dot(between, between)) - (self.radii[first] + self.radii[second])

    def nearest_points(self, placed: Placed, first: int, second: int) -> Points:
        """The points [2, 3] of two capsules' surfaces that are nearest to each other, at one position, m."""
        a, b = (placed.begin[:, capsule, 0] for capsule in (first, second))
        between, s, t = self._between(placed, np.array(first), np.array(second), np.array(0))
        apart = between / max(float(np.sqrt(_dot(between, between))), 1e-9)
        one = a + s * (placed.end[:, first, 0] - a) - self.radii[first] * apart
        other = b + t * (placed.end[:, second, 0] - b) + self.radii[second] * apart
        return np.stack([one, other])

    def _between(
        self, placed: Placed, first: NDArray[np.int_], second: NDArray[np.int_], rows: NDArray[np.int_]
    ) -> tuple[Points, NDArray[np.float64], NDArray[np.float64]]:
        """From the nearest point of the second segment to that of the first [3, ...], and their places 0..1 on them.

        After Ericson, Real-Time Collision Detection (2005), section 5.1.9.
        """
        a, b = placed.begin[:, first, rows], placed.begin[:, second, rows]
        u, v, w = placed.end[:, first, rows] - a, placed.end[:, second, rows] - b, a - b
        uu, vv = self._squares[first], self._squares[second]
        uv, uw, vw = _dot(u, v), _dot(u, w), _dot(v, w)
        determinant = uu * vv - uv * uv
        # Parallel segments: any s will do, 0 is used; then the best t for it, then the best s for that t.
        apart = determinant > _PARALLEL * uu * vv
        s = _share((uv * vw - uw * vv) * apart / np.where(apart, determinant, 1.0))
        t = _share((uv * s + vw) * self._inverse[second])
        s = _share((uv * t - uw) * self._inverse[first])
        return w + s * u - t * v, s, t

    def _meeting(self, first: int, second: int) -> Meeting:
        arms = {int(self.arms[first]), int(self.arms[second])}
        return Meeting.BODY if -1 in arms else Meeting.ARMS if len(arms) == 2 else Meeting.OWN_ARM

    def _without_neighbours(self, robot: RobotConfig, pairs: Sequence[Pair]) -> list[Pair]:
        """Without links that a joint connects, and those with two joints between that are built to touch."""
        first, second = (np.array([getattr(pair, side) for pair in pairs]) for side in ("first", "second"))
        joints = np.array([len(set(self.chain(a)) ^ set(self.chain(b))) for a, b in zip(first, second, strict=True)])
        home = np.array([value for group in robot.actuated.values() for value in group.home])
        margins = np.array([getattr(robot.workspace.margins, pair.meeting.value) for pair in pairs])
        near = self.distances(self.place(home[None]), first, second)[:, 0] < margins
        names = [(self.links[a], self.links[b]) for a, b in zip(first, second, strict=True)]
        built = {names[k] for k in np.flatnonzero(near & (joints <= _NEARBY))}
        return [pair for pair, apart, name in zip(pairs, joints, names, strict=True) if apart > 1 and name not in built]


class Distances:
    """The distances of many pairs at little cost: measured where two capsules are near, bounded elsewhere.

    All pairs are measured at one position. Elsewhere a pair is at least as far apart as it was there, less what its
    capsules have moved since; only what that leaves near is measured.
    """

    def __init__(self, body: Body, enough: NDArray[np.float64]) -> None:
        """`enough` [P]: m from which on a lower bound of a pair's distance will do."""
        self._body, self._enough = body, enough
        self._first = np.array([pair.first for pair in body.pairs])
        self._second = np.array([pair.second for pair in body.pairs])
        self._measured: tuple[Points, Points, NDArray[np.float64]] | None = None

    def at(self, placed: Placed, extra: float = 0.0) -> NDArray[np.float64]:
        """Distances [P, K] between surfaces: exact below `enough` + `extra` m, at least that above."""
        moved = self._moved(placed)
        if moved is None or moved[:, 0].max() > _STALE:
            begin, end = placed.begin[..., :1], placed.end[..., :1]
            here = self._body.distances(Placed(begin, end, placed.frames), self._first, self._second)
            self._measured = begin, end, here
            moved = self._moved(placed)
        assert self._measured is not None
        assert moved is not None
        here, furthest = self._measured[2], moved.max(axis=1)
        found = np.repeat(here - (furthest[self._first] + furthest[self._second])[:, None], moved.shape[1], axis=1)
        enough = self._enough + extra
        near = np.flatnonzero(found[:, 0] < enough)
        first, second = self._first[near], self._second[near]
        bound = here[near] - moved[first] - moved[second]
        pairs, rows = np.nonzero(bound < enough[near, None])
        bound[pairs, rows] = self._body.distances_at(placed, first[pairs], second[pairs], rows)
        found[near] = bound
        return found

    def _moved(self, placed: Placed) -> NDArray[np.float64] | None:
        """Furthest that a point of each capsule has moved since all were measured, [C, K] m; None: they were not."""
        if self._measured is None:
            return None
        return _furthest(placed.begin - self._measured[0], placed.end - self._measured[1])


def _fingers(robot: RobotConfig) -> list[str]:
    """Links that a gripper moves."""
    grippers = [name for name, group in robot.commanded.items() if group.unit == "mm"]
    moved = {joint for name in grippers for joint in robot.urdf_positions(name, np.zeros(1))}
    kinematics = robot.kinematics()
    return [link for link in robot.body if moved & set(kinematics.joints_above(link, robot.workspace.frame)[:1])]


def _furthest(begin: Points, end: Points) -> NDArray[np.float64]:
    """Largest length of the two displacements [3, ...] of a segment's ends: no point of it moves further."""
    return np.sqrt(np.maximum(_dot(begin, begin), _dot(end, end)))


def _dot(a: Points, b: Points) -> NDArray[np.float64]:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _share(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(np.maximum(values, 0.0), 1.0)
