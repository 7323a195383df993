"""Whose numbers and pictures a dataset holds: those of a robot that a robot file describes, or of a benchmark's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.data.joint_columns import PREFIXES, element_names
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

WHOLE: Final = "all"
"""The one group of a body whose numbers come in no groups."""


@dataclass(frozen=True)
class Body:
    """What a dataset's state, action and pictures are of.

    Attributes:
        robot_type: its name.
        state: names of the measured numbers, by group, in order.
        action: names of the commanded ones.
        cameras: by name, that of its pictures in a dataset.
    """

    robot_type: str
    state: Mapping[str, Sequence[str]]
    action: Mapping[str, Sequence[str]]
    cameras: Mapping[str, str]

    @classmethod
    def of(cls, robot: RobotConfig | Body) -> Body:
        """That of a robot: what it commands it also measures."""
        if isinstance(robot, Body):
            return robot
        joints = {name: group.joints for name, group in robot.commanded.items()}
        keys = {name: camera.dataset_key for name, camera in robot.cameras.items()}
        return cls(robot.robot_type, joints, joints, keys)

    @classmethod
    def plain(cls, robot_type: str, state: Sequence[str], action: Sequence[str], cameras: Sequence[str]) -> Body:
        """One without groups, whose cameras have the same names everywhere."""
        return cls(robot_type, {WHOLE: state}, {WHOLE: action}, dict(zip(cameras, cameras, strict=True)))

    @property
    def state_names(self) -> list[str]:
        """Of the whole state, in order."""
        return [name for group in self.state.values() for name in group]

    @property
    def action_names(self) -> list[str]:
        """Of the whole action, in order."""
        return [name for group in self.action.values() for name in group]


class NamedColumns:
    """The columns `observation.state` and `action`, of which numbers are taken by their names, as they are.

    It stands in for :class:`JointColumns` where no robot file says what the numbers can be.

    Attributes:
        names: of the columns that are read.

    Raises:
        ConfigError: a column or number is missing; lists what is there.
    """

    def __init__(self, folder: Path, features: Mapping[str, Any], body: Body) -> None:
        self.names, self._orders = list(PREFIXES), dict[str, list[int]]()
        for prefix, wanted in zip(PREFIXES, (body.state_names, body.action_names), strict=True):
            if prefix not in features:
                raise ConfigError(f"{folder}: needs the key {prefix}; it has: {', '.join(features)}")
            known, shape = element_names(features[prefix]) or [], features[prefix].get("shape")
            if shape not in (None, [len(known)]):
                raise ConfigError(
                    f"{folder}: {prefix} has the shape {shape}, but {len(known)} names: {', '.join(known) or 'none'}"
                )
            if missing := [name for name in wanted if known.count(name) != 1]:
                raise ConfigError(
                    f"{folder}: {prefix}: expected each of {', '.join(wanted)} once; {missing[0]} is not there once "
                    f"among its names: {', '.join(known) or 'none'}"
                )
            self._orders[prefix] = [known.index(name) for name in wanted]

    def vectors(
        self, columns: Mapping[str, NDArray[np.float32]], source: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """State and action [T, D] in the body's order; ConfigError where a number is not finite."""
        found = []
        for prefix, order in self._orders.items():
            values = columns[prefix][:, order]
            if not np.isfinite(values).all():
                raise ConfigError(f"{source}: {prefix} is not finite in row {np.argwhere(~np.isfinite(values))[0, 0]}")
            found.append(values)
        return found[0], found[1]

    def check(self, state: NDArray[np.float32], action: NDArray[np.float32], source: str) -> None:
        """Any finite numbers will do."""

    def oddities(self, state: NDArray[np.float32], action: NDArray[np.float32]) -> Iterator[str]:
        """Nothing is known that could be odd."""
        return iter(())
