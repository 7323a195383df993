"""What the policy's model imagines, next to what then happened. A separate process, in the background."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ament_index_python.packages import get_package_share_directory
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CompressedImage

from fastwam_msgs.msg import PolicyStatus
from fastwam_policy.nodes.image_decoding import image_decoders
from fastwam_policy.nodes.observation_inputs import WARN_PERIOD, ObservationInputs, frame_source, policy_source
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.imagination import Imagination
from fastwam_policy.policies.loading import imagining_folder
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.runtime.observation_buffer import Snapshot
from fastwam_policy.runtime.outcome import ObservedFuture
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from fastwam_policy.visualization.strip import comparison_strip
from galaxea_r1lite_bridge.nodes.bounded_subscription import BoundedSubscription
from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig

_TICK = 0.02  # s between two looks for a new observation; cameras have 15 Hz
_NICE = 10  # the policy and the bridge go first where the processor is short


class ImaginationNode(ManagedNode):
    """Node ``imagination_node``. Parameters: config/imagination_node.yaml. Interfaces: docs/reference/nodes.md.

    One video at a time: what is observed at the times of its frames is collected, then a thread imagines it from the
    first of these observations alone, and from what came before it if the model has a history.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("imagination_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and load the bundle."""
        share = Path(get_package_share_directory("fastwam_policy"))
        values = declare_parameters(self, share / "config" / "imagination_node.yaml")
        source = policy_source(values)
        folder = imagining_folder(source)
        self._robot = robot = RobotConfig.load(values["robot_config"])
        if values["torch_threads"]:
            torch.set_num_threads(values["torch_threads"])
        self._bundle = bundle = Bundle.load(folder, values["device"])
        info = bundle.config.info()
        check_robot(info, robot, source)
        self._imagination = Imagination(bundle)
        if bundle.config.origin == "random":
            self.get_logger().warning(f"bundle {bundle.config.name} has RANDOM weights: what it imagines is noise")
        config = bundle.config
        self._ages_ns = [steps * config.step_ns for steps in config.model.history]
        self._offsets_ns = [k * config.video_stride * config.step_ns for k in range(config.video_frames)]
        self._interval_ns = round(1e9 * values["interval"])
        self._decoders = image_decoders(robot)
        self._buffer = frame_source(info, robot, values["max_skew"], values["max_observation_age"]).buffer
        self._worker = ThreadPoolExecutor(1, "imagination")

    def activate(self) -> None:
        """Subscribe, and begin with the first observation while the policy runs."""
        names = self._robot.interfaces
        self._policy = PolicyStatus()
        self._forget()
        self._publisher = self.create_publisher(CompressedImage, names.imagination, 5)
        self._inputs = ObservationInputs(self, self._robot, self._buffer, self._forget)
        self._policy_input = BoundedSubscription(self, PolicyStatus, names.policy_status, self._on_policy, 10)
        # Steady: a simulated clock may stand still while a video is computed.
        self._ticker = self.create_timer(_TICK, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def deactivate(self) -> None:
        """Release all topics; a video that is being computed is dropped."""
        self.destroy_timer(self._ticker)
        self._inputs.destroy()
        self._policy_input.destroy()
        self.destroy_publisher(self._publisher)

    def cleanup(self) -> None:
        """End the thread and free the model."""
        self._worker.shutdown(cancel_futures=True)
        del self._imagination, self._bundle

    def _forget(self) -> None:
        """Drop what is pending: time has gone back, or the policy has begun something else."""
        self._buffer.clear()
        self._newest_ns = self._due_ns = 0
        self._earlier: list[Snapshot] = []
        self._outcome: ObservedFuture | None = None
        self._video: Future[CompressedImage | None] | None = None

    def _on_policy(self, status: PolicyStatus) -> None:
        if (status.session, status.epoch) != (self._policy.session, self._policy.epoch):
            self._forget()
        self._policy = status

    def _tick(self) -> None:
        if self._video is not None:
            if self._video.done():
                self._publish(self._video)
                self._video = None
            return
        found = self._buffer.sample(self.get_clock().now().nanoseconds, self._newest_ns)
        if not isinstance(found, Snapshot):
            return  # the policy node says why there is no observation
        self._newest_ns = found.stamp_ns
        if self._outcome is not None:
            if self._outcome.add(found):
                self._video = self._worker.submit(self._compare, self._earlier, self._outcome, self._policy.instruction)
                self._outcome = None
        elif self._policy.state == PolicyState.RUNNING and found.stamp_ns >= self._due_ns:
            before = [self._buffer.at(found.stamp_ns - age) for age in reversed(self._ages_ns)]
            self._earlier = [found if snapshot is None else snapshot for snapshot in before]
            self._outcome = ObservedFuture(found, self._offsets_ns)
            self._due_ns = found.stamp_ns + self._interval_ns

    def _compare(
        self, earlier: Sequence[Snapshot], outcome: ObservedFuture, instruction: str
    ) -> CompressedImage | None:
        """On the thread: the strip, or None where an image does not decode."""
        canvases = []
        for snapshot in (*earlier, *outcome.snapshots):
            images = self._buffer.decode(snapshot, self._decoders)
            if images is None:
                return None
            canvases.append(self._bundle.config.layout.compose(images))
        first = outcome.snapshots[0]
        joints = first.positions({name: group.joints for name, group in self._robot.commanded.items()})
        given = len(earlier) + 1
        imagined = self._imagination.imagine(canvases[:given], joints, instruction)
        planned = [offset / 1e9 for offset in self._offsets_ns]
        strip = comparison_strip(imagined, np.stack(canvases[len(earlier) :]), planned, outcome.seconds)
        data = cv2.imencode(".jpg", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))[1].tobytes()
        message = CompressedImage(format="jpeg", data=data)
        message.header.stamp = time_message(first.stamp_ns)
        return message

    def _publish(self, video: Future[CompressedImage | None]) -> None:
        error = video.exception()
        if error is not None:
            text = f"nothing imagined: {type(error).__name__}: {error}"
            self.get_logger().error(text, throttle_duration_sec=WARN_PERIOD)
        elif (message := video.result()) is not None:
            self._publisher.publish(message)
        else:
            text = f"nothing imagined: {PolicyReason.CORRUPT_IMAGE.text}"
            self.get_logger().warning(text, throttle_duration_sec=WARN_PERIOD)


def main() -> None:
    """Entry point."""
    os.nice(_NICE)
    run(ImaginationNode)
