"""The typed form of config/r1lite.yaml: topics, joints, units, limits and cameras of the robot."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from galaxea_r1lite_bridge.robot import share
from galaxea_r1lite_bridge.robot.joint_gate import JointGate, JointMapping, Unit
from galaxea_r1lite_bridge.robot.kinematics import Kinematics
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

Topic = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*$")]
MessageType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*/msg/[A-Za-z0-9]+$")]
ImageType = Literal["sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"]

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
    """Limits of one group, one entry a joint: position [lower, upper], velocity and acceleration, in its unit and s.

    `step` is the largest distance of a command from the measured position; left out, there is no such limit.
    """

    position: list[tuple[float, float]]
    velocity: list[PositiveFloat]
    acceleration: list[PositiveFloat]
    step: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        for index, (lower, upper) in enumerate(self.position):
            if not lower < upper:
                raise ValueError(f"position[{index}] must be [lower, upper] with lower < upper, got [{lower}, {upper}]")
        return self


class JointGroup(StrictModel):
    """Joints that share one feedback and one target topic.

    A group that is `moved_by` the policy is part of the state and action vector; one moved by `home` is only moved to
    its start pose, on request. `messages` says how the robot's messages name and measure the joints, where not as here.
    `takeover` is the topic on which a person's input comes, in the same form, who takes the policy's place.
    """

    unit: Unit
    joints: list[str] = Field(min_length=1)
    feedback: Topic
    target: Topic
    takeover: Topic | None = None
    moved_by: Literal["policy", "home"] = "policy"
    home: list[float]
    limits: Limits
    messages: JointMapping = JointMapping()

    @model_validator(mode="after")
    def _lengths(self) -> JointGroup:
        lists = {f"limits.{key}": getattr(self.limits, key) for key in ("position", "velocity", "acceleration", "step")}
        for key, values in {**lists, "home": self.home}.items():
            if values is not None and len(values) != len(self.joints):
                raise ValueError(f"{key}: needs one entry for each of the {len(self.joints)} joints, got {len(values)}")
        for index, (value, (lower, upper)) in enumerate(zip(self.home, self.limits.position, strict=True)):
            if not lower <= value <= upper:
                raise ValueError(f"home[{index}]: {value} must lie inside limits.position[{index}], [{lower}, {upper}]")
        if self.takeover is not None and self.moved_by != "policy":
            raise ValueError("takeover: a person takes over what the policy moves; leave it out here")
        try:
            self.messages.check(self.unit, len(self.joints))
        except ValueError as error:
            raise ValueError(f"messages.{error}") from None
        return self


class Mount(StrictModel):
    """Where a camera is: at the origin of a link, which it looks along as an optical frame (z ahead, y down)."""

    link: str
    field_of_view: Annotated[float, Field(gt=0, lt=180)]
    """Degrees, vertical."""


class Camera(StrictModel):
    """One camera stream."""

    topic: Topic
    type: ImageType
    dataset_key: str
    """Its name in the datasets of the vendor's converter."""
    moves_with: str | None = None
    """The arm that carries it; None: it stands, and sees all arms."""
    mount: Mount | None = None
    """For the simulator, which renders no camera without it."""


class DriverErrors(StrictModel):
    """Topics on which the robot's drivers report errors, and their message type, which may not be installed."""

    type: MessageType
    topics: list[Topic]


class Base(StrictModel):
    """The mobile base, which is only ever told to stand still."""

    target: Topic
    type: Literal["geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"]


Coordinates = tuple[float, float, float]


class ToolPoint(StrictModel):
    """A point of a link, m in the link's frame."""

    link: str
    point: Coordinates


class CapsuleConfig(StrictModel):
    """All points of a link within `radius` m of the line between two points in the link's frame."""

    begin: Coordinates
    end: Coordinates
    radius: PositiveFloat


class ArmShape(StrictModel):
    """What is special about an arm."""

    tool: ToolPoint


class Margins(StrictModel):
    """Least distance between surfaces that are not the same body's, m."""

    arms: NonNegativeFloat
    """From one arm to the other."""
    own_arm: NonNegativeFloat
    """From an arm's link to another one of its own."""
    body: NonNegativeFloat
    """From an arm to torso, head and base."""
    table: NonNegativeFloat
    """From an arm's link to the table plane."""
    fingertips: float = Field(ge=-0.05)
    """From a finger to the table plane: 0 lets it touch, less lets it press on it."""


