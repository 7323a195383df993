"""Forward kinematics of a tree of revolute, prismatic and fixed joints, read from a URDF."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
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
                _origin(element.find("origin")),
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


def _attribute(element: ElementTree.Element, child: str, name: str, default: str = "") -> str:
    found = element.find(child)
    return default if found is None else found.attrib.get(name, default)


def _vector(text: str) -> NDArray[np.float64]:
    return np.array([float(part) for part in text.split()])


def _origin(element: ElementTree.Element | None) -> Transform:
    transform = np.eye(4)
    if element is not None:
        roll, pitch, yaw = _vector(element.attrib.get("rpy", "0 0 0"))
        transform[:3, :3] = (
            _rotation(np.array([0.0, 0.0, 1.0]), yaw)
            @ _rotation(np.array([0.0, 1.0, 0.0]), pitch)
            @ _rotation(np.array([1.0, 0.0, 0.0]), roll)
        )
        transform[:3, 3] = _vector(element.attrib.get("xyz", "0 0 0"))
    return transform


def _motion(joint: _Joint, position: float) -> Transform:
    transform = np.eye(4)
    if joint.kind == "revolute":
        transform[:3, :3] = _rotation(joint.axis, position)
    elif joint.kind == "prismatic":
        transform[:3, 3] = joint.axis * position
    return transform


def _rotation(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula for a unit `axis` and `angle` in rad."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
