"""Chunks of one smooth motion, as a policy would send them, that a fault can delay, damage and multiply."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from rclpy.publisher import Publisher
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

STEP_NS = 66_666_667
_HORIZON = 32
_REPLAN, _LATENCY = 0.5, 0.1  # s
_SWING, _PERIOD = 0.3, 3.0  # rad and s: up to 0.63 rad/s
_SHAPE = (1.0, 0.3, -0.5, 1.0, 0.5, 1.0)  # of the swing, by joint of an arm


@dataclass
class SmoothChunks:
    """Publishes from a thread.

    Attributes:
        now_ns: time of the observations.
        direction: 1, or -1 for the opposite motion.
        latency: s from an observation to its chunk.
        spoil: makes of a chunk those that are sent.
    """

    robot: RobotConfig
    publisher: Publisher
    session: int
    now_ns: Callable[[], int]
    direction: float = 1.0
    latency: float = _LATENCY
    spoil: Callable[[ActionChunk], list[ActionChunk]] = lambda chunk: [chunk]
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._begin_ns = self.now_ns()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; nothing is published afterwards."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            stamp_ns = self.now_ns()
            begin, number = time.monotonic(), number + 1
            if self._ended.wait(self.latency):
                return
            for chunk in self.spoil(self.make(number, stamp_ns)):
                self.publisher.publish(chunk)
            self._ended.wait(max(0.0, begin + _REPLAN - time.monotonic()))

    def make(self, number: int, stamp_ns: int) -> ActionChunk:
        """The chunk of that number for an observation at `stamp_ns`."""
        robot = self.robot
        t = (stamp_ns - self._begin_ns + STEP_NS * np.arange(_HORIZON)) / 1e9
        swing = self.direction * _SWING * np.sin(2 * math.pi * t / _PERIOD)
        arms = robot.is_arm
        rows = np.tile(robot.home, (_HORIZON, 1))
        rows[:, arms] += swing[:, None] * np.resize(_SHAPE, int(arms.sum()))
        chunk = ActionChunk(
            session=self.session, chunk_id=number, epoch=1, policy_id="smooth", step=duration_message(STEP_NS)
        )
        chunk.header.stamp = time_message(stamp_ns)
        chunk.trajectory.joint_names = robot.joint_names
        chunk.trajectory.points = [JointTrajectoryPoint(positions=row.tolist()) for row in rows]
        return chunk
