"""Forward kinematics of a tree of revolute, prismatic and fixed joints, read from a URDF."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_SLIDE = 0.1  # m that a prismatic joint moves at most

Transform = NDArray[np.float64]  # [4, 4], maps child coordinates to parent coordinates


@dataclass(frozen=True)
class _Joint:
    name: str
    kind: str
    parent: str
    origin: Transform
    axis: NDArray[np.float64]


class Kinematics:
    """Poses of links for given joint positions. Lengths in m, angles in rad, frames as in the URDF (REP-103)."""

    def __init__(self, joint_of_link: Mapping[str, _Joint], limits: Mapping[str, tuple[float, float]]) -> None:
        self._joint_of_link = dict(joint_of_link)
        self.limits = dict(limits)
        """Hardware position limits of each movable joint: rad, or m where prismatic."""
        self.links = {*joint_of_link, *(joint.parent for joint in joint_of_link.values())}
        """Names of all links."""

    @classmethod
    def from_urdf(cls, path: Path) -> Kinematics:
        """Read a URDF file.

        Raises:
            ConfigError: the file is missing, not XML, or uses a joint type other than fixed, revolute or prismatic.
        """
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise ConfigError(f"{path}: cannot be read as URDF: {error}") from error
        joints: dict[str, _Joint] = {}
        limits: dict[str, tuple[float, float]] = {}
        for element in root.iterfind("joint"):
            name, kind = element.attrib["name"], element.attrib["type"]
            if kind not in ("fixed", "revolute", "prismatic"):
                raise ConfigError(f"{path.name}: joint {name} has type {kind}; known are fixed, revolute and prismatic")
            joints[_attribute(element, "child", "link")] = _Joint(
                name,
                kind,
                _attribute(element, "parent", "link"),
                origin(element.find("origin")),
                _vector(_attribute(element, "axis", "xyz", "1 0 0")),
            )
            if kind != "fixed":
                limits[name] = (
                    float(_attribute(element, "limit", "lower")),
                    float(_attribute(element, "limit", "upper")),
                )
        return cls(joints, limits)

    def pose(self, link: str, positions: Mapping[str, float], base: str = "base_link") -> Transform:
        """Pose [4, 4] of `link` in `base`.

        Args:
            link: a link of the URDF.
            positions: joint name to rad (revolute) or m (prismatic); a joint that is not named stands at 0.
            base: an ancestor of `link`.

        Raises:
            KeyError: `link` is not in the URDF, or `base` is not above it.
        """
        transform = np.eye(4)
        while link != base:
            joint = self._joint_of_link[link]
            transform = joint.origin @ _motion(joint, positions.get(joint.name, 0.0)) @ transform
            link = joint.parent
        return transform

    def joints_above(self, link: str, base: str = "base_link") -> list[str]:
        """Names of the movable joints between `base` and `link`, the one next to the link first.

        Raises:
            KeyError: `link` is not in the URDF, or `base` is not above it.
        """
        found = []
        while link != base:
            joint = self._joint_of_link[link]
            if joint.kind != "fixed":
                found.append(joint.name)
            link = joint.parent
        return found

    def batch(
        self, links: Sequence[str], joints: Sequence[str] | Mapping[str, tuple[int, float]], base: str = "base_link"
    ) -> BatchKinematics:
        """The same for many positions at once and only these `links`, for use in a control loop.

        Args:
            links: links whose poses are wanted.
            joints: joint of each column of the positions; or by joint its column, and what one unit there is in rad
                or m. Joints that are not named stand at 0.
            base: an ancestor of all `links`.

        Raises:
            KeyError: a link is not in the URDF, or `base` is not above it.
        """
        columns = joints if isinstance(joints, Mapping) else {name: (k, 1.0) for k, name in enumerate(joints)}
        frames = _Frames(self._joint_of_link, columns, base)
        places = {link: frames.place(link) for link in links}
        return BatchKinematics(frames, places)


class _Frames:
    """The moving frames of a tree: what is fixed to each other shares one. Frame 0 is the base."""

    def __init__(
        self, joint_of_link: Mapping[str, _Joint], columns: Mapping[str, tuple[int, float]], base: str
    ) -> None:
        self._joint_of_link, self._columns = joint_of_link, columns
        self._places: dict[str, tuple[int, Transform]] = {base: (0, np.eye(4))}
        self.moving: list[tuple[int, Transform, _Joint, int, float]] = []
        """Parent, pose in it, joint, column and scale of each frame but the base."""

    def place(self, link: str) -> tuple[int, Transform]:
        """The frame that a link is fixed to, and its pose there."""
        if link not in self._places:
            joint = self._joint_of_link[link]
            frame, pose = self.place(joint.parent)
            pose = pose @ joint.origin
            if joint.kind != "fixed" and joint.name in self._columns:
                self.moving.append((frame, pose, joint, *self._columns[joint.name]))
                frame, pose = len(self.moving), np.eye(4)
            self._places[link] = frame, pose
        return self._places[link]


class BatchKinematics:
    """Poses of some links for a batch of joint positions. Made by :meth:`Kinematics.batch`."""

    def __init__(self, frames: _Frames, places: Mapping[str, tuple[int, Transform]]) -> None:
        moving, depth = frames.moving, [0]
        depth += [0] * len(moving)
        for index, (parent, *_) in enumerate(moving, start=1):
            depth[index] = depth[parent] + 1
        order = sorted(range(len(depth)), key=depth.__getitem__)  # stable: a level after the other, the base first
        rank = {frame: place for place, frame in enumerate(order)}
        moving = [moving[frame - 1] for frame in order[1:]]
        self._parents = np.array([rank[parent] for parent, *_ in moving], int)
        firsts = [sum(1 for d in depth if d < level) for level in range(1, max(depth) + 2)]
        self._levels = [
            (_selection(self._parents[first - 1 : end - 1]), first, end) for first, end in itertools.pairwise(firsts)
        ]
        """Frames that are moved by the same number of others: the parents of each, and their numbers."""
        self._columns = np.array([column for *_, column, _ in moving], int)
        self._scales = np.array([scale for *_, scale in moving]).reshape(-1, 1)
        poses = np.array([pose for _, pose, *_ in moving]).reshape(-1, 4, 4)
        axes = np.array([joint.axis for _, _, joint, *_ in moving]).reshape(-1, 3)
        turns = np.array([joint.kind == "revolute" for _, _, joint, *_ in moving], bool)
        cross = np.array([_cross(axis) for axis in axes]).reshape(-1, 3, 3)
        cross[~turns] = 0.0
        turned = poses[:, :3, :3] @ cross
        slides = poses[:, :3, :3] @ np.where(turns[:, None], 0.0, axes)[:, :, None]
        # Pose of a frame in its parent: 1, sin(q), 1 - cos(q) and q times these
        self._parts = np.zeros((len(moving), 4, 4, 4))
        self._parts[:, 0] = poses
        self._parts[:, 1, :3, :3] = turned
        self._parts[:, 2, :3, :3] = turned @ cross
        self._parts[:, 3, :3, 3] = slides[:, :, 0]
        self._slides = ~turns
        self._axes = {joint.name: (place, joint.axis) for place, (_, _, joint, *_) in enumerate(moving, start=1)}
        self._places = {link: (rank[frame], pose) for link, (frame, pose) in places.items()}

    def place(self, link: str) -> tuple[int, Transform]:
        """The moving frame that one of the links is fixed to, counted as in :meth:`frames`, and its pose there."""
        return self._places[link]

    def chain(self, frame: int) -> list[int]:
        """A frame and all that it moves in, the base last."""
        return [frame, *self.chain(int(self._parents[frame - 1]))] if frame else [0]

    def reach(self, frames: NDArray[np.int_], distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Furthest from the origin of each frame [F] that anything carried by it can be, m.

        Args:
            frames: that each of N things is fixed to.
            distances: of each from that frame's origin, m.
        """
        reach = np.zeros(1 + len(self._parents))
        np.maximum.at(reach, frames, distances)
        lengths = np.linalg.norm(self._parts[:, 0, :3, 3], axis=1) + _SLIDE * self._slides
        for frame in range(len(reach) - 1, 0, -1):  # a frame comes after the one it moves in
            parent = self._parents[frame - 1]
            reach[parent] = max(reach[parent], lengths[frame - 1] + reach[frame])
        return reach

    def levers(self, reach: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
        """Furthest that one unit of each column of the positions moves anything, m, for the `reach` [F] of frames."""
        moved = np.abs(self._scales[:, 0]) * np.where(self._slides, 1.0, reach[1:])
        levers = np.zeros(columns)
        np.maximum.at(levers, self._columns, moved)
        return levers

    def frames(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pose [F, K, 4, 4] of every moving frame, the base first, for `positions` [K, joints]."""
        moved = positions.T[self._columns] * self._scales
        shares = np.empty((*moved.shape, 4))
        shares[..., 0], shares[..., 1], shares[..., 2], shares[..., 3] = 1.0, np.sin(moved), 1 - np.cos(moved), moved
        local = (shares @ self._parts.reshape(-1, 4, 16)).reshape(*moved.shape, 4, 4)
        frames = np.empty((1 + len(local), *local.shape[1:]))
        frames[0] = np.eye(4)
        for parents, first, end in self._levels:
            np.matmul(frames[parents], local[first - 1 : end - 1], out=frames[first:end])
        return frames

    def turning(self, joints: Sequence[str]) -> Turning:
        """The axes of some revolute `joints`."""
        frames, axes = zip(*(self._axes[joint] for joint in joints), strict=True) if joints else ((), ())
        return Turning(np.array(frames, int), np.array(axes).reshape(-1, 3))

    def poses(self, positions: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Pose [K, 4, 4] of every wanted link, for `positions` [K, joints] in rad (and m)."""
        frames = self.frames(positions)
        return {link: frames[frame] @ pose for link, (frame, pose) in self._places.items()}


@dataclass(frozen=True)
class Turning:
    """Axes of revolute joints.

    Attributes:
        frames: the moving frame [J] that each joint moves.
        axes: its axis [J, 3] there.
    """

    frames: NDArray[np.int_]
    axes: NDArray[np.float64]

    def moved(self, frames: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far a rad of each joint moves `points` [..., 3, 1, K] that it carries, to first order, [..., 3, J, K].

        `frames` [F, K, 4, 4] are the poses of all moving frames.
        """
        poses = frames[self.frames, :, :3]
        x, y, z = np.moveaxis(points - poses[..., 3].transpose(2, 0, 1), -3, 0)
        a, b, c = (poses[..., :3] @ self.axes[:, None, :, None])[..., 0].transpose(2, 0, 1)
        return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-3)


def _selection(numbers: NDArray[np.int_]) -> slice | NDArray[np.int_]:
    """What selects these rows of an array, or one row for all: a slice where there is one, which copies nothing."""
    first, steps = int(numbers[0]), np.diff(numbers)
    if not steps.any():
        return slice(first, first + 1)
    return slice(first, first + len(numbers)) if (steps == 1).all() else numbers


def _attribute(element: ElementTree.Element, child: str, name: str, default: str = "") -> str:
    found = element.find(child)
    return default if found is None else found.attrib.get(name, default)


def _vector(text: str) -> NDArray[np.float64]:
    return np.array([float(part) for part in text.split()])


def origin(element: ElementTree.Element | None) -> Transform:
    """Transform [4, 4] of a URDF `origin` element; the identity where there is none."""
    transform = np.eye(4)
    if element is not None:
        transform[:3, :3] = rpy_rotation(_vector(element.attrib.get("rpy", "0 0 0")))
        transform[:3, 3] = _vector(element.attrib.get("xyz", "0 0 0"))
    return transform


def rpy_rotation(rpy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix [3, 3] of roll, pitch and yaw about fixed axes, rad."""
    roll, pitch, yaw = (axis_rotation(axis, angle) for axis, angle in zip(np.eye(3), rpy, strict=True))
    return yaw @ pitch @ roll


def _motion(joint: _Joint, position: float) -> Transform:
    transform = np.eye(4)
    if joint.kind == "revolute":
        transform[:3, :3] = axis_rotation(joint.axis, position)
    elif joint.kind == "prismatic":
        transform[:3, 3] = joint.axis * position
    return transform


def axis_rotation(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula for a unit `axis` and `angle` in rad."""
    cross = _cross(axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _cross(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = axis
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
