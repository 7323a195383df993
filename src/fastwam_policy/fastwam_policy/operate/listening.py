"""The newest status of bridge and policy, heard once."""

from __future__ import annotations

import time

import rclpy
from rclpy.executors import SingleThreadedExecutor

from fastwam_msgs.msg import BridgeStatus, PolicyStatus
from galaxea_r1lite_bridge.robot.config import RobotConfig


def hear(robot: RobotConfig, namespace: str, seconds: float) -> tuple[BridgeStatus | None, PolicyStatus | None]:
    """Of both, as soon as they have come; None for one that is not heard within so many s. It only listens."""
    heard: dict[type, BridgeStatus | PolicyStatus] = {}
    topics = {BridgeStatus: robot.interfaces.bridge_status, PolicyStatus: robot.interfaces.policy_status}
    context = rclpy.Context()
    rclpy.init(context=context)
    place = f"/{namespace.strip('/')}"
    node = rclpy.create_node(
        "status", context=context, namespace=place, enable_rosout=False, start_parameter_services=False
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        for kind, topic in topics.items():
            node.create_subscription(kind, topic, lambda message: heard.update({type(message): message}), 10)
        end = time.monotonic() + seconds
        while len(heard) < len(topics) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    return heard.get(BridgeStatus), heard.get(PolicyStatus)  # type: ignore[return-value]
