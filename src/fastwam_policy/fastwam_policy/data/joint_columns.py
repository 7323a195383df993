"""Which numbers of a LeRobot dataset are which joint's, by the names in its info.json, and in which unit.

A dataset that names or measures the joints in another way than the robot file says so in `meta/joints.yaml`, by joint
group: `left_gripper: {names: [left_gripper_open], range: [0, 1]}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import RootModel

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping, JointsRefusedError, places
from galaxea_r1lite_bridge.robot.joint_motion import oddities
from galaxea_r1lite_bridge.robot.joint_units import check_units
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, load_yaml

PREFIXES = ("observation.state", "action")
_FILE = "joints.yaml"  # in meta/


class _Mappings(RootModel[dict[str, JointMapping]]):
    """By joint group."""


class JointColumns:
    """The columns of state and action in a dataset.

    Attributes:
        names: of the columns that are read.

    Raises:
        ConfigError: keys, shapes or names do not fit the robot; lists what was expected and what is there.
    """

    def __init__(self, folder: Path, features: Mapping[str, Any], robot: RobotConfig) -> None:
        self._robot, self._remedy = robot, f"{folder / 'meta' / _FILE}, such as `left_gripper: {{range: [0, 1]}}`"
        self._folder, mappings = folder, _mappings(folder, robot)
        self._gates = {name: robot.gate(name, mappings.get(name, JointMapping())) for name in robot.commanded}
        self._declared = {name for name, mapping in mappings.items() if mapping.unit is not None}
        self._parts = {prefix: self._find(prefix, features) for prefix in PREFIXES}
        self.names = sorted({column for parts in self._parts.values() for column, _ in parts})

    def vectors(
        self, columns: Mapping[str, NDArray[np.float32]], source: str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """State and action [T, D] in the order and units of the robot's vector, out of the columns [T, numbers].

        Raises:
            ConfigError: numbers that are not finite, or contradict their unit; names them and `source`.
        """
        found: list[NDArray[np.float32]] = []
        for prefix, parts in self._parts.items():
            values = np.concatenate([columns[column][:, order] for column, order in parts], axis=1)
            if not np.isfinite(values).all():
                row, place = np.argwhere(~np.isfinite(values))[0]
                name = self._robot.joint_names[place]
                raise ConfigError(f"{source}: {prefix} of {name} is not finite in frame {row}")
            for name, place in self._robot.slices.items():
                values[:, place] = self._gates[name].rows(values[:, place])
            found.append(values)
        self.check(found[0], found[1], source, units_only=True)
        return found[0], found[1]

    def check(
        self, state: NDArray[np.float32], action: NDArray[np.float32], source: str, *, units_only: bool = False
    ) -> None:
        """ConfigError where state and action [T, D] cannot be this robot's; see :func:`check_units`."""
        measured, target = self._by_group(state, action)
        check_units(self._robot, measured, target, source, self._remedy, self._declared, units_only=units_only)

    def oddities(self, state: NDArray[np.float32], action: NDArray[np.float32]) -> Iterator[str]:
        """What is odd about the rows of state and action [T, D]; see :func:`oddities`."""
        return oddities(self._robot, *self._by_group(state, action))

    def _by_group(self, *sides: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
        return ({name: values[:, place] for name, place in self._robot.slices.items()} for values in sides)

    def _find(self, prefix: str, features: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
        """Columns that make up a vector, and which of their numbers, in the robot's order."""
        keys = {f"{prefix}.{name}": gate for name, gate in self._gates.items()}
        if all(key in features for key in keys):
            return [(key, self._order(key, features[key], gate.names)) for key, gate in keys.items()]
        joints = [joint for gate in self._gates.values() for joint in gate.names]
        if prefix not in features:
            missing = ", ".join(key for key in keys if key not in features)
            raise ConfigError(
                f"{self._folder}: needs the keys {missing}, or {prefix} with the names of the robot's joints; it has: "
                f"{', '.join(features)}"
            )
        if element_names(features[prefix]) is None:
            raise ConfigError(
                f"{self._folder}: {prefix} has the shape {features[prefix].get('shape')} and no names of its numbers: "
                f"expected the names of {len(joints)} joints, {', '.join(joints)}"
            )
        return [(prefix, self._order(prefix, features[prefix], joints))]

    def _order(self, key: str, feature: Mapping[str, Any], joints: Sequence[str]) -> list[int]:
        """Places of the joints among a feature's numbers: by their names, or where it has none, in order."""
        names, shape = element_names(feature), feature.get("shape")
        if names is None:
            if shape not in (None, [len(joints)]):
                raise ConfigError(
                    f"{self._folder}: {key} has the shape {shape} and no names of its numbers: expected "
                    f"[{len(joints)}], {', '.join(joints)}"
                )
            return list(range(len(joints)))
        if shape not in (None, [len(names)]):
            raise ConfigError(
                f"{self._folder}: {key} has the shape {shape}, but {len(names)} names: {', '.join(names)}"
            )
        try:
            return places(names, joints)
        except JointsRefusedError as error:
            raise ConfigError(f"{self._folder}: {key}: {error}. Other names can be given in {self._remedy}") from None


def element_names(feature: Mapping[str, Any]) -> list[str] | None:
    """Names of a feature's numbers in their order, None where it has none.

    They come as a list, a list in a list, a mapping of one or more lists, or from name to place. A single name for
    several numbers is that of the axis.
    """
    names = feature.get("names")
    if isinstance(names, dict) and names and all(type(place) is int for place in names.values()):
        names = sorted(names, key=names.__getitem__) if sorted(names.values()) == list(range(len(names))) else []
    elif isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list) and names and all(isinstance(part, list) for part in names):
        names = [name for part in names for name in part]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return None if len(names) == 1 and feature.get("shape") not in (None, [1]) else names


def _mappings(folder: Path, robot: RobotConfig) -> dict[str, JointMapping]:
    """What the dataset says of its joint groups, where it does."""
    path = folder / "meta" / _FILE
    mappings = load_yaml(path, _Mappings, aliases=False).root if path.exists() else {}
    if unknown := [name for name in mappings if name not in robot.commanded]:
        raise ConfigError(f"{path}: the robot has no joint group {unknown[0]}; it has {', '.join(robot.commanded)}")
    for name, mapping in mappings.items():
        try:
            mapping.check(robot.groups[name].unit, len(robot.groups[name].joints))
        except ValueError as error:
            raise ConfigError(f"{path}: {name}.{error}") from None
    return mappings
