"""`fastwam view` without a session: what the running nodes publish, in the Rerun viewer."""

from __future__ import annotations

import rclpy
import rerun as rr
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState

from fastwam_msgs.msg import ActionChunk, BridgeStatus, PolicyStatus
from fastwam_policy.visualization.rerun_view import SessionView
from galaxea_r1lite_bridge.nodes.ending import on_ending
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

_TYPES = {
    f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}": kind
    for kind in (ActionChunk, BridgeStatus, PolicyStatus, CompressedImage, JointState)
}


def live_view(recording: rr.RecordingStream, robot: RobotConfig, namespace: str) -> None:
    """Show until Ctrl-C, SIGTERM or another signal that ends nodes."""
    arguments = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace else []
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    ending = on_ending()
    node = Node("viewer")
    sensor = qos_profile(robot.qos.sensor)  # best effort: it receives from reliable publishers as well
    for topic, (kind, handle) in SessionView(robot, recording).handlers().items():
        node.create_subscription(_TYPES[kind], topic, handle, sensor)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
