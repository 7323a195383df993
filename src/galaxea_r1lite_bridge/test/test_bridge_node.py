"""bridge_node as a process, over real ROS 2."""

import math
import signal
import time

import pytest
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
START = [0.0, 1.5, -1.5, 0.5, 0.0, 0.0]
STEP = 66_666_667


class Arms:
    """Stands in for the robot: feedback at 100 Hz of a fixed pose, which a test may change or stop."""

    def __init__(self, ros):
        self.positions = {name: [*START, 9.9] if "arm" in name else [50.0] for name in ROBOT.commanded}
        self.on = True
        self._publishers = {
            name: ros.node.create_publisher(JointState, group.feedback, 1) for name, group in ROBOT.commanded.items()
        }
        ros.node.create_timer(0.01, self._publish)

    def _publish(self):
        if self.on:
            for name, publisher in self._publishers.items():
                publisher.publish(JointState(position=self.positions[name]))


@pytest.fixture
def arms(ros):
    return Arms(ros)


@pytest.fixture
def status(ros):
    return ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)


@pytest.fixture
def commands(ros):
    return ros.collect(JointState, ROBOT.groups["left_arm"].target)


def chunk(target, *, chunk_id=1, epoch=1, age=0.0, names=None):
    message = ActionChunk(chunk_id=chunk_id, epoch=epoch, step=duration_message(STEP))
    message.header.stamp = time_message(time.time_ns() - round(age * 1e9))
    message.trajectory.joint_names = names or ROBOT.joint_names
    message.trajectory.points = [JointTrajectoryPoint(positions=target)] * 32
    return message


def in_state(status, state, reason=None):
    return lambda: status and status[-1].state == state and reason in (None, status[-1].reason)


def test_arm_track_stop_disarm(ros, arms, status, commands):
    publisher = ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)
    bridge = ros.start("galaxea_r1lite_bridge", "bridge_node")
    ros.until(in_state(status, State.DISARMED, Reason.NOT_ARMED))
    time.sleep(0.3)
    assert not commands, "a disarmed bridge sends nothing"

    answer = ros.call(SetBool, "bridge_node/arm", SetBool.Request(data=True))
    assert answer.success, answer.message
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))
    ros.until(lambda: commands)
    assert list(commands[-1].position) == START, "the 7th entry is not a joint"

    target = [*[angle + 0.2 for angle in START], 20.0] * 2
    publisher.publish(chunk(target))
    ros.until(in_state(status, State.TRACKING))
    ros.until(lambda: math.isclose(commands[-1].position[0], 0.2, abs_tol=1e-6))
    first = [message.position[0] for message in commands]
    assert max(b - a for a, b in zip(first, first[1:], strict=False)) < 1.5 * 0.02 + 1e-6, (
        "1.5 rad/s, at most two periods"
    )
    assert len(status[-1].limited) == 14

    answer = ros.call(Trigger, "bridge_node/stop", Trigger.Request())
    assert answer.success
    ros.until(in_state(status, State.HOLDING, Reason.STOP_REQUESTED))
    publisher.publish(chunk(target, chunk_id=2))
    ros.until(lambda: any(drop.reason == Reason.CHUNK_OLD_EPOCH for drop in status[-1].drops))

    ros.call(SetBool, "bridge_node/arm", SetBool.Request(data=False))
    ros.until(in_state(status, State.DISARMED))
    bridge.send_signal(signal.SIGINT)
    ros.finish(bridge)
    assert bridge.returncode == 0
    ros.until(in_state(status, State.INACTIVE))


def test_bad_feedback_and_bad_chunks(ros, arms, status, commands):
    publisher = ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)
    arms.on = False
    bridge = ros.start("galaxea_r1lite_bridge", "bridge_node", max_feedback_age=0.5)
    answer = ros.call(SetBool, "bridge_node/arm", SetBool.Request(data=True))
    assert not answer.success
    assert "300" in answer.message

    arms.on = True
    ros.until(lambda: status and all(stream.received for stream in status[-1].feedback))
    assert ros.call(SetBool, "bridge_node/arm", SetBool.Request(data=True)).success
    target = [*START, 50.0] * 2
    publisher.publish(chunk(target, names=["x"] * 14))
    publisher.publish(chunk([math.nan] * 14))
    publisher.publish(chunk(target, age=9.0))
    wanted = {Reason.CHUNK_WRONG_JOINTS, Reason.CHUNK_NOT_FINITE, Reason.CHUNK_TOO_OLD}
    ros.until(lambda: {drop.reason for drop in status[-1].drops} == wanted)

    arms.positions["left_arm"] = [math.nan] * 6
    ros.until(in_state(status, State.HOLDING, Reason.FEEDBACK_INVALID))
    assert "hdas/feedback_arm_left" in ros.output(bridge)
    arms.positions["left_arm"] = START
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))
    arms.on = False
    ros.until(in_state(status, State.HOLDING, Reason.FEEDBACK_STALE))
    assert all(math.isfinite(value) for message in commands for value in message.position)


def test_wrong_parameters_are_named(ros):
    for parameters, expected in (
        ({"control_rate": 5000.0}, "control_rate must be 10.0 to 500.0 Hz"),
        ({"control_rate": "fast"}, "parameter control_rate must be of type float, such as 100.0"),
        ({"robot_config": "/nowhere.yaml"}, "/nowhere.yaml: no such file"),
    ):
        node = ros.start("galaxea_r1lite_bridge", "bridge_node", **parameters)
        assert expected in ros.finish(node)
        assert node.returncode == 2
