"""Make an executor for a robot: from the typed configuration to the parts of this folder."""

from __future__ import annotations

import numpy as np

from galaxea_r1lite_bridge.execution.blending import Plan
from galaxea_r1lite_bridge.execution.executor import Executor, ExecutorConfig
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.workspace import Capsule, Place, Workspace
from galaxea_r1lite_bridge.robot.config import ArmShape, RobotConfig, limit_arrays


def make_executor(robot: RobotConfig, config: ExecutorConfig, plan: Plan) -> Executor:
    """Executor with the robot's limits, start pose and workspace."""
    groups = robot.actuated
    return Executor(
        config,
        Limiter(*limit_arrays(groups)),
        robot.joint_names,
        robot.actuated_slices,
        np.array([group.unit == "rad" for group in groups.values() for _ in group.joints]),
        plan,
        np.array([value for group in groups.values() for value in group.home], np.float64),
        make_workspace(robot),
    )


def make_workspace(robot: RobotConfig) -> Workspace:
    """Workspace limits over the positions of all the robot's groups."""
    config = robot.workspace
    joints = [joint for group in robot.actuated.values() for joint in group.joints]
    first, second = config.arms.values()
    return Workspace(
        robot.kinematics().batch(robot.workspace_links, joints, config.frame),
        [_tool(arm) for arm in config.arms.values()],
        config.table_height,
        np.array(config.box),
        (_capsules(first), _capsules(second)),
        config.min_arm_distance,
        [np.arange(place.start, place.stop) for place in (robot.actuated_slices[name] for name in config.arms)],
    )


def _tool(arm: ArmShape) -> Place:
    return Place(arm.tool.link, np.array(arm.tool.point))


def _capsules(arm: ArmShape) -> list[Capsule]:
    def place(link: str) -> Place:
        return _tool(arm) if link == "tool" else Place(link, np.zeros(3))

    return [Capsule(place(capsule.begin), place(capsule.end), capsule.radius) for capsule in arm.capsules]
