"""Forward kinematics of a tree of revolute, prismatic and fixed joints, read from a URDF."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

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

    def batch(self, links: Sequence[str], joints: Sequence[str], base: str = "base_link") -> BatchKinematics:
        """The same for many positions at once and only these `links`, for use in a control loop.

        Args:
            links: links whose poses are wanted.
            joints: joint of each column of the positions; joints that are not named stand at 0.
            base: an ancestor of all `links`.

        Raises:
            KeyError: a link is not in the URDF, or `base` is not above it.
        """
        order: list[str] = []
        for link in links:
            chain = []
            while link != base and link not in order:
                chain.append(link)
                link = self._joint_of_link[link].parent
            order += reversed(chain)
        return BatchKinematics([(link, self._joint_of_link[link]) for link in order], joints, base)


class BatchKinematics:
    """Poses of some links for a batch of joint positions. Made by :meth:`Kinematics.batch`."""

    def __init__(self, tree: Sequence[tuple[str, _Joint]], joints: Sequence[str], base: str) -> None:
        self._tree = [(link, joint.parent) for link, joint in tree]
        self._base = base
        self._origins = np.array([joint.origin for _, joint in tree])
        moving = [i for i, (_, joint) in enumerate(tree) if joint.kind == "revolute" and joint.name in joints]
        self._moving = np.array(moving, int)
        self._columns = np.array([list(joints).index(tree[i][1].name) for i in moving], int)
        self._cross = np.array([_cross(tree[i][1].axis) for i in moving]).reshape(-1, 3, 3)
        self._cross_squared = self._cross @ self._cross

    def poses(self, positions: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Pose [K, 4, 4] of every link on the way to the wanted ones, for `positions` [K, joints] in rad."""
        local = np.broadcast_to(self._origins, (len(positions), *self._origins.shape)).copy()
        angles = positions[:, self._columns, None, None]
        turn = np.eye(3) + np.sin(angles) * self._cross + (1 - np.cos(angles)) * self._cross_squared
        local[:, self._moving, :3, :3] = local[:, self._moving, :3, :3] @ turn
        poses = {self._base: np.broadcast_to(np.eye(4), (len(positions), 4, 4))}
        for index, (link, parent) in enumerate(self._tree):
            poses[link] = local[:, index] if parent == self._base else poses[parent] @ local[:, index]
        return poses


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
