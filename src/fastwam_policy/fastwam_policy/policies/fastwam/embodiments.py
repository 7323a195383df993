"""What the pictures and numbers of a checkpoint belong to: a robot of ours, or that of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastwam_policy.policies.fastwam.canvas import LIBERO, ROBOTWIN, Layout
from fastwam_policy.policies.fastwam.normalizer import Normalization
from fastwam_policy.policies.fastwam.vector import Vector
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


@dataclass(frozen=True)
class Embodiment:
    """A body that checkpoints are trained for.

    Attributes:
        robot_type: its name.
        layout: canvas of its cameras.
        state: numbers of its state, and how they are normalised.
        action: numbers of its actions.
        fps: steps a second.
        instruction: a task of it.
        seed: of the noise that each chunk is made from.
    """

    robot_type: str
    layout: Layout
    state: Vector
    action: Vector
    fps: float
    instruction: str
    seed: int = 0


def _libero() -> Embodiment:
    """Franka Panda: pose of the end effector, axis-angle, and its two fingers; differences for its pose controller."""
    axes = ("x", "y", "z", "rx", "ry", "rz")
    state = [*(f"eef_{axis}" for axis in axes), "finger_left", "finger_right"]
    action = [*(f"delta_{axis}" for axis in axes), "gripper"]
    return Embodiment(
        "libero",
        LIBERO,
        Vector(names=state, units=["opaque"] * len(state), normalization="min_max"),
        Vector(
            names=action, units=["opaque"] * len(action), normalization="min_max", kind="delta", toggled=["gripper"]
        ),
        20.0,
        "pick up the alphabet soup and place it in the basket",
        _OFFICIAL_SEED,
    )


def _robotwin() -> Embodiment:
    """Two arms of the aloha-agilex: joint targets; grippers from 0, closed, to 1, open, and never binarised."""
    names = [
        f"{side}_{part}" for side in ("left", "right") for part in (*(f"joint{k}" for k in range(1, 7)), "gripper")
    ]
    vector = Vector(
        names=names,
        units=["opaque" if name.endswith("gripper") else "rad" for name in names],
        normalization="z-score",
    )
    # A frame is stored every 15 steps of 1/250 s.
    return Embodiment("robotwin", ROBOTWIN, vector, vector, 250 / 15, "pick up the red cup", _OFFICIAL_SEED)


_OFFICIAL_SEED = 42
BENCHMARKS = {"libero": _libero(), "robotwin": _robotwin()}
"""Those of the published checkpoints, as the authors' evaluation feeds them."""


def of_robot(
    robot: RobotConfig, groups: Sequence[str], normalization: Normalization, fps: float, instruction: str
) -> Embodiment:
    """A robot of ours, whose joint `groups` come in this order; ConfigError where it has no such group."""
    if unknown := [group for group in groups if group not in robot.commanded]:
        raise ConfigError(f"groups: the robot has no {', '.join(unknown)}; it has {', '.join(robot.commanded)}")
    joints = [joint for group in groups for joint in robot.groups[group].joints]
    units = [robot.groups[group].unit for group in groups for _ in robot.groups[group].joints]
    vector = Vector(names=joints, units=list(units), normalization=normalization)
    return Embodiment(robot.robot_type, ROBOTWIN, vector, vector, fps, instruction)
