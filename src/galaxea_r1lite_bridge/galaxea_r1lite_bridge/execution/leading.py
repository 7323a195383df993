"""Plans led along what they would touch: fingers over the table, links past the robot's own body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.workspace import Look, Workspace

_CLEAR = 0.002  # m of clearance that is led to
_SOFT = 0.008  # m over that from which on the way there is slowed down, so that it does not end at once
_DEEPEST = 0.05  # m that a plan may pass a limit and still be led along it
_ENOUGH = 1e-4  # m that the clearance may miss its goal
_ITERATIONS, _DAMPING = 3, 0.01  # of the inverse kinematics; m


@dataclass(frozen=True)
class _Lead:
    """Limits that one arm is led along.

    Attributes:
        arm: number of the arm.
        limits: numbers of the limits, of which the one that is passed furthest counts; no other lead has them.
        reason: of the limits.
        held: how many coordinates of the tool point stay: x and y where it is lifted, all where it is turned.
    """

    arm: int
    limits: NDArray[np.int_]
    reason: Reason
    held: int


class Leader:
    """Changes a plan as little as possible where it passes a limit by less than 5 cm (damped least squares).

    Over the table the tool is lifted, so that a gripper can close on what lies there. Past torso, head, base and the
    arm itself the tool stays where it is, and the arm turns around it.
    """

    def __init__(self, workspace: Workspace, arm_joints: list[slice]) -> None:
        self._workspace, self._arm_joints = workspace, arm_joints
        reasons = np.array([limit.reason for limit in workspace.limits])
        arms = range(len(arm_joints))
        self._leads = [
            _Lead(arm, np.flatnonzero((reasons == reason) & (workspace.arm_of == arm)), reason, 3)
            for reason in (Reason.LIMIT_OWN_ARM, Reason.LIMIT_BODY)
            for arm in arms
        ]
        self._leads += [_Lead(arm, workspace.tips[arm], Reason.LIMIT_TABLE, 2) for arm in arms]
        self._lead_of = np.full(len(workspace.limits), -1)
        for number, lead in enumerate(self._leads):
            self._lead_of[lead.limits] = number

    def lead(
        self, positions: NDArray[np.float64], uncertainty: NDArray[np.float64], first: int = 0
    ) -> tuple[NDArray[np.float64], Look, frozenset[Reason]]:
        """Positions [K, D] led along what they touch, the clearances there below 1 cm, and what that was.

        Those before the `first` stay as they are.
        """
        look, result, along = self._look(positions, uncertainty), positions, set()
        moved: set[int] = set()  # arms, since that look
        for number, lead in enumerate(self._leads):
            if lead.arm in moved:
                look, moved = self._look(result, uncertainty), set()
            mine = (self._lead_of[look.limits] == number).nonzero()[0]
            if not len(mine):
                continue
            clearance = look.clearance[first:, mine]
            over = clearance.min(axis=1) - _CLEAR
            rows = np.flatnonzero((over < _SOFT) & (over > -_DEEPEST))
            if len(rows):
                goal = np.where(over > -_SOFT, (over + _SOFT) ** 2 / (4 * _SOFT), 0.0)
                result = positions.copy() if result is positions else result
                worst = look.limits[mine[clearance[rows].argmin(axis=1)]]
                self._push(lead, worst, result, first + rows, (goal - over)[rows])
                along.add(lead.reason)
                moved.add(lead.arm)
        return result, self._look(result, uncertainty) if moved else look, frozenset(along)

    def _look(self, positions: NDArray[np.float64], uncertainty: NDArray[np.float64]) -> Look:
        return self._workspace.look(self._workspace.body.place(positions), uncertainty, _CLEAR + _SOFT)

    def _push(
        self, lead: _Lead, worst: NDArray[np.int_], positions: NDArray[np.float64], rows: NDArray[np.int_],
        way: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Increase the clearance of the `worst` [R] limits in some `rows` [R] of `positions` by a `way` [R]."""
        columns = np.arange(positions.shape[1])[self._arm_joints[lead.arm]]
        body, turning = self._workspace.body, self._workspace.arms[lead.arm]
        first, second = self._workspace.carried(lead.arm, worst)
        goal: NDArray[np.float64] | None = None
        for _ in range(_ITERATIONS):
            placed = body.place(positions[rows])
            values, points, apart = self._workspace.nearest_at(placed, worst)
            goal = values + way if goal is None else goal
            left = goal - values
            if (np.abs(left) < _ENOUGH).all():
                return
            tool = placed.begin[None, :, :, body.tools[lead.arm]]
            one, other, tool = turning.moved(placed.frames, np.concatenate([points, tool])[:, :, None])  # [3, 6, R]
            parted = (apart[:, None] * (first * one - second * other)).sum(axis=0)
            jacobian = np.concatenate([parted[None], tool[: lead.held]]).transpose(2, 0, 1)
            square = jacobian @ jacobian.swapaxes(1, 2) + _DAMPING**2 * np.eye(1 + lead.held)
            wanted = np.zeros((len(rows), 1 + lead.held, 1))
            wanted[:, 0, 0] = left
            positions[rows[:, None], columns] += (jacobian.swapaxes(1, 2) @ np.linalg.solve(square, wanted))[:, :, 0]
