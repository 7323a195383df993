"""A simulated robot around the bridge: clocks that a test moves, joints that follow commands, a record of all."""

from dataclasses import replace

import numpy as np

from galaxea_r1lite_bridge.execution.offline import Clock, LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Inputs, JointFeedback
from galaxea_r1lite_bridge.robot.config import RobotConfig

S = 1_000_000_000
STEP = S // 15
TICK = S // 100
ROBOT = RobotConfig.load()


class Rig(OfflineBridge):
    """`changes` are those of the bridge's parameters, by name."""

    def __init__(self, changes=None):
        super().__init__(ROBOT, BridgeSettings.load(changes), LaggingJoints(np.zeros(0), lag=0.05))
        self.clock = Clock(100 * S, 5 * S)
        self.home = self.controller.joints.home.copy()
        self.joints = self.home.copy()
        self.noise = 1e-4
        self.age, self.invalid, self.shown, self.heartbeat_age = {}, set(), None, -1.0
        self.released, self.backwards = False, 0
        self.input_age, self.silent = 0.0, set()
        self.frozen = False
        self.random = np.random.default_rng(0)
        self.sent, self.states = [], []
        self.run(0.3)

    @property
    def joints(self):
        return self.plant.positions

    @joints.setter
    def joints(self, positions):
        self.plant.positions = positions

    def armed(self):
        assert self.controller.arm() == 0
        return self

    def inputs(self):
        if not self.frozen:
            self.shown = self.joints + self.random.uniform(-self.noise, self.noise, len(self.joints))
        feedback = {
            name: JointFeedback(self.shown[place].copy(), self.age.get(name, 0.0), name in self.invalid)
            for name, place in self.controller.joints.groups.items()
        }
        clocks = self.clock.now_ns, self.clock.steady_ns
        return Inputs(*clocks, feedback, self.heartbeat_age, self.released, self.backwards, self.input())

    def input(self):
        given = super().input().items()
        return {name: replace(stream, age=self.input_age) for name, stream in given if name not in self.silent}

    def tick(self, period=TICK):
        """Time passes, and then the bridge acts."""
        self.clock.advance(period)
        command = self.step()
        self.plant.advance(self.target(command), period / S)
        self.sent.append(command)
        self.states.append((command.state, command.reason))
        return command

    def run(self, seconds, period=TICK):
        for _ in range(round(seconds * S / period)):
            command = self.tick(period)
        return command

    def chunk(self, offset, chunk_id=1, epoch=1, session=1, age=0.0, rows=32, ramp=False):
        """A chunk that holds `home` + `offset` (a number for all arm joints, or [14]), or goes there on a ramp."""
        offset = np.where(ROBOT.is_arm, offset, 0.0) if np.isscalar(offset) else np.asarray(offset)
        share = np.linspace(0, 1, rows)[:, None] if ramp else np.ones((rows, 1))
        positions = self.home[:14] + share * offset
        stamp = self.clock.now_ns - round(age * S)
        return Chunk(chunk_id, epoch, stamp, STEP, ROBOT.joint_names, positions, session=session)

    def accept(self, *args, **kwargs):
        return self.controller.accept(self.chunk(*args, **kwargs), self.clock.now_ns)


def shown(command):
    return command.state, command.reason


def check_limits(sent, limiter, period=0.01, joints=14):
    """Every command is finite, inside the position limits, and its velocity and acceleration within theirs."""
    worst = np.zeros(2)
    before = None
    for command in sent:
        motion = command.motion
        if motion is None:
            before = None
            continue
        own = slice(0, joints)
        position = motion.position[own]
        assert np.isfinite(position).all()
        assert (position >= limiter.lower[own] - 1e-9).all()
        assert (position <= limiter.upper[own] + 1e-9).all()
        if before is not None:
            velocity = (position - before.position[own]) / period
            np.testing.assert_allclose(velocity, motion.velocity[own], atol=1e-6)
            acceleration = (velocity - before.velocity[own]) / period
            worst = np.maximum(
                worst,
                [
                    (np.abs(velocity) / limiter.velocity[own]).max(),
                    (np.abs(acceleration) / limiter.acceleration[own]).max(),
                ],
            )
        before = motion
    assert (worst <= 1 + 1e-4).all(), worst
    return worst
