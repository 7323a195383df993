"""The typed form of config/r1lite.yaml: topics, joints, units, limits and cameras of the robot."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from ament_index_python.packages import get_package_share_directory
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from galaxea_r1lite_bridge.robot.kinematics import Kinematics
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

Topic = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$")]
ImageType = Literal["sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"]
Unit = Literal["rad", "mm"]

_RAD_TOLERANCE = 1e-9  # the YAML may repeat a hardware limit to its last printed digit


class Qos(StrictModel):
    """Quality of service of one direction; history is always KEEP_LAST."""

    reliability: Literal["best_effort", "reliable"]
    depth: PositiveInt


class QosProfiles(StrictModel):
    """Quality of service towards the robot's own software."""

    sensor: Qos
    target: Qos


class Limits(StrictModel):
    """Limits of one group, one entry a joint: position [lower, upper], velocity and acceleration, in its unit and s."""

    position: list[tuple[float, float]]
    velocity: list[PositiveFloat]
    acceleration: list[PositiveFloat]

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        for index, (lower, upper) in enumerate(self.position):
            if not lower < upper:
                raise ValueError(f"position[{index}] must be [lower, upper] with lower < upper, got [{lower}, {upper}]")
        return self


class JointGroup(StrictModel):
    """Joints that share one feedback and one target topic."""

    unit: Unit
    joints: list[str] = Field(min_length=1)
    feedback: Topic
    target: Topic | None = None
    limits: Limits | None = None

    @model_validator(mode="after")
    def _lengths(self) -> JointGroup:
        if self.target is not None and self.limits is None:
            raise ValueError("limits: required for a group with a target")
        for key in ("position", "velocity", "acceleration"):
            if self.limits is not None and len(getattr(self.limits, key)) != len(self.joints):
                raise ValueError(
                    f"limits.{key}: needs one entry for each of the {len(self.joints)} joints, "
                    f"got {len(getattr(self.limits, key))}"
                )
        return self


class Camera(StrictModel):
    """One camera stream."""

    topic: Topic
    type: ImageType


class Interfaces(StrictModel):
    """Topics between our own nodes."""

    action_chunk: Topic
    policy_status: Topic
    bridge_status: Topic


class RobotConfig(StrictModel):
    """The whole of config/r1lite.yaml. Load it with :meth:`load`, which also checks it against the URDF."""

    robot_type: str
    urdf: str
    qos: QosProfiles
    groups: dict[str, JointGroup]
    cameras: dict[str, Camera]
    interfaces: Interfaces
    recorded_prefix: Topic

    @model_validator(mode="after")
    def _unique(self) -> RobotConfig:
        topics = [group.feedback for group in self.groups.values()]
        topics += [group.target for group in self.groups.values() if group.target]
        topics += [camera.topic for camera in self.cameras.values()]
        joints = [joint for group in self.groups.values() for joint in group.joints]
        for kind, values in (("topic", topics), ("joint", joints)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{kind} named more than once: {', '.join(twice)}")
        if not self.commanded:
            raise ValueError("groups: at least one group needs a target")
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> RobotConfig:
        """Read and check the file at `path`, by default the installed config/r1lite.yaml.

        Raises:
            ConfigError: with one line for each wrong key.
        """
        path = path or share_directory() / "config" / "r1lite.yaml"
        config = load_yaml(path, cls)
        kinematics = config.kinematics()
        for name, group in config.groups.items():
            for index, joint in enumerate(group.joints):
                hardware = kinematics.limits.get(joint)
                if group.unit != "rad":
                    continue
                if hardware is None:
                    raise ConfigError(
                        f"{path.name}: groups.{name}.joints[{index}]: {joint} is not a joint of {config.urdf}"
                    )
                if group.limits is None:
                    continue
                lower, upper = group.limits.position[index]
                if lower < hardware[0] - _RAD_TOLERANCE or upper > hardware[1] + _RAD_TOLERANCE:
                    raise ConfigError(
                        f"{path.name}: groups.{name}.limits.position[{index}]: [{lower}, {upper}] rad must lie inside "
                        f"the hardware limits [{hardware[0]}, {hardware[1]}] rad of {joint} in {config.urdf}"
                    )
        return config

    @property
    def urdf_path(self) -> Path:
        """The URDF that `urdf` names in the installed package."""
        return share_directory() / "urdf" / self.urdf

    def kinematics(self) -> Kinematics:
        """Kinematics from the robot's URDF."""
        return Kinematics.from_urdf(self.urdf_path)

    def urdf_positions(self, group: str, positions: NDArray[np.float64]) -> dict[str, float]:
        """URDF joint name to rad or m for a group's positions; a gripper's stroke is halved between its fingers."""
        if self.groups[group].unit == "rad":
            return dict(zip(self.groups[group].joints, positions.tolist(), strict=True))
        opening = float(positions[0]) / 2000.0
        finger = f"{self.groups[group].joints[0]}_finger_joint"
        return {f"{finger}1": opening, f"{finger}2": -opening}

    @cached_property
    def commanded(self) -> dict[str, JointGroup]:
        """Groups with a target, in the order of the state and action vector."""
        return {name: group for name, group in self.groups.items() if group.target is not None}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each commanded group lies in the state and action vector."""
        result, start = {}, 0
        for name, group in self.commanded.items():
            result[name] = slice(start, start + len(group.joints))
            start += len(group.joints)
        return result

    @cached_property
    def joint_names(self) -> list[str]:
        """Names of the state and action vector's entries."""
        return [joint for group in self.commanded.values() for joint in group.joints]

    @cached_property
    def units(self) -> list[Unit]:
        """Unit of each entry of the state and action vector."""
        return [group.unit for group in self.commanded.values() for _ in group.joints]

    @cached_property
    def position_limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper position limit, each [D], in rad and mm."""
        rows = np.array([pair for group in self.commanded.values() for pair in group.limits.position], np.float64)  # type: ignore[union-attr]
        return rows[:, 0], rows[:, 1]

    @cached_property
    def velocity_limits(self) -> NDArray[np.float64]:
        """Velocity limit [D] in rad/s and mm/s."""
        return np.array([v for group in self.commanded.values() for v in group.limits.velocity], np.float64)  # type: ignore[union-attr]

    @cached_property
    def acceleration_limits(self) -> NDArray[np.float64]:
        """Acceleration limit [D] in rad/s^2 and mm/s^2."""
        return np.array([a for group in self.commanded.values() for a in group.limits.acceleration], np.float64)  # type: ignore[union-attr]


def share_directory() -> Path:
    """Where this package's config/ and urdf/ are installed."""
    return Path(get_package_share_directory("galaxea_r1lite_bridge"))


def joint_positions(values: object, count: int) -> NDArray[np.float64] | None:
    """Return the first `count` positions of a joint message, or None where they are too few or not finite.

    The vendor's arm messages may carry a 7th entry and empty names, so entries are taken by place.
    """
    positions = np.asarray(values, np.float64)[:count]
    if len(positions) < count or not all(map(math.isfinite, positions)):
        return None
    return positions
