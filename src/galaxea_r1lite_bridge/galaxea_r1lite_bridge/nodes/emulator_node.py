"""Stands in for the robot in checks: joints that follow their targets with a lag, and cameras. No physics."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CompressedImage, JointState

from galaxea_r1lite_bridge.nodes.emulated_faults import FAULTS, PICTURE_FAULTS
from galaxea_r1lite_bridge.nodes.joint_stream import subscribe_joints
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory

_NOISE = 2e-4  # rad or mm: an encoder's least digit, without which the feedback would look frozen
_LATENESS = 0.5  # s of all feedback with the fault "late"
_SIZES = {"head": (1280, 720)}  # pixels, width and height as the robot's
_SIZE = (640, 360)
_PICTURES = 10  # sent in turn: a camera that repeats one is frozen
_GRAIN = 4  # of 255, by which they differ


class EmulatorNode(ManagedNode):
    """Node ``emulator_node``. Parameters: config/emulator_node.yaml; ``fault`` may be set while it runs."""

    live = frozenset({"fault"})

    def __init__(self, **kwargs: object) -> None:
        super().__init__("emulator_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters."""
        self._values = declare_parameters(self, share_directory() / "config" / "emulator_node.yaml")
        self._robot = RobotConfig.load(self._values["robot_config"])
        self._random = np.random.default_rng(0)
        image = self._random.integers(0, 255 - _GRAIN, (45, 80, 3), np.uint8)
        sizes = {name: _SIZES.get(name, _SIZE) for name in self._robot.cameras}
        self._jpeg = {name: [self._picture(image, size) for _ in range(_PICTURES)] for name, size in sizes.items()}
        self._sent = 0

    def _picture(self, image: np.ndarray, size: tuple[int, int]) -> bytes:
        grain = self._random.integers(0, _GRAIN, image.shape, np.uint8)
        return bytes(cv2.imencode(".jpg", cv2.resize(image + grain, size))[1])

    def activate(self) -> None:
        """Publish feedback and images, follow targets."""
        robot, sensor = self._robot, qos_profile(self._robot.qos.sensor)
        self.refuse_beside_others(group.feedback for group in robot.groups.values())
        self._joints = {name: _Servo(np.array(group.home, float)) for name, group in robot.actuated.items()}
        self._feedback = {n: self.create_publisher(JointState, g.feedback, sensor) for n, g in robot.actuated.items()}
        self._cameras = {
            name: self.create_publisher(CompressedImage, camera.topic, sensor)
            for name, camera in robot.cameras.items()
            if camera.type.endswith("CompressedImage")
        }
        target = qos_profile(robot.qos.target)
        self._inputs = [
            subscribe_joints(self, group.target, robot.gates[name], self._joints[name].follow, target)
            for name, group in robot.actuated.items()
        ]
        self._before = self._fault_since = time.monotonic()
        self._fault_before = ""
        self._waiting: deque[tuple[float, Any, Any]] = deque()
        work = [(self._values["feedback_rate"], self._publish_joints)]
        if self._values["cameras"]:
            work.append((self._values["camera_rate"], self._publish_images))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._tickers = [self.create_timer(1.0 / rate, publish, clock=steady) for rate, publish in work]
        self.get_logger().info("emulating the robot's joints and cameras; nothing here is real")

    def deactivate(self) -> None:
        """Stop publishing."""
        for ticker in self._tickers:
            self.destroy_timer(ticker)
        for subscription in self._inputs:
            subscription.destroy()
        for publisher in (*self._feedback.values(), *self._cameras.values()):
            self.destroy_publisher(publisher)

    def _publish_joints(self) -> None:
        now = time.monotonic()
        dt, self._before = now - self._before, now
        fault, stamp = self._fault(now), self.get_clock().now().to_msg()
        concerned, spoil = FAULTS.get(fault, ("", None))
        for name, servo in self._joints.items():
            if (name, fault) != ("left_arm", "blocked"):
                servo.advance(dt, self._values["time_constant"])
            if fault != "frozen":
                servo.shown = servo.position + self._random.uniform(-_NOISE, _NOISE, len(servo.position))
            message: Any = JointState(position=self._robot.gates[name].write(servo.shown).tolist())
            message.header.stamp = stamp
            if spoil is not None and name == concerned:
                message = spoil(message, now - self._fault_since)
            if message is not None:
                self._waiting.append((now, self._feedback[name], message))
        while self._waiting and now - self._waiting[0][0] >= (_LATENESS if fault == "late" else 0.0):
            _, publisher, message = self._waiting.popleft()
            publisher.publish(message)

    def _fault(self, now: float) -> str:
        """The fault in force, since `_fault_since`."""
        fault = str(self.get_parameter("fault").value)
        if fault != self._fault_before:
            self._fault_before, self._fault_since = fault, now
        return fault

    def _publish_images(self) -> None:
        self._sent += 1
        concerned, spoil = PICTURE_FAULTS.get(self._fault_before, ("", None))
        for name, publisher in self._cameras.items():
            picture = self._jpeg[name][self._sent % _PICTURES]
            data = spoil(picture, self._jpeg[name][0]) if spoil is not None and name == concerned else picture
            if data is None:
                continue
            message: Any = CompressedImage(format="jpeg", data=data)
            message.header.stamp = self.get_clock().now().to_msg()
            publisher.publish(message)


class _Servo:
    """First-order lag towards the last target."""

    def __init__(self, position: NDArray[np.float64]) -> None:
        self.position = self._target = self.shown = position

    def follow(self, _: JointState, target: NDArray[np.float64]) -> None:
        self._target = target

    def advance(self, dt: float, time_constant: float) -> None:
        self.position = self.position + (self._target - self.position) * (1 - np.exp(-dt / time_constant))


def main() -> None:
    """Entry point."""
    run(EmulatorNode)
