"""Where the arms are, and where a chunk leads them: tool paths and capsules in the workspace's frame. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.workspace import Nearest, Workspace
from galaxea_r1lite_bridge.robot.config import RobotConfig


@dataclass(frozen=True)
class Bar:
    """A piece of an arm: a cylinder between two points [3], m."""

    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: float


class ArmGeometry:
    """Tool points and shapes of both arms from joint positions in the order of `robot.joint_names`."""

    def __init__(self, robot: RobotConfig) -> None:
        self._workspace = Workspace(robot)
        self._body = self._workspace.body
        self._tools = dict(zip(robot.workspace.arms, self._body.tools, strict=True))
        self._shapes = np.flatnonzero((self._body.arms >= 0) & (self._body.radii > 0))

    def tool_paths(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Points between the fingertips [N, 3] by arm, for positions [N, D] and the torso's joints [3]."""
        placed = self._body.place(_with_torso(positions, torso))
        return {arm: placed.begin[:, :, tool].T for arm, tool in self._tools.items()}

    def bars(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> list[Bar]:
        """The capsules of both arms, for positions [D]."""
        placed = self._body.place(_with_torso(positions[None], torso))
        ends = (placed.begin[:, 0].T, placed.end[:, 0].T)
        return [Bar(ends[0][k], ends[1][k], float(self._body.radii[k])) for k in self._shapes]

    def nearest(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> Nearest:
        """The two bodies that the bridge keeps apart and that are nearest to each other, for positions [D]."""
        return self._workspace.nearest(_with_torso(positions[None], torso)[0])


def _with_torso(positions: NDArray[np.float64], torso: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([positions, np.broadcast_to(torso, (len(positions), len(torso)))], axis=1)
