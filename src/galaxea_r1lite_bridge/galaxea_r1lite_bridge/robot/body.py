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
Segments = tuple[Points, Points]  # their begins and ends

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
        begin: one end of each capsule [3, K, C], m in the workspace's frame.
        end: the other end [3, K, C].
        frames: pose of each moving frame [F, K, 4, 4].
    """

    begin: Points
    end: Points
    frames: NDArray[np.float64]

    def travel(self) -> NDArray[np.float64]:
        """Furthest that a point of each capsule is displaced from one position to the next, [K - 1, C], m."""
        return np.sqrt(_furthest(np.diff(self.begin, axis=1), np.diff(self.end, axis=1)))


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
        chains: the moving frames that carry each capsule [C], and the base.
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
        frame_of = np.array([number for number, _ in places])
        self.chains = [frozenset(self.kinematics.chain(frame)) for frame in frame_of.tolist()]
        ends = [
            [pose[:3, :3] @ end + pose[:3, 3] for end in (capsule.begin, capsule.end)]
            for (_, capsule), (_, pose) in zip(parts, places, strict=True)
        ]
        own = np.array(ends).swapaxes(0, 1)  # [2, C, 3] in their moving frames
        self._squares = ((own[1] - own[0]) ** 2).sum(axis=1)
        self._inverse = np.where(self._squares > 0, 1 / np.maximum(self._squares, 1e-12), 0.0)
        self._ends, self._slots = _by_frame(frame_of, own)
        self.reach = self.kinematics.reach(frame_of, np.linalg.norm(own, axis=2).max(axis=0) + self.radii)
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

    def place(self, positions: NDArray[np.float64]) -> Placed:
        """Where the capsules are at `positions` [K, D], rad and mm."""
        frames = self.kinematics.frames(positions)
        count = len(positions)
        placed = (frames.reshape(len(frames), -1, 4) @ self._ends).reshape(len(frames), count, 4, -1)
        places = placed[:, :, :3].transpose(2, 1, 0, 3).reshape(3, count, -1).take(self._slots, axis=2)
        return Placed(places[:, :, 0], places[:, :, 1], frames)

    def distances(self, placed: Placed, first: NDArray[np.int_], second: NDArray[np.int_]) -> NDArray[np.float64]:
        """Distances [K, P] between the surfaces of the capsules `first` [P] and `second` [P], m, < 0 overlapping."""
        one, other = (
            (placed.begin.take(numbers, axis=2), placed.end.take(numbers, axis=2)) for numbers in (first, second)
        )
        between, _, _ = self._between(one, other, first, second)
        return np.sqrt(_dot(between, between)) - (self.radii[first] + self.radii[second])

    def nearest(
        self, placed: Placed, first: NDArray[np.int_], second: NDArray[np.int_], rows: NDArray[np.int_]
    ) -> tuple[NDArray[np.float64], Points, Points]:
        """Where pairs of capsules are nearest to each other, each at one of the `rows` [N].

        Distances [N] between the surfaces, the points [2, 3, N] on the one's and the other's line, and the direction
        [3, N] from the other to the one; m.
        """
        one, other = ((placed.begin[:, rows, numbers], placed.end[:, rows, numbers]) for numbers in (first, second))
        between, s, t = self._between(one, other, first, second)
        length = np.sqrt(_dot(between, between))
        points = np.stack([one[0] + s * (one[1] - one[0]), other[0] + t * (other[1] - other[0])])
        return length - (self.radii[first] + self.radii[second]), points, between / np.maximum(length, 1e-9)

    def _between(
        self, one: Segments, other: Segments, first: NDArray[np.int_], second: NDArray[np.int_]
    ) -> tuple[Points, NDArray[np.float64], NDArray[np.float64]]:
        """From the nearest point of the second segment to that of the first [3, ...], and their places 0..1 on them.

        After Ericson, Real-Time Collision Detection (2005), section 5.1.9. `one` and `other` are the ends [3, ...] of
        the capsules with the numbers `first` and `second`, which are broadcast against the rest.
        """
        a, b = one[0], other[0]
        u, v, w = one[1] - a, other[1] - b, a - b
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
        joints = np.array([len(self.chains[a] ^ self.chains[b]) for a, b in zip(first, second, strict=True)])
        home = np.array([value for group in robot.actuated.values() for value in group.home])
        margins = np.array([getattr(robot.workspace.margins, pair.meeting.value) for pair in pairs])
        near = self.distances(self.place(home[None]), first, second)[0] < margins
        names = [(self.links[a], self.links[b]) for a, b in zip(first, second, strict=True)]
        built = {names[k] for k in np.flatnonzero(near & (joints <= _NEARBY))}
        return [pair for pair, apart, name in zip(pairs, joints, names, strict=True) if apart > 1 and name not in built]


class Distances:
    """The distances of many pairs at little cost: measured where two capsules may be near, bounded elsewhere.

    All pairs are measured at one position. Elsewhere a pair is at least as far apart as it was there, less what its
    capsules have moved since; only what that leaves near is measured.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self._first = np.array([pair.first for pair in body.pairs])
        self._second = np.array([pair.second for pair in body.pairs])
        self._measured: tuple[Points, Points, NDArray[np.float64]] | None = None

    def near(self, placed: Placed, enough: NDArray[np.float64]) -> tuple[NDArray[np.int_], NDArray[np.float64]]:
        """Numbers [L] of pairs, and their distances [K, L]; all others are at least `enough` [P] m apart everywhere."""
        moved = self._moved(placed)
        if moved is None or moved[0].max() > _STALE**2:
            here = Placed(placed.begin[:, :1], placed.end[:, :1], placed.frames)
            self._measured = here.begin, here.end, self._body.distances(here, self._first, self._second)[0]
            moved = self._moved(placed)
        assert self._measured is not None
        assert moved is not None
        furthest = np.sqrt(moved.max(axis=0))
        least = self._measured[2] - furthest.take(self._first) - furthest.take(self._second)
        near = (least < enough).nonzero()[0]
        return near, self._body.distances(placed, self._first[near], self._second[near])

    def _moved(self, placed: Placed) -> NDArray[np.float64] | None:
        """Square of how far a point of each capsule has moved since all were measured, [K, C] m^2; None: never."""
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
    """Square of the longer of the displacements [3, ...] of a segment's ends: no point of it moves further."""
    return np.maximum(_dot(begin, begin), _dot(end, end))


def _by_frame(frames: NDArray[np.int_], ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Ends [2, C, 3] of capsules in `frames` [C] as columns of one matrix a frame [F, 4, N], for one product of all.

    Also where each end is among the F N columns, [2, C].
    """
    both = np.tile(frames, 2)
    order = np.array([np.count_nonzero(both[:index] == frame) for index, frame in enumerate(both)])
    width = int(order.max()) + 1
    matrices = np.zeros((int(frames.max()) + 1, 4, width))
    matrices[both, :3, order] = ends.reshape(-1, 3)
    matrices[both, 3, order] = 1.0
    return matrices, (both * width + order).reshape(2, -1)


def _dot(a: Points, b: Points) -> NDArray[np.float64]:
    return np.add.reduce(a * b)


def _share(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.minimum(np.maximum(values, 0.0), 1.0)
