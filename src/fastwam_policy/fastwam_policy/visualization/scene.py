"""Where the arms are, and where a chunk leads them: tool paths and capsules in the workspace's frame. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        self._robot = robot
        torso = [joint for group in robot.standing.values() for joint in group.joints]
        self._angular = robot.is_arm
        joints = [name for name, arm in zip(robot.joint_names, self._angular, strict=True) if arm]
        self._kinematics = robot.kinematics().batch(robot.workspace_links, [*torso, *joints], robot.workspace.frame)

    def tool_paths(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Points between the fingertips [N, 3] by arm, for positions [N, D] and the torso's joints [3]."""
        poses = self._poses(positions, torso)
        arms = self._robot.workspace.arms.items()
        return {name: self._at(poses[arm.tool.link], arm.tool.point) for name, arm in arms}

    def bars(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> list[Bar]:
        """The capsules that keep the arms apart, for positions [D]."""
        poses = self._poses(positions[None], torso)
        found = []
        for arm in self._robot.workspace.arms.values():
            for capsule in arm.capsules:
                ends = []
                for link in (capsule.begin, capsule.end):
                    tool = link == "tool"
                    pose = poses[arm.tool.link if tool else link]
                    ends.append(self._at(pose, arm.tool.point if tool else (0.0, 0.0, 0.0))[0])
                found.append(Bar(ends[0], ends[1], capsule.radius))
        return found

    def _poses(self, positions: NDArray[np.float64], torso: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        rows = np.broadcast_to(torso, (len(positions), len(torso)))
        return self._kinematics.poses(np.concatenate([rows, positions[:, self._angular]], axis=1))

    @staticmethod
    def _at(poses: NDArray[np.float64], point: tuple[float, ...]) -> NDArray[np.float64]:
        return poses[:, :3, :3] @ np.array(point) + poses[:, :3, 3]
