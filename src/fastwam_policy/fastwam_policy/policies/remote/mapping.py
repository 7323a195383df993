"""The mapping file: what a policy that is not ours calls and measures as, one YAML for each; see config/policies/."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

ProtocolName = Literal[
    "openpi", "vllm-omni", "lingbot-va", "galaxea", "xpolicylab", "gr00t", "openvla", "openvla-oft"
]  # fmt: skip
Kind = Literal["absolute", "delta", "delta_stepwise"]
Side = Annotated[int, Field(ge=1, le=4096)]
Constant = str | int | float | bool | None | list[str] | list[float]

_FLAT: tuple[ProtocolName, ...] = ("gr00t", "lingbot-va")  # a dot is part of their keys
_TASK = "{task}"


class ImageMapping(StrictModel):
    """A picture of the request.

    Attributes:
        camera: ours.
        layout: of its axes.
        size: [height, width]; left out, the camera's.
        fit: how it gets that size: with black borders, with other proportions, or cut.
    """

    camera: str
    layout: Literal["HWC", "CHW"] = "HWC"
    size: tuple[Side, Side] | None = None
    fit: Literal["pad", "stretch", "crop"] = "pad"


class Part(StrictModel):
    """Some numbers of the state or the action: a group of the robot's joints, or `channels` that are not the robot's.

    Attributes:
        group: of the robot file.
        channels: names of the numbers, where they are none of its joints.
        key: where the parts are arrays of their own, this one's name below the state's or action's key.
        joints: the group's joints in another order than the robot file's.
        unit, range, sign: as :class:`JointMapping` has them; range: what is sent at the joint's lower and upper end.
        kind: of the action, where it is not as the others.
    """

    group: str | None = None
    channels: list[str] | None = Field(None, min_length=1)
    key: str = ""
    joints: list[str] | None = None
    unit: Literal["rad", "deg", "mm", "m", "opaque"] | None = None
    range: tuple[float, float] | None = None
    sign: Literal[1, -1] | list[Literal[1, -1]] = 1
    kind: Kind | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return {"group": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_kind(self) -> Part:
        if (self.group is None) == (self.channels is None):
            raise ValueError("needs either group or channels")
        if self.channels is not None and (self.joints or self.range or self.sign != 1 or self.unit == "deg"):
            raise ValueError("channels: joints, range, sign and deg are for a group of the robot")
        if self.group is not None:
            if self.unit == "opaque":
                raise ValueError("unit: a group of the robot has rad, deg, mm or m")
            self.gate()
        return self

    def gate(self) -> JointMapping:
        """How the others measure the joints of the group."""
        unit = None if self.unit == "opaque" else self.unit
        return JointMapping(unit=unit, range=self.range, sign=self.sign)

    @property
    def name(self) -> str:
        """For errors."""
        return self.group or ", ".join(self.channels or [])


class StateMapping(StrictModel):
    """Where the joints stand: one array with all parts one after the other, or an array for each."""

    key: str = "state"
    parts: list[Part] = Field(min_length=1)


class ActionMapping(StrictModel):
    """What a reply holds.

    Attributes:
        key: as the state's; empty: the reply is the array, or its parts are named at the top.
        parts: as the state's where left out.
        kind: absolute; delta: to the observed position; delta_stepwise: to the step before.
        fps: steps a second.
        horizon: steps of a chunk; a reply of another length is refused.
    """

    key: str = "actions"
    parts: list[Part] = Field([])
    kind: Kind = "absolute"
    fps: Annotated[PositiveFloat, Field(le=1000)]
    horizon: Annotated[PositiveInt, Field(le=4096)]


class PromptMapping(StrictModel):
    """The task in words; `default` is the one where none is given."""

    key: str = "prompt"
    template: str = _TASK
    default: str = "fold the towel"

    @model_validator(mode="after")
    def _has_a_place(self) -> PromptMapping:
        if _TASK not in self.template:
            raise ValueError(f"template: needs {_TASK} where the task goes, got {self.template!r}")
        return self

    def text(self, task: str) -> str:
        """The prompt for a task."""
        return self.template.replace(_TASK, task)


class Mapping(StrictModel):
    """The whole file. A dot in a key enters a map in a map, except with gr00t and lingbot-va; a slash is part of it.

    Attributes:
        nested: gr00t from N1.6 on: `video`, `state` and `language` are maps, whose arrays have an axis of time as well.
        constants: further keys of each request, and their values.
        key_frame_steps: lingbot-va: steps between the frames that are sent back after a chunk.
        timeout_s: for an answer; `first_timeout_s`: for the first one of a server, which may compile.
        robot: robot file whose groups and cameras are meant; relative to this file. Left out: the installed one.
    """

    protocol: ProtocolName
    nested: bool = False
    images: dict[str, ImageMapping] = Field({})
    state: StateMapping | None = None
    action: ActionMapping
    prompt: PromptMapping | None = PromptMapping()
    constants: dict[str, Constant] = Field({})
    key_frame_steps: PositiveInt = 1
    timeout_s: PositiveFloat = 5.0
    first_timeout_s: PositiveFloat = 300.0
    robot: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Mapping:
        if self.nested and self.protocol != "gr00t":
            raise ValueError("nested: is for gr00t")
        if not self.action_parts:
            raise ValueError("action.parts: needed where there is no state")
        for name, parts in (("state", self.state.parts if self.state else []), ("action", self.action_parts)):
            if len({bool(part.key) for part in parts}) > 1:
                raise ValueError(f"{name}.parts: all have a key, or none has")
        for one, other in combinations(sorted(self._keys()), 2):
            if one == other or self.path(other)[: len(self.path(one))] == self.path(one):
                raise ValueError(f"the key {other} is used for two things, or inside {one}")
        return self

    def path(self, key: str) -> list[str]:
        """The names by which a key is reached, from the outermost map on."""
        if self.nested:
            return key.split(".", 1)
        return [key] if self.protocol in _FLAT else key.split(".")

    @property
    def axes(self) -> int:
        """Leading axes of length 1: of samples, and of time."""
        return 1 + self.nested if self.protocol == "gr00t" else 0

    @property
    def action_parts(self) -> list[Part]:
        """The action's, or the state's."""
        return self.action.parts or (self.state.parts if self.state else [])

    def _keys(self) -> list[str]:
        keys = [*self.images, *self.constants, *([self.prompt.key] if self.prompt else [])]
        if self.state is not None:
            separate = [joined(self.state.key, part.key) for part in self.state.parts if part.key]
            keys += separate or [self.state.key]
        return keys


def joined(key: str, part: str) -> str:
    """Where a part's array is."""
    return ".".join(filter(None, (key, part)))


