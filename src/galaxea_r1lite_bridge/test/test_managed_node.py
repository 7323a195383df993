"""What all lifecycle nodes share."""

import math

import pytest
import rclpy
from std_msgs.msg import String

from galaxea_r1lite_bridge.nodes import managed_node
from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN, ManagedNode
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ManagedNode("managed", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.nodes
def test_others_are_waited_for_except_in_a_reserved_domain(node, monkeypatch):
    monkeypatch.setattr(managed_node, "_DISCOVERY", math.inf)
    node.refuse_beside_others(["joints"])  # the tests' domain is reserved
    publisher = node.create_publisher(String, "joints", 1)
    with pytest.raises(ConfigError, match="another process publishes joints already"):
        node.refuse_beside_others(["joints"])
    node.destroy_publisher(publisher)
    for reserved in ("", "none", "59"):  # of another domain: says nothing of this one
        waits = []
        monkeypatch.setenv(PRIVATE_DOMAIN, reserved)
        monkeypatch.setattr(managed_node, "_DISCOVERY", 0.01)
        monkeypatch.setattr(managed_node.time, "sleep", waits.append)
        node.refuse_beside_others(["joints"])
        assert waits
