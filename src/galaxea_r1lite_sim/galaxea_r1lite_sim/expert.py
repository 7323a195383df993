"""A scripted fold with both arms: the near corners onto the far ones, by inverse kinematics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.plan import minimum_jerk
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import BatchKinematics

STEP = 1 / 15  # s between two targets
_CLOSED, _OPENED = 0.0, 70.0  # mm of stroke
_ABOVE, _GRASP = 0.10, 0.012  # m of the tool over the table
_NEAR, _FAR = 0.03, 0.15  # m from a corner: next to it, and so far that the way takes its full time
_SHORTEST = 0.3  # of a segment's full time
_DAMPING, _TURN_WEIGHT = 0.02, 0.1  # of the inverse kinematics
_ITERATIONS, _LONGEST = 12, 0.25  # rad, largest step of one iteration
_MISS = 0.01  # m by which a waypoint may be missed
_MARGIN = 0.02  # rad to the joint limits
_DIFFERENCE = 1e-5  # rad
_ARC = 0.40  # height of the arc over its length
_ARC_TIME, _ARC_FULL = 2.2, 0.25  # s of the arc, and m from which on it takes its full time
_ARC_SHORTEST = 0.1  # of that time: a towel that is held over its place is put down at once
_PITCH = ((0.28, np.deg2rad(82)), (0.72, np.deg2rad(42)))  # x of the tool and how steeply the gripper looks down
# Next to the torso an arm that reaches towards the middle looks back, so that its elbow stays clear of it.
_BACK = ((0.12, 0.0), (0.24, np.deg2rad(33)))  # m inwards from the tool's y at home, and how much steeper, rad
_BACK_NEAR = (0.38, 0.50)  # x of the tool up to which it does so, and from which on not at all


class UnreachableError(ValueError):
    """The towel lies where the arms cannot fold it."""


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
        """Tool point [K, 3] and direction the gripper looks [K, 3] for joints [K, 6]."""
        torso = np.broadcast_to(self.torso, (len(joints), len(self.torso)))
        pose = self.kinematics.poses(np.concatenate([torso, joints], axis=1))[self.link]
        return pose[:, :3, :3] @ self.point + pose[:, :3, 3], pose[:, :3, 0]

    def solve(
        self, goal: NDArray[np.float64], look: NDArray[np.float64], start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joints [6] near `start` that bring the tool to `goal` and let the gripper look along `look`.

        Damped least squares from `start`.
        """
        joints = start.copy()
        for _ in range(_ITERATIONS):
            around = joints + np.concatenate([np.zeros((1, 6)), _DIFFERENCE * np.eye(6)])
            points, looks = self.forward(around)
            error = np.concatenate([goal - points[0], _TURN_WEIGHT * (look - looks[0])])
            jacobian = np.concatenate([points[1:] - points[0], _TURN_WEIGHT * (looks[1:] - looks[0])], axis=1).T
            jacobian = jacobian / _DIFFERENCE
            square = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
            step = jacobian.T @ np.linalg.solve(square, error)
            step *= min(1.0, _LONGEST / max(1e-9, np.abs(step).max()))
            joints = np.clip(joints + step, self.lower + _MARGIN, self.upper - _MARGIN)
        return joints


