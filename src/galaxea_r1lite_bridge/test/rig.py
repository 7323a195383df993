"""A simulated robot around an executor: clocks that a test moves, joints that follow commands, a record of all."""

import numpy as np

from galaxea_r1lite_bridge.execution.assembly import make_executor
from galaxea_r1lite_bridge.execution.blending import Plan
from galaxea_r1lite_bridge.execution.executor import ExecutorConfig, Inputs, JointFeedback
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.watchdogs import Reaction, Watch, WatchdogConfig
from galaxea_r1lite_bridge.robot.config import RobotConfig

S = 1_000_000_000
STEP = S // 15
TICK = S // 100
ROBOT = RobotConfig.load()
WATCHDOGS = {
    "chunk_age": Watch(1.5, Reaction.HOLD),
    "feedback_age": Watch(0.1, Reaction.HOLD),
    "frozen_feedback": Watch(0.5, Reaction.FAULT),
    "feedback_jump": Watch(0.2, Reaction.FAULT),
    "tracking_error": Watch(0.4, Reaction.FAULT),
    "clock_jump": Watch(0.25, Reaction.HOLD),
    "overrun": Watch(0.05, Reaction.SLOW),
}


class Rig:
    def __init__(self, mode="switch", lag=0.05, follows=True, **watchdogs):
        config = ExecutorConfig(WatchdogConfig(**(WATCHDOGS | watchdogs)), 0.05, 0.02, follows)
        self.executor = make_executor(ROBOT, config, Plan(mode, 0.2, 0.7))
        self.home = self.executor.start_pose.copy()
        self.joints = self.home.copy()
        self.now, self.steady, self.lag, self.noise = 100 * S, 5 * S, lag, 1e-4
        self.age, self.invalid, self.shown, self.heartbeat_age = {}, set(), None, -1.0
        self.frozen = False
        self.random = np.random.default_rng(0)
        self.sent, self.states = [], []
        self.run(0.3)

    def armed(self):
        assert self.executor.arm() == 0
        return self

    def inputs(self):
        if not self.frozen:
            self.shown = self.joints + self.random.uniform(-self.noise, self.noise, len(self.joints))
        feedback = {
            name: JointFeedback(self.shown[place].copy(), self.age.get(name, 0.0), name in self.invalid)
            for name, place in self.executor.groups.items()
        }
        return Inputs(self.now, self.steady, feedback, self.heartbeat_age)

    def tick(self, period=TICK):
        self.now, self.steady = self.now + period, self.steady + period
        command = self.executor.step(self.inputs())
        if command.motion is not None:
            follow = 1 - np.exp(-period / S / self.lag)
            self.joints = self.joints + (command.motion.position - self.joints) * follow
        self.sent.append(command)
        self.states.append((command.state, command.reason))
        return command

    def run(self, seconds, period=TICK):
        for _ in range(round(seconds * S / period)):
            command = self.tick(period)
        return command

    def chunk(self, offset, chunk_id=1, epoch=1, age=0.0, rows=32, ramp=False):
        """A chunk that holds `home` + `offset` (a number for all arm joints, or [14]), or goes there on a ramp."""
        offset = np.where(self.executor.arms[:14], offset, 0.0) if np.isscalar(offset) else np.asarray(offset)
        share = np.linspace(0, 1, rows)[:, None] if ramp else np.ones((rows, 1))
        positions = self.home[:14] + share * offset
        return Chunk(chunk_id, epoch, self.now - round(age * S), STEP, ROBOT.joint_names, positions)

    def accept(self, *args, **kwargs):
        return self.executor.accept(self.chunk(*args, **kwargs), self.now)


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
