"""What a node needs to observe the robot: subscriptions to cameras and joints that fill an ObservationBuffer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, JointState

from fastwam_policy.nodes.image_decoding import image_decoders
from fastwam_policy.policies.base import PolicyInfo
from fastwam_policy.policies.images import fingerprint
from fastwam_policy.runtime.camera_watch import CameraReaction, CameraWatch, CameraWatchdog
from fastwam_policy.runtime.frames import FrameSource
from fastwam_policy.runtime.observation_buffer import ObservationBuffer
from fastwam_policy.runtime.reasons import PolicyReason
from galaxea_r1lite_bridge.execution.stream_clock import StreamClock
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds
from galaxea_r1lite_bridge.nodes.joint_stream import subscribe_joints
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import Flaw
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

WARN_PERIOD = 5.0  # s between two equal warnings
_NS = 1_000_000_000
_STEP_NS = _NS // 20  # of a stream's clock that is worth a warning
_FLAWS = {
    Flaw.OTHER_JOINTS: PolicyReason.OTHER_JOINTS,
    Flaw.TOO_FEW: PolicyReason.TOO_FEW_ENTRIES,
    Flaw.NOT_FINITE: PolicyReason.NOT_FINITE,
}
_IMAGE_TYPES = {"sensor_msgs/msg/CompressedImage": CompressedImage, "sensor_msgs/msg/Image": Image}


def policy_source(values: Mapping[str, Any]) -> str:
    """The parameter `policy`; ConfigError where it is empty, or where its former name is used."""
    if values["bundle"]:
        raise ConfigError("parameter bundle is now called policy: policy:=" + values["bundle"])
    if not values["policy"]:
        raise ConfigError(
            "parameter policy is empty: name a folder with a bundle, an address, package.module:Class, or "
            "path/to/file.py:Class. `fastwam make-bundle DIR` writes a bundle with random weights to try"
        )
    return str(values["policy"])


def frame_source(
    info: PolicyInfo,
    robot: RobotConfig,
    max_skew: float,
    max_age: float,
    memory: float = 0.0,
    watch: CameraWatch | None = None,
) -> FrameSource:
    """Frames of the cameras that a policy looks at, and of the joints that a policy moves; times in s."""
    joints = {name: group.joints for name, group in robot.commanded.items()}
    cameras = [camera.name for camera in info.cameras if camera.required]
    optional = [camera.name for camera in info.cameras if not camera.required and camera.name in robot.cameras]
    buffer = ObservationBuffer(cameras, joints, max_skew, max_age, optional, max((memory, *info.history)))
    return FrameSource(buffer, joints, image_decoders(robot), watch)


def camera_watch(robot: RobotConfig, values: Mapping[str, Any]) -> CameraWatch:
    """The cameras' watchdogs, as a node's parameters say."""
    frozen, blind = (
        CameraWatchdog(values[f"watchdog.{name}.limit"], CameraReaction(values[f"watchdog.{name}.reaction"]))
        for name in ("frozen_camera", "blind_camera")
    )
    return CameraWatch(robot, frozen, blind)


class ObservationInputs:
    """Subscriptions whose callbacks only store; what is refused is counted in the buffer and warned of.

    Args:
        node: to subscribe with.
        robot: topics, types and quality of service.
        buffer: of :func:`frame_source`.
        on_jump_back: called when the node's clock has gone back.
        watch: is told of each camera's pictures.
    """

    def __init__(
        self,
        node: ManagedNode,
        robot: RobotConfig,
        buffer: ObservationBuffer,
        on_jump_back: Callable[[], None],
        watch: CameraWatch | None = None,
    ) -> None:
        self._node, self._buffer, self._watch = node, buffer, watch
        simulated = bool(node.get_parameter("use_sim_time").value)
        self._clocks = {name: StreamClock(simulated=simulated) for name in buffer.streams}
        feedback = {name: group.feedback for name, group in robot.commanded.items()}
        self._topics = feedback | {name: camera.topic for name, camera in robot.cameras.items() if name in self._clocks}
        sensor = qos_profile(robot.qos.sensor)
        self._subscriptions = [
            BoundedSubscription(node, _IMAGE_TYPES[camera.type], camera.topic, self._image_callback(name), sensor)
            for name, camera in robot.cameras.items()
            if name in self._clocks
        ]
        self._subscriptions += [
            subscribe_joints(
                node, group.feedback, robot.gates[name], self._joint_callback(name), sensor, self._refusal(name)
            )
            for name, group in robot.commanded.items()
        ]
        self._jump = node.on_clock_back(on_jump_back)

    def destroy(self) -> None:
        """Release all topics."""
        self._jump.unregister()
        for subscription in self._subscriptions:
            subscription.destroy()

    def offset(self, stream: str) -> float:
        """How far the clock of a stream's stamps lies behind the node's, the messages' way included, s."""
        return self._clocks[stream].least_delay_ns / _NS

    def publishers(self) -> dict[str, list[str]]:
        """Nodes that publish each stream, as far as they are known."""
        return {stream: self._node.publishing_nodes(topic) for stream, topic in self._topics.items()}

    def _placed(self, stream: str, message: Any) -> int | None:
        """A message's stamp on the node's clock, ns, 0 without one; None: it was refused."""
        if (stamp_ns := nanoseconds(message.header.stamp)) == 0:
            return 0
        clock = self._clocks[stream]
        before, newest_ns = clock.offset_ns, clock.newest_ns
        placed_ns = clock.place(stamp_ns, self._node.get_clock().now().nanoseconds, time.monotonic_ns())
        if placed_ns is None:
            went_back = 0 < stamp_ns <= newest_ns
            reason = PolicyReason.STAMP_WENT_BACK if went_back else PolicyReason.STAMP_UNLIKELY
            self._buffer.refuse(stream, reason)
            self._report(stream, reason)
        elif abs(step := clock.offset_ns - before) > _STEP_NS:
            text = (
                f"{stream}: its clock and this node's stepped by {step / _NS:+.2f} s: followed. Synchronise the clocks"
            )
            self._node.get_logger().warning(text)
        return placed_ns

    def _image_callback(self, camera: str) -> Callable[[Any], None]:
        def store(message: Any) -> None:
            if (stamp_ns := self._placed(camera, message)) is None:
                return
            reason = self._buffer.add_image(camera, stamp_ns, message)
            self._report(camera, reason)
            if self._watch is not None and reason == PolicyReason.NONE:
                joints = self._buffer.newest_joints()
                self._watch.arrived(camera, stamp_ns, fingerprint(memoryview(message.data)), joints)

        return store

    def _joint_callback(self, group: str) -> Callable[[JointState, NDArray[np.float64]], None]:
        def store(message: JointState, positions: NDArray[np.float64]) -> None:
            if (stamp_ns := self._placed(group, message)) is not None:
                self._report(group, self._buffer.add_joints(group, stamp_ns, positions))

        return store

    def _refusal(self, group: str) -> Callable[[Flaw | None], None]:
        def count(flaw: Flaw | None) -> None:
            if flaw is not None:
                self._buffer.refuse(group, _FLAWS[flaw])

        return count

    def _report(self, stream: str, reason: PolicyReason) -> None:
        if reason != PolicyReason.NONE:
            text = f"{stream}: {int(reason)}: {reason.text}"
            self._node.get_logger().warning(text, throttle_duration_sec=WARN_PERIOD)
