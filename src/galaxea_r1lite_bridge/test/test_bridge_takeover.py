"""bridge_node: a person takes over, and other nodes that publish the robot's targets."""

import math
import time

import pytest
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile

from .test_bridge_node import ROBOT, arm, arm_when_ready, chunk, has_been, in_state, near, start

LEFT = ROBOT.groups["left_arm"]


@pytest.fixture
def status(ros):
    return ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)


@pytest.fixture
def chunks(ros):
    ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)
    return ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)


class Person:
    """Sends an input at 100 Hz, which goes to where it is wanted at 0.5 rad/s; None: nothing is sent."""

    def __init__(self, ros, positions):
        self.positions = self.goal = positions
        qos = qos_profile(ROBOT.qos.sensor)
        self._publishers = {
            name: ros.node.create_publisher(JointState, group.takeover, qos) for name, group in ROBOT.commanded.items()
        }
        ros.node.create_timer(0.01, self._publish)

    def _publish(self):
        if self.goal is None:
            return
        off = [goal - at for goal, at in zip(self.goal, self.positions, strict=True)]
        self.positions = [at + max(-0.005, min(0.005, way)) for at, way in zip(self.positions, off, strict=True)]
        for name, publisher in self._publishers.items():
            place, joints = ROBOT.slices[name], ROBOT.groups[name].joints
            message = JointState(name=joints[::-1], position=self.positions[place][::-1])
            message.header.stamp = time_message(time.time_ns())
            publisher.publish(message)


def take_over(ros, *, on=True):
    return ros.call(SetBool, ROBOT.interfaces.takeover, SetBool.Request(data=on))


def test_a_person_takes_over_and_gives_back(ros, chunks, status):
    commands = ros.collect(JointState, LEFT.target)
    start(ros)
    arm_when_ready(ros, status)
    chunks.publish(chunk(near(0.2)))
    ros.until(lambda: commands and math.isclose(commands[-1].position[0], near(0.2)[0], abs_tol=1e-5))
    assert "refused, 221" in (answer := take_over(ros).message)
    assert "left_arm, none comes" in answer
    person = Person(ros, near(0.5))
    ros.until(lambda: "left_arm_joint1, 0.3 rad" in take_over(ros).message)
    assert not status[-1].taken_over

    person.positions = person.goal = near(0.2)
    ros.until(lambda: take_over(ros).success)
    ros.until(in_state(status, State.TAKEOVER, Reason.TAKEOVER))
    person.goal = near(0.4, 0.1)
    ros.until(lambda: math.isclose(commands[-1].position[0], near(0.4)[0], abs_tol=1e-3))
    assert status[-1].taken_over
    assert status[-1].chunk_id == 0
    chunks.publish(chunk(near(0.2), chunk_id=2))
    ros.until(lambda: any(drop.reason == Reason.CHUNK_WHILE_TAKEOVER for drop in status[-1].drops))

    person.goal = None
    ros.until(in_state(status, State.HOLDING, Reason.TAKEOVER_INPUT))
    assert status[-1].taken_over
    person.goal = near(0.4, 0.1)
    ros.until(in_state(status, State.TAKEOVER, Reason.TAKEOVER))

    given, revocations = len(status), status[-1].revocations
    assert take_over(ros, on=False).success
    ros.until(in_state(status, State.HOLDING, Reason.TAKEOVER_ENDED))
    chunks.publish(chunk(near(0.3), chunk_id=3))
    ros.until(lambda: any((s.state, s.chunk_id) == (State.TRACKING, 3) for s in status[given:]))
    assert status[-1].revocations == revocations


def test_another_node_that_publishes_targets_stops_the_arms_and_is_named(ros, chunks, status):
    bridge = start(ros)
    arm_when_ready(ros, status)
    chunks.publish(chunk(near(0.3)))
    ros.until(has_been(status, State.TRACKING))
    other = ros.node.create_publisher(JointState, LEFT.target, 1)
    ros.until(in_state(status, State.FAULT, Reason.FOREIGN_PUBLISHER))
    about = f"{ros.node.get_fully_qualified_name()} on {LEFT.target}"
    ros.until(lambda: about in status[-1].reason_text)
    ros.until(lambda: about in ros.output(bridge))
    refused = arm(ros).message
    assert "refused, 314" in refused
    assert about in refused
    ros.node.destroy_publisher(other)
    ros.until(lambda: arm(ros).success)
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))
