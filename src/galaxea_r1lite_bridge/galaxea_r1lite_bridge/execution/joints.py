"""The order of the D numbers of a command: the joints that a policy moves, then the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig


@dataclass(frozen=True)
class Joints:
    """The robot's joints in the order of a command.

    Attributes:
        names: of those that a policy moves: the columns of a chunk, and the first entries of a command.
        every_name: of all of them [D].
        groups: place of each joint group.
        angular: [D], joints in rad; a gripper is in mm.
        home: start pose [D], rad and mm.
    """

    names: Sequence[str]
    every_name: Sequence[str]
    groups: Mapping[str, slice]
    angular: NDArray[np.bool_]
    home: NDArray[np.float64]

    @classmethod
    def of(cls, robot: RobotConfig) -> Joints:
        """All groups of a robot."""
        groups = robot.actuated.values()
        return cls(
            robot.joint_names,
            [joint for group in groups for joint in group.joints],
            robot.actuated_slices,
            np.array([group.unit == "rad" for group in groups for _ in group.joints]),
            np.array([value for group in groups for value in group.home], np.float64),
        )

    @property
    def policy(self) -> slice:
        """Place of what a policy moves."""
        return slice(0, len(self.names))

    @property
    def torso(self) -> slice:
        """Place of what no policy moves: it moves to the start pose on request, and stands still otherwise."""
        return slice(len(self.names), len(self.home))

    def group_of(self, values: NDArray[np.float64]) -> str:
        """Name of the group with the largest of `values` [D]."""
        index = int(values.argmax())
        return next(group for group, place in self.groups.items() if place.start <= index < place.stop)