class Expert:
    """Plans the fold from the towel's corners; the plan is a table of targets, one row a step of 1/15 s.

    Raises:
        UnreachableError: a waypoint is out of reach by more than 1 cm.
    """

    def __init__(
        self, robot: RobotConfig, joints: NDArray[np.float64], towel: NDArray[np.float64], *, held: bool = False
    ) -> None:
        """`joints` [D] is where the robot stands, `towel` [n, n, 3] where the cloth lies.

        With `held` both arms hold their corners already: the plan begins with the arc.
        """
        self._robot, self._held = robot, held
        names = [joint for group in robot.standing.values() for joint in group.joints]
        torso = np.array([value for group in robot.standing.values() for value in group.home])
        self._arms, self._corners = {}, {}
        for side, (arm, shape) in enumerate(robot.workspace.arms.items()):
            limits = robot.groups[arm].limits
            lower, upper = np.array(limits.position).T
            batch = robot.kinematics().batch([shape.tool.link], [*names, *robot.groups[arm].joints])
            solver = Arm(batch, shape.tool.link, np.array(shape.tool.point), lower, upper, torso, 0.0)
            home = solver.forward(robot.home[None, robot.slices[arm]])[0][0]
            self._arms[arm] = replace(solver, beside=float(home[1]))
            # The left arm takes the corner on the left (larger y).
            column = int(np.argmax(towel[0, [0, -1], 1])) if side == 0 else int(np.argmin(towel[0, [0, -1], 1]))
            self._corners[arm] = (towel[0, -column], towel[-1, -column])
        self.targets = self._plan(joints)

    def _plan(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        table = self._robot.workspace.table_height
        begin = joints.copy()
        for arm in self._arms:
            self._set_gripper(begin, arm, _CLOSED if self._held else _OPENED)
        rows = [begin] if self._held else self._take(begin)
        rows += self._arc(rows[-1])
        rows += self._grip(rows[-1], _OPENED, 0.35)
        goals = {arm: np.array([*far[:2], table + _ABOVE]) for arm, (_, far) in self._corners.items()}
        rows += self._line(rows[-1], goals, 0.7)
        rows += list(minimum_jerk(rows[-1], self._robot.home, round(1.3 / STEP))[1:])
        return np.array(rows)

    def _take(self, begin: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Both arms over their near corners, down, and closed."""
        table = self._robot.workspace.table_height
        rows = [begin]
        above, share = {}, 0.0
        for arm, (near, _) in self._corners.items():
            tool = self._tool(arm, rows[0])
            away = float(np.linalg.norm(tool[:2] - near[:2]))
            # From next to the corner the arm continues as it would have, not up and down again.
            height = _ABOVE if away > _NEAR else float(np.clip(tool[2] - table, _GRASP, _ABOVE))
            above[arm] = np.array([*near[:2], table + height])
            share = max(share, float(np.linalg.norm(tool - above[arm])) / _FAR)
        rows += self._line(rows[-1], above, 1.4 * float(np.clip(share, _SHORTEST, 1.0)))
        down = max(float(goal[2]) - table - _GRASP for goal in above.values()) / (_ABOVE - _GRASP)
        goals = {arm: np.array([*near[:2], table + _GRASP]) for arm, (near, _) in self._corners.items()}
        rows += self._line(rows[-1], goals, 0.7 * max(_SHORTEST, down))
        return rows + self._grip(rows[-1], _CLOSED, 0.35)

    def _line(
        self, start: NDArray[np.float64], goals: dict[str, NDArray[np.float64]], seconds: float
    ) -> list[NDArray[np.float64]]:
        steps = round(seconds / STEP)
        paths = {arm: minimum_jerk(self._tool(arm, start), goal, steps) for arm, goal in goals.items()}
        return self._follow(start, paths)

    def _arc(self, start: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """From where the near corners are held to the far ones, over the towel."""
        table = self._robot.workspace.table_height
        begins = {arm: self._tool(arm, start) for arm in self._corners}
        goals = {arm: np.array([*far[:2], table + _GRASP]) for arm, (_, far) in self._corners.items()}
        longest = max(float(np.linalg.norm(goals[arm] - begin)) for arm, begin in begins.items())
        steps = round(_ARC_TIME * float(np.clip(longest / _ARC_FULL, _ARC_SHORTEST, 1.0)) / STEP)
        share = minimum_jerk(np.zeros(1), np.ones(1), steps)[:, 0]
        paths = {}
        for arm, begin in begins.items():
            path = begin + share[:, None] * (goals[arm] - begin)
            path[:, 2] += 4 * share * (1 - share) * _ARC * np.linalg.norm((goals[arm] - begin)[:2])
            paths[arm] = path
        return self._follow(start, paths)

    def _follow(self, start: NDArray[np.float64], paths: dict[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        rows, row = [], start
        steps = len(next(iter(paths.values()))) - 1
        turned = minimum_jerk(np.zeros(1), np.ones(1), steps)[:, 0]
        looks = {arm: self._arms[arm].forward(start[None, self._robot.slices[arm]])[1][0] for arm in paths}
        for step in range(1, steps + 1):
            row = row.copy()
            for arm, path in paths.items():
                place, goal = self._robot.slices[arm], path[step]
                look = (1 - turned[step]) * looks[arm] + turned[step] * _look(goal, self._arms[arm].beside)
                row[place] = self._arms[arm].solve(goal, look / np.linalg.norm(look), row[place])
                missed = float(np.linalg.norm(self._tool(arm, row) - goal))
                if missed > _MISS:
                    place_text = ", ".join(f"{value:.2f}" for value in goal)
                    raise UnreachableError(
                        f"the towel is out of reach: {arm} misses ({place_text}) m by {100 * missed:.1f} cm"
                    )
            rows.append(row)
        return rows

    def _grip(self, start: NDArray[np.float64], stroke: float, seconds: float) -> list[NDArray[np.float64]]:
        goal = start.copy()
        for arm in self._arms:
            self._set_gripper(goal, arm, stroke)
        return [*minimum_jerk(start, goal, round(seconds / STEP))[1:], goal]

    def _set_gripper(self, row: NDArray[np.float64], arm: str, stroke: float) -> None:
        row[self._robot.slices[arm.replace("_arm", "_gripper")]] = stroke

    def _tool(self, arm: str, row: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._arms[arm].forward(row[None, self._robot.slices[arm]])[0][0]


def _look(tool: NDArray[np.float64], beside: float) -> NDArray[np.float64]:
    """Direction the gripper looks in at a place: steeply down near the robot, flatter further away."""
    (near, steep), (far, flat) = _PITCH
    (begin, none), (end, full) = _BACK
    inwards = (beside - tool[1]) * np.sign(beside)
    back = np.interp(inwards, [begin, end], [none, full]) * np.interp(tool[0], _BACK_NEAR, [1, 0])
    pitch = np.interp(tool[0], [near, far], [steep, flat]) + back
    return np.array([np.cos(pitch), 0.0, -np.sin(pitch)])
