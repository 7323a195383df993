"""Episodes in which a policy drives, and the scripted expert takes over where it stalls, through the bridge."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.data.lerobot_writer import Episode
from fastwam_policy.policies.base import Pixels, Policy
from fastwam_policy.runtime.hovering import Stillness
from fastwam_policy.simulation.episode import ClosedLoop, EpisodeSettings, received
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.expert import STEP
from galaxea_r1lite_sim.simulation import SETTLED, Simulation

REST: Final = 8
"""Steps of 1/15 s after the expert's plan, for things to settle before success is judged."""


def corrected(
    policy: Policy, robot: RobotConfig, simulation: Simulation, cameras: Cameras, settings: EpisodeSettings, task: str
) -> Episode | None:
    """One episode of a prepared policy; where it stalls, the expert takes over as a person would, and finishes.

    The action is the person's target where they drive, as it is the expert's in :func:`collect`, so that both can be
    learned from together; elsewhere it is what the bridge commanded. None where the task is not done in the end, or the
    expert cannot go on from where the policy stalled.

    Raises:
        UnreachableError: something is out of the expert's reach.
    """
    loop, rows = ClosedLoop(policy, robot, simulation, cameras, settings), _Rows(robot, simulation, cameras)
    loop.begin()
    plan: NDArray[np.float64] | None = None
    begun, done_since = 0, None
    for tick in range(round(settings.time_limit / loop.period) + 1):
        shows = tick * loop.period > len(rows) * STEP - 1e-6
        if shows:
            rows.see()
            done = simulation.progress().success
            done_since = None if not done else tick if done_since is None else done_since
            if plan is None and done_since is not None and (tick - done_since) * loop.period >= SETTLED:
                break
            if plan is None and not done and rows.stalled:
                plan, begun = simulation.plan(), tick
                loop.bridge.person = simulation.joints
                if plan is None or loop.bridge.takeover(True) != Reason.NONE:
                    return None
        if plan is not None:
            step = int((tick - begun) * loop.period / STEP + 1e-6)
            if step >= len(plan) + REST:
                break
            loop.bridge.person = plan[min(step, len(plan) - 1)]
        person, by_person = loop.bridge.person, loop.tick(tick).state == State.TAKEOVER
        if shows:
            rows.do(person if person is not None and by_person else simulation.target, by_person=by_person)
    return rows.episode(task) if simulation.progress().success else None


class _Rows:
    """What is recorded: at 15 Hz what is seen and measured, and then what is wanted.

    Attributes:
        stalled: whether hardly anything has moved for a while: somebody who watches takes over.
    """

    def __init__(self, robot: RobotConfig, simulation: Simulation, cameras: Cameras) -> None:
        self._robot, self._simulation, self._cameras = robot, simulation, cameras
        self._images: dict[str, list[Pixels]] = {camera: [] for camera in cameras.names}
        self._states: list[NDArray[np.float64]] = []
        self._targets: list[NDArray[np.float64]] = []
        self._by_person: list[bool] = []
        self._stillness, self.stalled = Stillness(robot), False

    def __len__(self) -> int:
        return len(self._states)

    def see(self) -> None:
        for camera, frames in self._images.items():
            frames.append(received(self._cameras, camera))
        stamp_ns, joints = round(1e9 * len(self) * STEP), self._simulation.joints
        self.stalled = self._stillness.see(stamp_ns, dict(zip(self._robot.joint_names, joints, strict=True)))
        self._states.append(joints)

    def do(self, target: NDArray[np.float64], *, by_person: bool) -> None:
        self._targets.append(target.copy())
        self._by_person.append(by_person)

    def episode(self, task: str) -> Episode:
        """All rows that are whole."""
        count = len(self._targets)
        state, action = (
            {name: np.array(rows[:count])[:, place] for name, place in self._robot.slices.items()}
            for rows in (self._states, self._targets)
        )
        images = {camera: frames[:count] for camera, frames in self._images.items()}
        return Episode(task, images, state, action, np.array(self._by_person))
