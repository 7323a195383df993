"""A policy's numbers by joint group, for protocols with an array for each of `left_arm`, `left_gripper` and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import ActionChunk, PolicyInfo
from fastwam_policy.policies.remote.server.requests import read_numbers
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


class Groups:
    """The groups of the robot file that a policy knows.

    Args:
        info: of the policy.
        robot: whose groups they are.
        mapping: how a protocol measures a group of that unit.

    Attributes:
        state: names of the groups whose joints the policy looks at.
        action: names of the groups that it moves.

    Raises:
        ConfigError: the policy knows a part of a group only, or joints of no group.
    """

    def __init__(self, info: PolicyInfo, robot: RobotConfig, mapping: Callable[[str], JointMapping]) -> None:
        self._joints = {name: group.joints for name, group in robot.commanded.items()}
        self._gates = {name: robot.gate(name, mapping(group.unit)) for name, group in robot.commanded.items()}
        self._columns = [channel.name for channel in info.action]
        self.state = self._whole([channel.name for channel in info.state], info.name)
        self.action = self._whole(self._columns, info.name)

    def _whole(self, names: list[str], policy: str) -> list[str]:
        found = [group for group, joints in self._joints.items() if {*joints} & {*names}]
        known = {joint for group in found for joint in self._joints[group]}
        if known != {*names}:
            raise ConfigError(
                f"{policy}: this protocol sends whole joint groups of the robot file ({', '.join(self._joints)}); "
                f"the policy's joints differ by {', '.join(sorted(known ^ {*names}))}. Serve it with --protocol openpi"
            )
        return found

    def read(self, given: Mapping[str, Any], key: Callable[[str], str], place: str) -> dict[str, float]:
        """Position by joint name out of an array [joints] for each group of the state, under its `key`."""
        joints: dict[str, float] = {}
        for group in self.state:
            names, where = self._joints[group], f"{place}{key(group)}"
            if key(group) not in given:
                raise ValueError(f"{where}: missing")
            value = given[key(group)]
            flat = value.reshape(-1) if isinstance(value, np.ndarray) else value
            numbers = read_numbers(flat, (len(names),), where)
            joints |= dict(zip(names, self._gates[group].rows(numbers).tolist(), strict=True))
        return joints

    def write(self, chunk: ActionChunk) -> dict[str, NDArray[np.float64]]:
        """A chunk's targets [H, joints] by group."""
        columns = {
            name: chunk.actions[:, [self._columns.index(joint) for joint in self._joints[name]]] for name in self.action
        }
        return {name: self._gates[name].write(values) for name, values in columns.items()}
