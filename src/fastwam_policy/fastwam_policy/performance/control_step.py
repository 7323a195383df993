"""How long one control step of the bridge takes: a part of `fastwam bench-loop`."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig

_S = 1_000_000_000
_TICKS = 2000
_REPLAN_TICKS = 50
_HORIZON, _STEP_NS = 32, _S // 15
_LAG = 0.05  # s, of the joints
_SWING, _PERIOD = 0.3, 3.0  # rad and s: a motion around the start pose that the arms can follow


@dataclass(frozen=True)
class StepTimes:
    """Times of MotionController.step, ms."""

    p50: float
    p99: float


def measure_step(robot: RobotConfig) -> StepTimes:
    """Time the steps of a bridge with the robot's workspace that follows one chunk after the other, for 20 s of it."""
    bridge = OfflineBridge(robot, BridgeSettings.load(), LaggingJoints(Joints.of(robot).home, _LAG))
    controller, clock = bridge.controller, bridge.clock
    bridge.arm()
    times = []
    for tick in range(_TICKS):
        if tick % _REPLAN_TICKS == 0:
            at = clock.now_ns / _S + _STEP_NS / _S * np.arange(_HORIZON)[:, None]
            swing = np.where(robot.is_arm, _SWING * np.sin(2 * np.pi / _PERIOD * at), 0.0)
            chunk = Chunk(tick + 1, 1, clock.now_ns, _STEP_NS, robot.joint_names, robot.home + swing)
            controller.accept(chunk, clock.now_ns)
        inputs = bridge.inputs()
        begin = time.perf_counter_ns()
        command = controller.step(inputs)
        times.append((time.perf_counter_ns() - begin) / 1e6)
        bridge.advance(command, bridge.period_ns)
    return StepTimes(*np.percentile(times, [50, 99]).tolist())
