"""The bridge on a made-up clock: for simulations, measurements and tests, faster than real time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Command, Inputs, JointFeedback
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_SECOND = 1_000_000_000


class Plant(Protocol):
    """What takes the robot's place."""

    def measured(self) -> NDArray[np.float64]:
        """Positions [D] of all joints now, rad and mm."""

    def advance(self, target: NDArray[np.float64] | None, seconds: float) -> None:
        """Let time pass, towards a commanded position [D]; None: nothing is commanded."""


@dataclass
class LaggingJoints:
    """A plant whose joints follow their targets with a first-order lag, s."""

    positions: NDArray[np.float64]
    lag: float

    def measured(self) -> NDArray[np.float64]:
        """Positions [D]."""
        return self.positions

    def advance(self, target: NDArray[np.float64] | None, seconds: float) -> None:
        """Approach the target."""
        if target is not None:
            self.positions = self.positions + (target - self.positions) * (1 - np.exp(-seconds / self.lag))


@dataclass
class Clock:
    """A clock that is advanced by hand."""

    now_ns: int = 10 * _SECOND
    """The node's clock; at 0 it would not have begun."""
    steady_ns: int = 10 * _SECOND

    def advance(self, period_ns: int) -> None:
        """Both clocks go on."""
        self.now_ns += period_ns
        self.steady_ns += period_ns


class OfflineBridge:
    """The bridge's state machine with its settings, a plant in the robot's place, and no time of its own.

    Attributes:
        controller: the state machine that the node runs, too.
        plant: what it moves.
        clock: its time.
        period_ns: of its control loop.
        person: positions [joints of a policy] of a person's input, which is fresh at every tick; None: none comes.
    """

    def __init__(self, robot: RobotConfig, settings: BridgeSettings, plant: Plant) -> None:
        self.controller = MotionController(robot, settings)
        self.plant, self.clock = plant, Clock()
        self.period_ns = round(_SECOND / settings.control_rate)
        self.person: NDArray[np.float64] | None = None
        self._arriving: deque[tuple[int, Chunk]] = deque()

    def send(self, chunk: Chunk, delay_ns: int) -> None:
        """Let a chunk arrive later; chunks arrive in the order in which they are sent."""
        self._arriving.append((self.clock.now_ns + delay_ns, chunk))

    def arm(self) -> None:
        """Look at the plant, which stands still meanwhile, until the arms may be armed.

        Raises:
            ConfigError: the robot file does not allow it at the plant's pose.
        """
        while reason := self.controller.arm():
            if reason not in (Reason.FEEDBACK_MISSING, Reason.NOT_STILL):
                about = f": {self.controller.refused}" if self.controller.refused else ""
                raise ConfigError(f"the arms cannot be armed, {int(reason)}: {reason.text}{about}")
            self.step()
            self.clock.advance(self.period_ns)

    def takeover(self, wanted: bool) -> Reason:
        """The person whose input is `person` takes over, or gives back; return NONE, or why not."""
        if wanted:
            return self.controller.take_over(self.input())
        self.controller.give_back()
        return Reason.NONE

    def tick(self) -> Command:
        """One control tick now; then the plant follows until the next one."""
        command = self.step()
        self.advance(command, self.period_ns)
        return command

    def step(self) -> Command:
        """One control tick now, with the chunks that have arrived; no time passes."""
        while self._arriving and self._arriving[0][0] <= self.clock.now_ns:
            self.controller.accept(self._arriving.popleft()[1], self.clock.now_ns)
        return self.controller.step(self.inputs())

    def advance(self, command: Command, period_ns: int) -> None:
        """Let the plant follow a command for a while."""
        self.plant.advance(self.target(command), period_ns / _SECOND)
        self.clock.advance(period_ns)

    def target(self, command: Command) -> NDArray[np.float64] | None:
        """Position [D] that a command moves the plant to; what it does not command stays where it is."""
        if command.motion is None:
            return None
        target = command.motion.position.copy()
        if not command.all_groups:
            torso = self.controller.joints.torso
            target[torso] = self.plant.measured()[torso]
        return target

    def inputs(self) -> Inputs:
        """What the bridge knows now: everything is fresh."""
        measured = self.plant.measured()
        groups = self.controller.joints.groups.items()
        feedback = {name: JointFeedback(measured[place].copy(), 0.0) for name, place in groups}
        return Inputs(self.clock.now_ns, self.clock.steady_ns, feedback, person=self.input())

    def input(self) -> dict[str, JointFeedback]:
        """What a person wants now, by group."""
        if self.person is None:
            return {}
        groups = self.controller.joints.groups.items()
        policy = self.controller.joints.policy
        return {n: JointFeedback(self.person[p].copy(), 0.0) for n, p in groups if p.stop <= policy.stop}