class WorkspaceConfig(StrictModel):
    """Where the grippers may be and how close the robot's bodies may come to each other; m in `frame`."""

    frame: str
    table_height: float
    box: tuple[Coordinates, Coordinates]
    margins: Margins
    arms: dict[str, ArmShape] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _ordered(self) -> WorkspaceConfig:
        for axis, low, high in zip("xyz", *self.box, strict=True):
            if not low < high:
                raise ValueError(f"box: the first corner must be the lower one, got {axis} from {low} to {high}")
        return self


class Interfaces(StrictModel):
    """Topics and services between our own nodes."""

    action_chunk: Topic
    policy_status: Topic
    bridge_status: Topic
    policy_identity: Topic
    command: Topic
    estop: Topic
    heartbeat: Topic
    task_success: Topic
    simulation: Topic
    markers: Topic
    predicted_path: Topic
    imagination: Topic
    reset: Topic
    arm: Topic
    stop: Topic
    home: Topic
    home_torso: Topic
    takeover: Topic
    run_task: Topic


class LimitArrays(NamedTuple):
    """Limits of several groups, each [D] in rad and mm (and per s); `step` is infinite where there is none."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    velocity: NDArray[np.float64]
    acceleration: NDArray[np.float64]
    step: NDArray[np.float64]


class RobotConfig(StrictModel):
    """The whole of config/r1lite.yaml. Load it with :meth:`load`, which also checks it against the URDF."""

    robot_type: str
    urdf: str
    qos: QosProfiles
    groups: dict[str, JointGroup]
    cameras: dict[str, Camera]
    driver_errors: DriverErrors
    base: Base
    workspace: WorkspaceConfig
    body: dict[str, list[CapsuleConfig]]
    """What each link occupies; written by ``fastwam fit-body``."""
    interfaces: Interfaces
    recorded_prefix: Topic
    recorded_only: dict[Topic, MessageType]
    """Type of each topic that is recorded where that type is installed, and not used otherwise."""

    @model_validator(mode="after")
    def _unique(self) -> RobotConfig:
        topics = [group.feedback for group in self.groups.values()]
        topics += [group.target for group in self.groups.values()]
        topics += [group.takeover for group in self.groups.values() if group.takeover is not None]
        topics += [camera.topic for camera in self.cameras.values()]
        topics += self.recorded_only
        joints = [joint for group in self.groups.values() for joint in group.joints]
        for kind, values in (("topic", topics), ("joint", joints)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{kind} named more than once: {', '.join(twice)}")
        if not self.commanded:
            raise ValueError("groups: at least one group must be moved_by the policy")
        if unknown := [name for name in self.workspace.arms if name not in self.commanded]:
            raise ValueError(f"workspace.arms: {unknown[0]} is not one of the groups that the policy moves")
        for name, camera in self.cameras.items():
            if camera.moves_with is not None and camera.moves_with not in self.workspace.arms:
                arms = ", ".join(self.workspace.arms)
                raise ValueError(f"cameras.{name}.moves_with: {camera.moves_with} is not one of the arms {arms}")
        return self

    def digest(self) -> str:
        """Hash of all that the file says and of its URDF: where it is equal, work may be continued."""
        return hashlib.sha256(self.model_dump_json().encode() + self.urdf_path.read_bytes()).hexdigest()[:12]

    @classmethod
    def load(cls, path: str | Path | None = None) -> RobotConfig:
        """Read and check the file at `path`; None or empty: the installed config/r1lite.yaml.

        Raises:
            ConfigError: with one line for each wrong key.
        """
        path = Path(path or share_directory() / "config" / "r1lite.yaml")
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
                lower, upper = group.limits.position[index]
                if lower < hardware[0] - _RAD_TOLERANCE or upper > hardware[1] + _RAD_TOLERANCE:
                    raise ConfigError(
                        f"{path.name}: groups.{name}.limits.position[{index}]: [{lower}, {upper}] rad must lie inside "
                        f"the hardware limits [{hardware[0]}, {hardware[1]}] rad of {joint} in {config.urdf}"
                    )
        for name, camera in config.cameras.items():
            if camera.mount is not None and camera.mount.link not in kinematics.links:
                raise ConfigError(
                    f"{path.name}: cameras.{name}.mount.link: {camera.mount.link} is not a link of {config.urdf}"
                )
        tools = {f"workspace.arms.{name}.tool.link": arm.tool.link for name, arm in config.workspace.arms.items()}
        for key, link in {**tools, **{f"body.{link}": link for link in config.body}}.items():
            try:
                kinematics.joints_above(link, config.workspace.frame)
            except KeyError:
                raise ConfigError(
                    f"{path.name}: {key}: {link} is not a link of {config.urdf} below {config.workspace.frame}"
                ) from None
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
    def reach(self) -> dict[str, NDArray[np.float64]]:
        """Range of each joint of a group, [joints, 2]: the URDF's, or the limits here of what that does not have."""
        hardware, (lower, upper, *_) = self.kinematics().limits, limit_arrays(self.actuated)
        ranges = np.stack([lower, upper], axis=1)
        for joint, (column, moved) in self.urdf_columns().items():
            if joint in hardware:
                ranges[column] = sorted(limit / moved for limit in hardware[joint])
        return {name: ranges[place] for name, place in self.actuated_slices.items()}

    def gate(self, group: str, mapping: JointMapping) -> JointGate:
        """Reads and writes the numbers of a group for those who say it like that."""
        about = self.groups[group]
        return JointGate(about.joints, about.unit, self.reach[group], mapping)

    @cached_property
    def gates(self) -> dict[str, JointGate]:
        """The gate of each group for the robot's messages, and for recordings of them."""
        return {name: self.gate(name, group.messages) for name, group in self.groups.items()}

    @cached_property
    def commanded(self) -> dict[str, JointGroup]:
        """Groups that the policy moves, in the order of the state and action vector."""
        return {name: group for name, group in self.groups.items() if group.moved_by == "policy"}

    @cached_property
    def mounts(self) -> dict[str, Mount]:
        """Where the cameras are of which that is known."""
        return {name: camera.mount for name, camera in self.cameras.items() if camera.mount is not None}

    @cached_property
    def standing(self) -> dict[str, JointGroup]:
        """Groups that the policy does not move: the torso."""
        return {name: group for name, group in self.groups.items() if group.moved_by != "policy"}

    @cached_property
    def actuated(self) -> dict[str, JointGroup]:
        """All groups: those that the policy moves, then the others."""
        return self.commanded | self.groups

    def urdf_columns(self) -> dict[str, tuple[int, float]]:
        """By URDF joint its column in the positions of all groups, and what one unit there is in rad or m."""
        found: dict[str, tuple[int, float]] = {}
        for name, place in self.actuated_slices.items():
            if self.groups[name].unit == "rad":
                found |= {joint: (place.start + k, 1.0) for k, joint in enumerate(self.groups[name].joints)}
            else:
                found |= {joint: (place.start, moved) for joint, moved in self.urdf_positions(name, np.ones(1)).items()}
        return found

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each commanded group lies in the state and action vector."""
        return _places(self.commanded)

    @cached_property
    def actuated_slices(self) -> dict[str, slice]:
        """Where each group lies in the bridge's command, which begins with the state and action vector."""
        return _places(self.actuated)

    @cached_property
    def joint_names(self) -> list[str]:
        """Names of the state and action vector's entries."""
        return [joint for group in self.commanded.values() for joint in group.joints]

    @cached_property
    def units(self) -> list[Unit]:
        """Unit of each entry of the state and action vector."""
        return [group.unit for group in self.commanded.values() for _ in group.joints]

    @cached_property
    def is_arm(self) -> NDArray[np.bool_]:
        """Whether each entry [D] of the state and action vector is an arm's joint, in rad; a gripper's is in mm."""
        return np.array([unit == "rad" for unit in self.units])

    @cached_property
    def home(self) -> NDArray[np.float64]:
        """Start pose [D] of the state and action vector, rad and mm."""
        return np.array([value for group in self.commanded.values() for value in group.home], np.float64)


def limit_arrays(groups: Mapping[str, JointGroup]) -> LimitArrays:
    """Limits of all joints of `groups`, one after the other."""
    position = [pair for group in groups.values() for pair in group.limits.position]
    velocity = [value for group in groups.values() for value in group.limits.velocity]
    acceleration = [value for group in groups.values() for value in group.limits.acceleration]
    step = [value for group in groups.values() for value in group.limits.step or [math.inf] * len(group.joints)]
    lower, upper = np.array(position, np.float64).T
    return LimitArrays(lower, upper, *(np.array(values, np.float64) for values in (velocity, acceleration, step)))


def _places(groups: Mapping[str, JointGroup]) -> dict[str, slice]:
    result, start = {}, 0
    for name, group in groups.items():
        result[name] = slice(start, start + len(group.joints))
        start += len(group.joints)
    return result


def share_directory() -> Path:
    """Where this package's config/ and urdf/ are installed."""
    return share.share_directory("galaxea_r1lite_bridge")
