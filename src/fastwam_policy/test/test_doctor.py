"""`fastwam doctor`: every line is of the machine as it is, a fault has its cure, and it only listens."""

import importlib.util
import json
import os
from time import time

import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState

from fastwam_policy.cli.main import main
from fastwam_policy.launching import machine
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()


def states(check):
    return {finding.about: (finding.state, finding.text) for finding in machine.look([check])}


@pytest.mark.parametrize(
    ("number", "state"), [("", "ok"), ("101", "ok"), ("102", "warning"), ("233", "fault"), ("one", "fault")]
)
def test_the_domain_is_one_that_has_ports(number, state, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", number)
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)
    assert {about: found[0] for about, found in states(machine.domain).items()} == {"domain": state}


def test_what_keeps_the_robot_away_is_named(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert states(machine.domain)["discovery"][0] == "warning"
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_none")
    assert states(machine.ros)["middleware"] == ("fault", "RMW_IMPLEMENTATION=rmw_none is not installed")


def test_without_ros_the_rest_is_looked_at(monkeypatch, capfd):
    found = importlib.util.find_spec
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "rclpy" else found(name))
    monkeypatch.setattr(importlib.util, "find_spec", machine.find_spec)
    monkeypatch.setattr(machine, "CHECKS", [machine.ros, machine.disk, lambda: 1 / 0])
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "-"])
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    said = json.loads(out)
    assert said["faults"] == 1
    assert [each["about"] for each in said["findings"]] == ["ROS 2", "disk", "<lambda>"]
    assert "not here: policies can be trained, served and judged" in err
    assert "ZeroDivisionError" in err
    assert "\033" not in out + err


def test_the_robots_topics_and_clock_are_heard(ros):
    from fastwam_policy.launching.in_sight import in_sight

    arm, torso = (ROBOT.groups[name].feedback for name in ("left_arm", "torso"))
    camera = next(iter(ROBOT.cameras.values()))
    publisher = ros.node.create_publisher(JointState, arm, qos_profile_sensor_data)
    ros.node.create_publisher(JointState, torso, qos_profile_sensor_data)
    other = Image if camera.type.endswith("CompressedImage") else JointState
    ros.node.create_publisher(other, camera.topic, qos_profile_sensor_data)

    def publish():
        message = JointState()
        now = time() - 5.0  # a clock that is behind
        message.header.stamp.sec, message.header.stamp.nanosec = int(now), int(now % 1 * 1e9)
        publisher.publish(message)

    ros.node.create_timer(0.005, publish)
    found = {finding.about: finding for finding in in_sight(ROBOT, 2.0)}
    assert "test" in found["nodes"].text
    assert found["joints left_arm"].text.startswith(f"/{arm}, ")
    assert "and nothing arrives" in found["joints torso"].text
    assert found["joints right_arm"].state == "warning"
    (head,) = (finding for about, finding in found.items() if about.startswith("camera") and finding.state == "fault")
    assert camera.type in head.cure
    assert found["clock"].state == "warning"
    assert "5" in found["clock"].text
    assert os.environ["ROS_DOMAIN_ID"], "in the tests' own domain"
