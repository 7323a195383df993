"""Where the grippers may be and how close the arms may come to each other, by forward kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.robot.config import ArmShape, RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import BatchKinematics

Points = NDArray[np.float64]

_TOUCHING, _TOUCHED = 0.002, 1e-4  # m over the table that a tool is led at, and what counts as there
_DEEPEST = 0.03  # m that a plan may dip into the table and still be led along it
_ITERATIONS, _DAMPING, _DIFFERENCE = 3, 0.01, 1e-6  # of the inverse kinematics; damping in m, difference in rad

KINDS = (Reason.LIMIT_TABLE, Reason.LIMIT_BOX, Reason.LIMIT_ARM_DISTANCE)


@dataclass(frozen=True)
class Place:
    """A point [3] in m that is fixed to a link."""

    link: str
    point: NDArray[np.float64]


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` m of the line between two places."""

    begin: Place
    end: Place
    radius: float


@dataclass(frozen=True)
class Workspace:
    """Limits of the two arms' motion in the base frame, m.

    Attributes:
        kinematics: of all links named below.
        tools: the point of each gripper that must stay inside.
        table_height: z of the table plane.
        box: lowest and highest x, y, z of a tool, [2, 3].
        arms: capsules of the one and of the other arm.
        min_arm_distance: between the surfaces of the two arms' capsules.
        arm_joints: columns of the positions that move each tool.
    """

    kinematics: BatchKinematics
    tools: Sequence[Place]
    table_height: float
    box: NDArray[np.float64]
    arms: tuple[Sequence[Capsule], Sequence[Capsule]]
    min_arm_distance: float
    arm_joints: Sequence[NDArray[np.int_]]

    @classmethod
    def of(cls, robot: RobotConfig) -> Workspace:
        """Limits over the positions of all the robot's groups."""
        config = robot.workspace
        joints = [joint for group in robot.actuated.values() for joint in group.joints]
        first, second = config.arms.values()
        return cls(
            robot.kinematics().batch(robot.workspace_links, joints, config.frame),
            [_tool(arm) for arm in config.arms.values()],
            config.table_height,
            np.array(config.box),
            (_capsules(first), _capsules(second)),
            config.min_arm_distance,
            [np.arange(place.start, place.stop) for place in (robot.actuated_slices[name] for name in config.arms)],
        )

    def clearance(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far inside each limit of KINDS the arms are, [K, 3] in m, < 0 outside, at `positions` [K, joints]."""
        poses = self.kinematics.poses(positions)
        tools = np.stack([_at(poses, tool) for tool in self.tools], axis=1)
        table = tools[:, :, 2].min(axis=1) - self.table_height
        inside = np.minimum(tools - self.box[0], self.box[1] - tools).min(axis=(1, 2))
        (a0, a1, ra), (b0, b1, rb) = (self._segments(poses, arm) for arm in self.arms)
        apart = segment_distance(a0[:, :, None], a1[:, :, None], b0[:, None], b1[:, None]) - ra[:, None] - rb
        return np.stack([table, inside, apart.min(axis=(1, 2)) - self.min_arm_distance], axis=1)

    def lifted(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """`positions` [K, joints] with tools that dip into the table, by less than 3 cm, put onto it.

        A gripper that takes something off the table is led along it instead of being stopped by the last millimetre.
        The arm's joints give way as little as possible (damped least squares).
        """
        result = positions.copy()
        poses = self.kinematics.poses(positions)
        for tool, columns in zip(self.tools, self.arm_joints, strict=True):
            points = _at(poses, tool)  # an arm that gives way leaves the other arm's tool where it is
            for _ in range(_ITERATIONS):
                depth = self.table_height + _TOUCHING - points[:, 2]
                rows = np.flatnonzero((depth > _TOUCHED) & (depth < _DEEPEST))
                if not len(rows):
                    break
                self._lift(tool, columns, result, rows, depth[rows])
                points = _at(self.kinematics.poses(result), tool)
        return result

    def _lift(
        self, tool: Place, columns: NDArray[np.int_], positions: NDArray[np.float64], rows: NDArray[np.int_],
        height: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Lift a tool by `height` [R] in some `rows` [R] of `positions`: one step with its arm's joints `columns`."""
        near = np.repeat(positions[rows, None], 1 + len(columns), axis=1)
        near[:, 1 + np.arange(len(columns)), columns] += _DIFFERENCE
        points = _at(self.kinematics.poses(near.reshape(-1, near.shape[-1])), tool).reshape(len(rows), -1, 3)
        jacobian = (points[:, 1:] - points[:, :1]).swapaxes(1, 2) / _DIFFERENCE
        square = jacobian @ jacobian.swapaxes(1, 2) + _DAMPING**2 * np.eye(3)
        up = np.linalg.solve(square, height[:, None, None] * np.array([[0.0], [0.0], [1.0]]))
        positions[rows[:, None], columns] += (jacobian.swapaxes(1, 2) @ up)[:, :, 0]

    def _segments(
        self, poses: dict[str, NDArray[np.float64]], arm: Sequence[Capsule]
    ) -> tuple[Points, Points, NDArray[np.float64]]:
        begin = np.stack([_at(poses, capsule.begin) for capsule in arm], axis=1)
        end = np.stack([_at(poses, capsule.end) for capsule in arm], axis=1)
        return begin, end, np.array([capsule.radius for capsule in arm])


def _tool(arm: ArmShape) -> Place:
    return Place(arm.tool.link, np.array(arm.tool.point))


def _capsules(arm: ArmShape) -> list[Capsule]:
    def place(link: str) -> Place:
        return _tool(arm) if link == "tool" else Place(link, np.zeros(3))

    return [Capsule(place(capsule.begin), place(capsule.end), capsule.radius) for capsule in arm.capsules]


def _at(poses: dict[str, NDArray[np.float64]], place: Place) -> Points:
    pose = poses[place.link]
    return pose[:, :3, :3] @ place.point + pose[:, :3, 3]


def segment_distance(a0: Points, a1: Points, b0: Points, b1: Points) -> NDArray[np.float64]:
    """Distance [...] between segments a0-a1 and b0-b1 [..., 3] that have a length (Ericson 2005, section 5.1.9)."""
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    uu, vv, uv = _dot(u, u), _dot(v, v), _dot(u, v)
    uw, vw = _dot(u, w), _dot(v, w)
    determinant = uu * vv - uv * uv
    # Parallel segments: any s will do, 0 is used; then the best t for it, then the best s for that t.
    s = np.where(determinant > 1e-12, (uv * vw - uw * vv) / np.maximum(determinant, 1e-12), 0.0).clip(0, 1)
    t = ((uv * s + vw) / vv).clip(0, 1)
    s = ((uv * t - uw) / uu).clip(0, 1)
    between = w + s[..., None] * u - t[..., None] * v
    return np.sqrt(_dot(between, between))


def _dot(a: Points, b: Points) -> NDArray[np.float64]:
    return np.einsum("...i,...i->...", a, b)
