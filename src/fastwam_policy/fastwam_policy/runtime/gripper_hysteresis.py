"""Grippers that do not waver: one that has closed opens only where the policy means it, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastwam_policy.policies.base import ActionChunk
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays


class GripperHysteresis:
    """Two openings of each gripper, `share` of its range apart, around the middle.

    A closed gripper's targets stay at the lower one or below until a target is at the upper one or above; an open one's
    stay at the upper one or above until a target is at the lower one or below. All other targets are as the policy
    wants them.

    Args:
        robot: whose grippers.
        share: 0 (nothing is changed) up to 1.
    """

    def __init__(self, robot: RobotConfig, share: float) -> None:
        limits, grippers = limit_arrays(robot.commanded), ~robot.is_arm
        middle, half = (limits.lower + limits.upper) / 2, share * (limits.upper - limits.lower) / 2
        openings = zip(robot.joint_names, middle - half, middle + half, grippers, strict=True)
        self._openings = {name: (low, high) for name, low, high, gripper in openings if gripper and share}
        self._last: ActionChunk | None = None

    def applied(self, chunk: ActionChunk, joints: Mapping[str, float]) -> ActionChunk:
        """The chunk with the targets that are followed, mm; `joints` are the positions at its observation."""
        actions = chunk.actions.copy()
        for name, (low, high) in self._openings.items():
            if name not in chunk.names:
                continue
            column = chunk.names.index(name)
            is_open = self._wanted(chunk.stamp_ns, name, joints.get(name, high)) > (low + high) / 2
            for row, target in enumerate(actions[:, column]):
                is_open = target > low if is_open else target >= high
                actions[row, column] = max(target, high) if is_open else min(target, low)
        self._last = replace(chunk, actions=actions)
        return self._last

    def _wanted(self, stamp_ns: int, name: str, measured: float) -> float:
        """What the last chunk wants at that time, and after its end what is measured: something may be held."""
        last = self._last
        row = 0 if last is None else (stamp_ns - last.stamp_ns) // last.step_ns
        if last is None or not 0 <= row < len(last.actions):
            return measured
        return float(last.actions[row, last.names.index(name)])

    def reset(self) -> None:
        """A new episode, task or scene begins."""
        self._last = None
