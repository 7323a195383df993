"""sim_node as a process, over real ROS 2, and the closed loop."""

import importlib.util
import threading

import cv2
import numpy as np
import pytest
import yaml
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from fastwam_msgs.msg import SimulationStatus
from fastwam_msgs.srv import ResetSimulation
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds
from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN
from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="MuJoCo 4 has no wheel for Python 3.10"
)
ROBOT = RobotConfig.load()
LEFT = ROBOT.groups["left_arm"]


@pytest.fixture
def status(ros):
    return ros.collect(SimulationStatus, ROBOT.interfaces.simulation)


def start(ros, **parameters):
    return ros.start("galaxea_r1lite_sim", "sim_node", image_height=90, **parameters)


def test_it_speaks_as_the_robot_does(ros, status):
    feedback = {
        name: ros.collect(JointState, group.feedback, qos_profile_sensor_data) for name, group in ROBOT.groups.items()
    }
    images = {
        name: ros.collect(CompressedImage, camera.topic, qos_profile_sensor_data)
        for name, camera in ROBOT.cameras.items()
    }
    clock = ros.collect(Clock, "/clock", 10)
    target = ros.node.create_publisher(JointState, LEFT.target, 1)
    start(ros, seed=7, randomization="objects")
    ros.until(lambda: all(feedback.values()) and all(images.values()) and status and clock)
    assert len(feedback["left_arm"][0].position) == 7, "the 7th entry, as on the robot"
    assert len(feedback["right_gripper"][0].position) == 1
    assert len(feedback["torso"][0].position) == 3
    assert list(feedback["left_arm"][0].name) == []
    image = images["head"][0]
    assert "jpeg" in image.format
    assert cv2.imdecode(np.asarray(image.data), cv2.IMREAD_COLOR).shape == (90, 160, 3)
    assert all(nanoseconds(messages[0].header.stamp) > 0 for messages in images.values())
    stamps = [nanoseconds(message.clock) for message in clock]
    assert stamps == sorted(stamps)
    assert status[0].seed == 7

    begin = feedback["left_arm"][-1].position[0]
    ros.node.create_timer(
        0.05, lambda: target.publish(JointState(position=[begin + 0.2, *feedback["left_arm"][0].position[1:6]]))
    )
    ros.until(lambda: abs(feedback["left_arm"][-1].position[0] - begin - 0.2) < 0.01)

    answer = ros.call(ResetSimulation, ROBOT.interfaces.reset, ResetSimulation.Request(seed=8, randomization="none"))
    assert answer.success, answer.message
    ros.until(lambda: status[-1].seed == 8 and status[-1].time < 5)
    answer = ros.call(ResetSimulation, ROBOT.interfaces.reset, ResetSimulation.Request(seed=1, randomization="wild"))
    assert not answer.success
    assert "randomization must be one of none, objects, full" in answer.message
    stamps = [nanoseconds(message.clock) for message in clock]
    assert stamps == sorted(stamps), "a reset does not move the clock back"


def test_a_target_does_not_wait_for_a_step(ros):
    """A simulation that is slower than real time holds its lock for nearly all of the time."""
    from galaxea_r1lite_sim.nodes.sim_node import SimNode

    node = SimNode(context=ros.node.context, parameter_overrides=[Parameter("image_height", value=90)])
    try:
        node.configure()
        store = node._target_callback("left_arm")
        positions = [0.1] * 6
        with node._lock:
            arriving = threading.Thread(target=store, args=(JointState(position=positions), np.array(positions)))
            arriving.start()
            arriving.join(5.0)
            assert not arriving.is_alive()
    finally:
        node.destroy_node()


def test_without_a_clock_stamps_are_wall_time(ros, status):
    images = ros.collect(CompressedImage, ROBOT.cameras["head"].topic, qos_profile_sensor_data)
    clock = ros.collect(Clock, "/clock", 10)
    start(ros, clock=False)
    ros.until(lambda: images and len(status) > 3)
    now = ros.node.get_clock().now().nanoseconds
    assert 0 <= now - nanoseconds(images[-1].header.stamp) < 60e9
    assert 0 <= now - nanoseconds(status[-1].header.stamp) < 60e9
    assert not clock


def test_the_expert_reports_success(ros, status):
    done = ros.collect(Bool, ROBOT.interfaces.task_success)
    node = start(ros, seed=3, expert=True, real_time_factor=5.0)
    ros.until(lambda: done and done[-1].data)
    ros.until(lambda: "]: folded after " in ros.output(node))
    assert status[-1].success
    assert status[-1].distance < 0.04
    assert list(status[-1].grasps) == [1, 1]
    assert status[-1].task == "fold"
    assert status[-1].real_time_factor > 0
    assert {contact.kind for contact in status[-1].contacts} == {"finger-table"}
    assert all(contact.depth > 0 and contact.count > 0 for contact in status[-1].contacts)


def test_a_seed_out_of_reach_is_named(ros):
    node = start(ros, seed=80, expert=True, randomization="full")
    output = ros.finish(node)
    assert "seed 80: the towel is out of reach" in output
    assert "choose another seed" in output
    assert "Traceback" not in output
    assert node.returncode == 2


def test_a_camera_that_cannot_be_rendered_stops_nothing(ros, status, tmp_path):
    data = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
    kind = "sensor_msgs/msg/CompressedImage"
    data["cameras"]["chest"] = {"topic": "chest/compressed", "type": kind, "dataset_key": "chest_rgb"}
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    images = ros.collect(CompressedImage, ROBOT.cameras["head"].topic, qos_profile_sensor_data)
    node = start(ros, robot_config=str(tmp_path / "robot.yaml"))
    ros.until(lambda: images and status)
    assert "cannot render camera chest: add cameras.chest.mount (link, field_of_view)" in ros.output(node)


def test_never_beside_a_robot(ros, monkeypatch):
    monkeypatch.delenv(PRIVATE_DOMAIN)
    publishers = [ros.node.create_publisher(*one, 1) for one in ((JointState, LEFT.feedback), (Clock, "/clock"))]
    node = start(ros)
    assert f"another process publishes /clock, {LEFT.feedback} already" in ros.finish(node)
    assert node.returncode == 2
    for publisher in publishers:
        publisher.destroy()
