"""policy_node as a process, over real ROS 2, with a small random bundle."""

import math
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState

from fastwam_msgs.msg import ActionChunk, BridgeStatus, PolicyStatus
from fastwam_msgs.srv import SetInstruction
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
HOLD = Path(__file__).resolve().parents[3] / "examples" / "custom_policy" / "policy.py"
JPEG = cv2.imencode(".jpg", (80 + np.arange(72 * 128 * 3) % 21).astype(np.uint8).reshape(72, 128, 3))[1].tobytes()


class Sensors:
    """Stands in for the robot: three cameras at 15 Hz and the joints at 60 Hz, which a test may spoil."""

    def __init__(self, ros):
        self.jpeg = dict.fromkeys(ROBOT.cameras, JPEG)
        self.stamp_ns = lambda: time.time_ns()
        self.extra = [9.9]
        self.delay_ns = dict.fromkeys(ROBOT.cameras, 0)
        self._cameras = {n: ros.node.create_publisher(CompressedImage, c.topic, 1) for n, c in ROBOT.cameras.items()}
        self._joints = {n: ros.node.create_publisher(JointState, g.feedback, 1) for n, g in ROBOT.commanded.items()}
        ros.node.create_timer(1 / 15, self._publish_images)
        ros.node.create_timer(1 / 60, self._publish_joints)

    def _publish_images(self):
        now = self.stamp_ns()
        for name, publisher in self._cameras.items():
            message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=self.jpeg[name])
            message.header.stamp = time_message(max(0, now - self.delay_ns[name]) if now else 0)
            publisher.publish(message)

    def _publish_joints(self):
        for name, publisher in self._joints.items():
            message = JointState(position=[0.5] * len(ROBOT.groups[name].joints) + self.extra)
            message.header.stamp = time_message(self.stamp_ns())
            publisher.publish(message)


@pytest.fixture
def sensors(ros):
    return Sensors(ros)


@pytest.fixture
def status(ros):
    return ros.collect(PolicyStatus, ROBOT.interfaces.policy_status)


@pytest.fixture
def chunks(ros):
    return ros.collect(ActionChunk, ROBOT.interfaces.action_chunk)


def dropped(status, reason):
    return lambda: status and any(drop.reason == reason for drop in status[-1].drops)


def test_chunks_status_and_instructions(ros, sensors, status, chunks, random_bundle):
    ros.start("fastwam_policy", "policy_node", policy=random_bundle, replan_interval=0.2)
    ros.until(lambda: len(chunks) >= 4)
    first = chunks[0]
    assert list(first.trajectory.joint_names) == ROBOT.joint_names
    assert len(first.trajectory.points) == 32
    assert nanoseconds(first.step) == 66_666_667
    assert nanoseconds(first.trajectory.points[31].time_from_start) == 31 * 66_666_667
    assert all(math.isfinite(value) for point in first.trajectory.points for value in point.positions)
    assert first.policy_id == "random_tiny"
    assert [chunk.chunk_id for chunk in chunks[:4]] == [1, 2, 3, 4]
    starts = [nanoseconds(chunk.inference_start) / 1e9 for chunk in chunks]
    assert min(b - a for a, b in zip(starts, starts[1:], strict=False)) >= 0.2
    stamps = [nanoseconds(chunk.header.stamp) / 1e9 for chunk in chunks]
    assert all(0 <= start - stamp < 0.3 for start, stamp in zip(starts, stamps, strict=True))
    parts = first.decode_ms + first.encode_ms + first.prefill_ms + first.denoise_ms
    assert min(first.decode_ms, first.encode_ms, first.prefill_ms, first.denoise_ms) > 0
    assert parts <= first.total_ms

    ros.until(lambda: status and status[-1].state == PolicyState.RUNNING and len(status[-1].latency_p99) == 5)
    assert status[-1].random_weights
    assert {stream.name for stream in status[-1].streams} == {*ROBOT.cameras, *ROBOT.commanded}
    assert all(abs(stream.skew) <= 0.05 for stream in status[-1].streams)

    bridge, sent_ns = ros.node.create_publisher(BridgeStatus, ROBOT.interfaces.bridge_status, 10), time.time_ns()
    message = BridgeStatus()
    message.header.stamp = time_message(sent_ns)
    ros.until(lambda: bridge.get_subscription_count())
    bridge.publish(message)
    ros.until(lambda: nanoseconds(status[-1].bridge_stamp) == sent_ns)
    assert sent_ns < nanoseconds(status[-1].bridge_received) < nanoseconds(status[-1].header.stamp)

    answer = ros.call(SetInstruction, "policy_node/set_instruction", SetInstruction.Request(instruction="dance"))
    assert (answer.success, answer.code) == (False, SetInstruction.Response.NO_EMBEDDING)
    assert "does not know the instruction 'dance'" in answer.message
    answer = ros.call(
        SetInstruction, "policy_node/set_instruction", SetInstruction.Request(instruction="fold the towel")
    )
    assert answer.success
    assert answer.epoch == first.epoch + 1
    ros.until(lambda: chunks[-1].epoch == answer.epoch)