def load_mapping(path: Path) -> tuple[Mapping, RobotConfig]:
    """A mapping file, and the robot that it is about.

    Raises:
        ConfigError: one line for each key that is wrong, or names what the robot does not have.
    """
    mapping = load_yaml(path, Mapping)
    robot = RobotConfig.load(path.parent / mapping.robot if mapping.robot else None)
    problems = [
        f"images.{key}.camera: the robot has no camera {image.camera}; it has {', '.join(robot.cameras)}"
        for key, image in mapping.images.items()
        if image.camera not in robot.cameras
    ]
    parts = {f"state.parts[{k}]": part for k, part in enumerate(mapping.state.parts if mapping.state else [])}
    parts |= {f"action.parts[{k}]": part for k, part in enumerate(mapping.action.parts)}
    for key, part in parts.items():
        if part.group is None:
            continue
        if part.group not in robot.commanded:
            problems.append(f"{key}: the robot has no group {part.group}; it has {', '.join(robot.commanded)}")
            continue
        joints = robot.groups[part.group].joints
        try:
            part.gate().check(robot.groups[part.group].unit, len(joints))
        except ValueError as error:
            problems.append(f"{key}.{error}")
        if part.joints is not None and sorted(part.joints) != sorted(joints):
            problems.append(f"{key}.joints: must be {', '.join(joints)} in some order, got {', '.join(part.joints)}")
    if problems:
        raise ConfigError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return mapping, robot
