"""What `fastwam doctor` hears in the ROS domain: nodes, the robot's topics with their rates, its clock."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState

from fastwam_policy.launching.machine import Finding
from galaxea_r1lite_bridge.nodes.managed_node import see_everybody
from galaxea_r1lite_bridge.robot.config import RobotConfig

_JOINTS = "sensor_msgs/msg/JointState"
_TYPES = {_JOINTS: JointState, "sensor_msgs/msg/CompressedImage": CompressedImage, "sensor_msgs/msg/Image": Image}
_LEAST_HZ = {"camera": 10.0, "joints": 50.0}
_MOST_AHEAD, _MOST_BEHIND = 0.02, 0.2  # s of the robot's stamps against this clock


class _Stream:
    """What came on one topic."""

    def __init__(self, about: str, topic: str, kind: str) -> None:
        self.about, self.topic, self.kind = about, topic, kind
        self.times: list[float] = []
        self.behind: float | None = None
        """Least delay from a message's stamp to its arrival [s]: the offset of the clocks, and the way."""

    def store(self, data: bytes) -> None:
        """A message as serialised: it begins with the stamp of its header, behind four bytes of CDR."""
        self.times.append(time.monotonic())
        seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
        if seconds:
            behind = time.time() - seconds - 1e-9 * nanoseconds
            self.behind = behind if self.behind is None else min(self.behind, behind)


def in_sight(robot: RobotConfig, seconds: float) -> Iterator[Finding]:
    """Join the domain, listen for so many s, and say what was there."""
    streams = [_Stream(f"camera {name}", each.topic, each.type) for name, each in robot.cameras.items()]
    streams += [_Stream(f"joints {name}", each.feedback, _JOINTS) for name, each in robot.groups.items()]
    context = rclpy.Context()
    see_everybody()
    rclpy.init(context=context)
    node = rclpy.create_node("doctor", context=context, enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        for stream in streams:
            node.create_subscription(_TYPES[stream.kind], stream.topic, stream.store, qos, raw=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        yield from _said(node, streams)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


def _said(node: Node, streams: list[_Stream]) -> Iterator[Finding]:
    names = sorted({name for name in node.get_node_names() if name != "doctor" and not name.startswith("_")})
    yield Finding("nodes", "ok", ", ".join(names) or "none but this one: nothing runs in this domain")
    if not any(stream.times or node.count_publishers(stream.topic) for stream in streams):
        yield Finding("robot", "warning", f"none of its {len(streams)} topics is published in this domain",
                      "fine without a robot; else compare ROS_DOMAIN_ID, see docs/how-to/troubleshoot.md")  # fmt: skip
        return
    types = dict(node.get_topic_names_and_types())
    for stream in streams:
        yield _of(stream, node, types)
    yield from _clocks(streams, simulated="/clock" in types)


def _of(stream: _Stream, node: Node, types: dict[str, list[str]]) -> Finding:
    """How one stream comes."""
    topic = node.resolve_topic_name(stream.topic)
    publishers = [
        f"{one.node_namespace.rstrip('/')}/{one.node_name}" for one in node.get_publishers_info_by_topic(topic)
    ]
    if others := [kind for kind in types.get(topic, []) if kind != stream.kind]:
        return Finding(stream.about, "fault", f"{topic} is a {others[0]}", f"the robot file says {stream.kind}")
    if not publishers:
        return Finding(
            stream.about, "warning", f"{topic} is not published", "start its driver, or remove it from the robot file"
        )
    if len(stream.times) < 2:
        return Finding(stream.about, "fault", f"{topic} is published by {publishers[0]}, and nothing arrives",
                       "docs/how-to/troubleshoot.md: topics are visible, but no message arrives")  # fmt: skip
    rate = (len(stream.times) - 1) / (stream.times[-1] - stream.times[0])
    text = f"{topic}, {rate:.0f} Hz"
    if len(publishers) > 1:
        return Finding(stream.about, "fault", f"{text}, from {' and '.join(publishers)}", "end one of them")
    if rate < _LEAST_HZ[stream.about.split()[0]]:
        return Finding(
            stream.about, "warning", f"{text}: slow", "compare with the rate on the robot: network, or its driver"
        )
    return Finding(stream.about, "ok", text)


def _clocks(streams: list[_Stream], *, simulated: bool) -> Iterator[Finding]:
    """The clock of this machine against the stamps of the streams."""
    if simulated:
        yield Finding("clock", "ok", "/clock is published: simulated or recorded time")
        return
    delays = {stream.about: stream.behind for stream in streams if stream.behind is not None}
    if not delays:
        yield Finding("clock", "warning", "the robot's messages have no stamps", "its drivers must write header.stamp")
        return
    least = min(delays, key=lambda about: delays[about])
    text = f"stamps come {1e3 * delays[least]:.1f} ms after they were made at least ({least})"
    if -_MOST_AHEAD <= delays[least] <= _MOST_BEHIND:
        yield Finding("clock", "ok", text)
    else:
        yield Finding(
            "clock", "warning", f"{text}: the clocks differ", "chrony on both: Time in docs/how-to/run-on-the-robot.md"
        )