def test_bad_sensors_are_refused_counted_and_named(ros, sensors, status, chunks, random_bundle):
    sensors.stamp_ns = lambda: 0
    ros.start("fastwam_policy", "policy_node", policy=random_bundle, replan_interval=0.1, status_rate=20.0)
    ros.until(dropped(status, PolicyReason.ZERO_STAMP))
    ros.until(lambda: (status[-1].state, status[-1].reason) == (PolicyState.WAITING, PolicyReason.ZERO_STAMP))

    sensors.stamp_ns = lambda: time.time_ns()
    ros.until(lambda: chunks)
    sensors.stamp_ns = lambda: time.time_ns() - 10_000_000_000
    ros.until(dropped(status, PolicyReason.STAMP_WENT_BACK))
    count = len(chunks)
    ros.until(lambda: len(chunks) > count + 1)  # its clock was set, and is followed
    assert abs(nanoseconds(chunks[-1].header.stamp) - time.time_ns()) < 5e9, "a chunk's stamp is of this clock"
    ros.until(lambda: max(abs(stream.offset - 10) for stream in status[-1].streams) < 1)

    sensors.stamp_ns = lambda: time.time_ns()
    ros.until(dropped(status, PolicyReason.STAMP_UNLIKELY))
    sensors.extra = [math.nan]
    count = len(chunks)
    ros.until(lambda: len(chunks) > count + 1)
    sensors.jpeg["head"] = JPEG[: len(JPEG) // 2]
    ros.until(dropped(status, PolicyReason.CORRUPT_IMAGE))
    ros.until(lambda: (status[-1].state, status[-1].reason) == (PolicyState.WAITING, PolicyReason.CORRUPT_IMAGE))
    sensors.jpeg["head"] = JPEG
    count = len(chunks)
    ros.until(lambda: len(chunks) > count + 1)


def test_a_policy_of_ones_own_runs_and_waits_for_no_camera(ros, sensors, status, chunks):
    sensors.jpeg = dict.fromkeys(ROBOT.cameras, b"")
    ros.start("fastwam_policy", "policy_node", policy=f"{HOLD}:Hold", replan_interval=0.2)
    ros.until(lambda: len(chunks) >= 3)
    assert chunks[0].policy_id == "hold"
    assert [list(point.positions) for point in chunks[0].trajectory.points] == [[0.5] * 14] * 32
    ros.until(lambda: status and status[-1].state == PolicyState.RUNNING)
    assert {stream.name for stream in status[-1].streams} == {*ROBOT.commanded}
    assert not status[-1].random_weights
    answer = ros.call(SetInstruction, "policy_node/set_instruction", SetInstruction.Request(instruction="anything"))
    assert answer.success


def test_a_clock_that_stands_still_is_named_within_a_second(ros, sensors, status, chunks):
    clock = ros.node.create_publisher(Clock, "/clock", 10)
    begin, stopped = time.monotonic(), []

    def now():
        return 10**12 + round(1e9 * ((stopped[0] if stopped else time.monotonic()) - begin))

    ros.node.create_timer(0.01, lambda: clock.publish(Clock(clock=time_message(now()))))
    sensors.stamp_ns = now
    ros.start("fastwam_policy", "policy_node", policy=f"{HOLD}:Hold", replan_interval=0.2, use_sim_time=True)
    ros.until(lambda: len(chunks) >= 3 and status and status[-1].state == PolicyState.RUNNING)
    stopped.append(time.monotonic())
    ros.until(lambda: status[-1].reason == PolicyReason.CLOCK_STANDS_STILL)
    assert status[-1].state == PolicyState.WAITING
    first = next(one for one in status if one.reason == PolicyReason.CLOCK_STANDS_STILL)
    assert float(first.reason_text.split()[-2]) < 1.0, "on the steady clock"
    count = len(chunks)
    stopped.clear()
    ros.until(lambda: len(chunks) > count + 1 and status[-1].state == PolicyState.RUNNING)


def test_a_second_publisher_is_named(ros, sensors, status):
    seen = ros.collect(DiagnosticArray, "/diagnostics")
    second = ros.node.create_publisher(JointState, ROBOT.groups["left_arm"].feedback, 1)
    ros.start("fastwam_policy", "policy_node", policy=f"{HOLD}:Hold")

    def said():
        return {one.name: one.message for message in seen[-2:] for one in message.status}

    name = ros.node.get_fully_qualified_name()
    text = f"has 2 publishers, end all but one: {name}, {name}"
    ros.until(lambda: said().get("policy_node: stream left_arm") == text)
    assert "publishers" not in said()["policy_node: stream right_arm"]
    assert second.get_subscription_count()


def test_a_node_that_is_ended_in_an_inference_ends_in_order(ros, sensors, chunks, random_bundle):
    node = ros.start("fastwam_policy", "policy_node", policy=random_bundle, replan_interval=0.05, denoise_steps=100)
    ros.until(lambda: len(chunks) >= 2)
    node.send_signal(signal.SIGTERM)
    output = ros.finish(node)
    assert node.returncode == 0, output


def test_wrong_configuration_is_named(ros, random_bundle, tmp_path):
    for parameters, expected in (
        ({}, "parameter policy is empty"),
        ({"bundle": random_bundle}, f"parameter bundle is now called policy: policy:={random_bundle}"),
        ({"policy": tmp_path}, "not a policy bundle: policy.yaml is missing"),
        ({"policy": random_bundle, "instruction": "dance"}, "no text embedding for the prompt"),
        ({"policy": random_bundle, "max_skew": 9.0}, "max_skew must be 0.001 to 0.5 s"),
    ):
        node = ros.start("fastwam_policy", "policy_node", **parameters)
        assert expected in ros.finish(node)
        assert node.returncode == 2
