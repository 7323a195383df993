"""What scripted experts have in common: both arms' inverse kinematics, and the motions that plans are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.plan import minimum_jerk
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import BatchKinematics

STEP = 1 / 15  # s between two targets
OPENED = 70.0  # mm of stroke before something is grasped, and after
ABOVE = 0.10  # m of the tool over the table, on its way to and from things
_DAMPING, _TURN_WEIGHT = 0.02, 0.1  # of the inverse kinematics
_ITERATIONS, _LONGEST = 12, 0.25  # rad, largest step of one iteration
_GRIP_TIME, _HOME_TIME = 0.35, 1.3  # s
_MISS = 0.01  # m by which a waypoint may be missed
_MARGIN = 0.02  # rad to the joint limits
_DIFFERENCE = 1e-5  # rad
_PITCH = ((0.28, np.deg2rad(82)), (0.72, np.deg2rad(42)))  # x of the tool and how steeply the gripper looks down
# Next to the torso an arm that reaches towards the middle looks back, so that its elbow stays clear of it.
_BACK = ((0.12, 0.0), (0.24, np.deg2rad(33)))  # m inwards from the tool's y at home, and how much steeper, rad
_BACK_NEAR = (0.38, 0.50)  # x of the tool up to which it does so, and from which on not at all


class UnreachableError(ValueError):
    """Something lies where the arms cannot do what is to be done with it."""


@dataclass(frozen=True)
class Arm:
    """Inverse kinematics of one arm with the torso in its start pose; `beside` is y of its tool at home."""

    kinematics: BatchKinematics
    link: str
    point: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    torso: NDArray[np.float64]
    beside: float

    def forward(self, joints: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tool point [K, 3] and orientation of the gripper [K, 3, 3] for joints [K, 6].

        Columns of the latter: where it looks, along its fingers' motion, and the third.
        """
        torso = np.broadcast_to(self.torso, (len(joints), len(self.torso)))
        pose = self.kinematics.poses(np.concatenate([torso, joints], axis=1))[self.link]
        return pose[:, :3, :3] @ self.point + pose[:, :3, 3], pose[:, :3, :3]

    def solve(
        self, goal: NDArray[np.float64], axes: NDArray[np.float64], start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joints [6] near `start` that bring the tool to `goal` [3] and turn the gripper.

        Damped least squares from `start`; `axes` [N, 3] are the first columns of its orientation.
        """
        joints = start.copy()
        for _ in range(_ITERATIONS):
            around = joints + np.concatenate([np.zeros((1, 6)), _DIFFERENCE * np.eye(6)])
            points, turns = self.forward(around)
            errors, slopes = [goal - points[0]], [points[1:] - points[0]]
            for k, axis in enumerate(axes):
                errors.append(_TURN_WEIGHT * (axis - turns[0, :, k]))
                slopes.append(_TURN_WEIGHT * (turns[1:, :, k] - turns[0, :, k]))
            error, jacobian = np.concatenate(errors), np.concatenate(slopes, axis=1).T / _DIFFERENCE
            square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(len(error))
            step = jacobian.T @ np.linalg.solve(square, error)
            step *= min(1.0, _LONGEST / max(1e-9, np.abs(step).max()))
            joints = np.clip(joints + step, self.lower + _MARGIN, self.upper - _MARGIN)
        return joints


class Expert:
    """Plans a task; the plan is a table of targets, one row a step of 1/15 s.

    Raises:
        UnreachableError: a waypoint is out of reach by more than 1 cm.
    """

    def __init__(self, robot: RobotConfig, thing: str) -> None:
        """`thing` is what the error names."""
        self._robot, self._thing = robot, thing
        names = [joint for group in robot.standing.values() for joint in group.joints]
        torso = np.array([value for group in robot.standing.values() for value in group.home])
        self._arms: dict[str, Arm] = {}
        for arm, shape in robot.workspace.arms.items():
            limits = robot.groups[arm].limits
            lower, upper = np.array(limits.position).T
            batch = robot.kinematics().batch([shape.tool.link], [*names, *robot.groups[arm].joints])
            solver = Arm(batch, shape.tool.link, np.array(shape.tool.point), lower, upper, torso, 0.0)
            home = solver.forward(robot.home[None, robot.slices[arm]])[0][0]
            self._arms[arm] = replace(solver, beside=float(home[1]))

    def _line(
        self, start: NDArray[np.float64], goals: dict[str, NDArray[np.float64]], seconds: float,
        facing: NDArray[np.float64] | None = None,
    ) -> list[NDArray[np.float64]]:  # fmt: skip
        """Rows after `start` [D] on which the tools of these arms go straight to their goals [3]."""
        steps = round(seconds / STEP)
        paths = {arm: minimum_jerk(self._tool(arm, start), goal, steps) for arm, goal in goals.items()}
        return self._follow(start, paths, facing)

    def _follow(
        self, start: NDArray[np.float64], paths: dict[str, NDArray[np.float64]],
        facing: NDArray[np.float64] | None = None,
    ) -> list[NDArray[np.float64]]:  # fmt: skip
        """Rows after `start` [D] on which the tools follow equally long paths [K, 3], which begin where they are.

        Meanwhile the grippers turn to look as :func:`look_at` says, or to `facing` [2, 3]: where they look, and along
        their fingers' motion.
        """
        rows, row = [], start
        steps = len(next(iter(paths.values()))) - 1
        turned = minimum_jerk(np.zeros(1), np.ones(1), steps)[:, 0]
        count = 1 if facing is None else len(facing)
        begins = {arm: self._arms[arm].forward(start[None, self._robot.slices[arm]])[1][0].T[:count] for arm in paths}
        for step in range(1, steps + 1):
            row = row.copy()
            for arm, path in paths.items():
                place, goal = self._robot.slices[arm], path[step]
                end = look_at(goal, self._arms[arm].beside)[None] if facing is None else facing
                axes = (1 - turned[step]) * begins[arm] + turned[step] * end
                axes = np.array([axis / np.linalg.norm(axis) for axis in axes])
                row[place] = self._arms[arm].solve(goal, axes, row[place])
                missed = float(np.linalg.norm(self._tool(arm, row) - goal))
                if missed > _MISS:
                    place_text = ", ".join(f"{value:.2f}" for value in goal)
                    raise UnreachableError(
                        f"the {self._thing} is out of reach: {arm} misses ({place_text}) m by {100 * missed:.1f} cm"
                    )
            rows.append(row)
        return rows

    def _grip(self, start: NDArray[np.float64], arms: Iterable[str], stroke: float) -> list[NDArray[np.float64]]:
        """Rows after `start` [D] on which the grippers of these arms go to a stroke, mm."""
        goal = start.copy()
        for arm in arms:
            self._set_gripper(goal, arm, stroke)
        return [*minimum_jerk(start, goal, round(_GRIP_TIME / STEP))[1:], goal]

    def _home(self, start: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Rows after `start` [D] to the start pose."""
        return list(minimum_jerk(start, self._robot.home, round(_HOME_TIME / STEP))[1:])

    def _set_gripper(self, row: NDArray[np.float64], arm: str, stroke: float) -> None:
        row[self._robot.slices[arm.replace("_arm", "_gripper")]] = stroke

    def _tool(self, arm: str, row: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._arms[arm].forward(row[None, self._robot.slices[arm]])[0][0]


def look_at(tool: NDArray[np.float64], beside: float) -> NDArray[np.float64]:
    """Direction the gripper looks in at a place: steeply down near the robot, flatter further away."""
    (near, steep), (far, flat) = _PITCH
    (begin, none), (end, full) = _BACK
    inwards = (beside - tool[1]) * np.sign(beside)
    back = np.interp(inwards, [begin, end], [none, full]) * np.interp(tool[0], _BACK_NEAR, [1, 0])
    pitch = np.interp(tool[0], [near, far], [steep, flat]) + back
    return np.array([np.cos(pitch), 0.0, -np.sin(pitch)])
