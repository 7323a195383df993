"""Whether a policy fits a robot, and knows an instruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from fastwam_policy.policies.base import PolicyInfo
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_units import contradictions
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_STROKE: Final = 0.5  # mm: a gripper that is closed all the time moves by less, and tells no unit


def check_robot(info: PolicyInfo, robot: RobotConfig, source: str) -> None:
    """Refuse a policy that this robot's bridge cannot execute, or cannot feed.

    The bridge takes absolute targets of all the joints that it commands, in rad and mm.

    Raises:
        ConfigError: one line for each joint, unit or camera that differs, also in the unit of its training data.
    """
    problems = []
    if info.robot_type and info.robot_type != robot.robot_type:
        problems.append(f"it was made for the robot {info.robot_type}, this is a {robot.robot_type}")
    if info.action_kind != "absolute":
        problems.append(f"action: {info.action_kind} actions; the bridge takes absolute targets only")
    unit_of = dict(zip(robot.joint_names, robot.units, strict=True))
    for kind, channels in (("state", info.state), ("action", info.action)):
        names = [channel.name for channel in channels]
        problems += [f"{kind}: {name} is not a commanded joint of the robot" for name in names if name not in unit_of]
        problems += [f"{kind}: {name} comes {count} times" for name, count in Counter(names).items() if count > 1]
        if kind == "action":  # a policy need not look at every joint, but the bridge needs a target for each
            problems += [f"{kind}: the robot's {name} is missing" for name in unit_of if name not in names]
        problems += [
            f"{kind}: {channel.name} is in {channel.unit}, the robot uses {unit_of[channel.name]}"
            for channel in channels
            if channel.name in unit_of and unit_of[channel.name] != channel.unit
        ]
    problems += [f"training data: {text}" for text in _other_units(info, robot)]
    problems += [
        f"cameras: the robot has no camera {camera.name}; it has {', '.join(robot.cameras)}"
        for camera in info.cameras
        if camera.required and camera.name not in robot.cameras
    ]
    if problems:
        raise ConfigError(f"{source} does not fit the robot:\n  " + "\n  ".join(problems))


def _other_units(info: PolicyInfo, robot: RobotConfig) -> Iterator[str]:
    """Joint groups whose training data had another unit, as far as the policy says where its joints were."""
    band = {channel.name: bounds for channel, bounds in zip(info.state, info.state_band, strict=False)}
    if not set(robot.joint_names) <= band.keys():
        return
    groups = {name: np.array([band[joint] for joint in group.joints]).T for name, group in robot.commanded.items()}
    closed = {name for name, values in groups.items() if np.ptp(values) < _STROKE}
    yield from contradictions(robot, groups, groups, closed, units_only=True)


def check_instruction(info: PolicyInfo, instruction: str, source: str) -> None:
    """Refuse an instruction that the policy does not know; white space does not matter.

    Raises:
        ConfigError: names the instructions that it knows.
    """
    if info.instructions is None:
        return
    if " ".join(instruction.split()) not in info.instructions:
        raise ConfigError(
            f"{source}: does not know the instruction '{instruction}', but: {'; '.join(info.instructions) or 'none'}. "
            f"`fastwam encode-prompt` adds one to a bundle"
        )
