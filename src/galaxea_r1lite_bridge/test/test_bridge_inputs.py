"""bridge_node, over real ROS 2: whose chunks are followed, and what messages it refuses or is not held up by."""

import sys
import time

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import time_message

from .test_bridge_node import (
    HOME,
    ROBOT,
    SLOW_MACHINE,
    arm,
    arm_when_ready,
    chunk,
    emulate_fault,
    in_state,
    near,
    trigger,
)

ANSWER_TIME = 0.05  # s, the bound of docs/concepts/safety.md
FLOOD = """
import sys, time
import rclpy
from rclpy.serialization import serialize_message
from trajectory_msgs.msg import JointTrajectoryPoint
from fastwam_msgs.msg import ActionChunk
rclpy.init()
node = rclpy.create_node("flood")
publisher = node.create_publisher(ActionChunk, sys.argv[1], 1)
message = ActionChunk()
message.trajectory.points = [JointTrajectoryPoint(positions=[0.0] * 14)] * int(sys.argv[2])
data = serialize_message(message)
while True:
    publisher.publish(data)
    time.sleep(1.0 / float(sys.argv[3]))
"""


@pytest.fixture
def status(ros):
    return ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)


@pytest.fixture
def chunks(ros):
    return ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)


@pytest.fixture
def bridge(ros, status, chunks):
    """Armed, with the emulator in the robot's place."""
    ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)
    node = ros.start("galaxea_r1lite_bridge", "bridge_node", **SLOW_MACHINE)
    arm_when_ready(ros, status)
    ros.until(chunks.get_subscription_count)
    return node


def dropped(status, reason):
    return lambda: any(drop.reason == reason for drop in status[-1].drops)


def test_one_session_is_followed_until_armed_again(ros, bridge, chunks, status):
    chunks.publish(chunk(near(0.1), session=5))
    ros.until(lambda: status[-1].session == 5)
    chunks.publish(chunk(near(-0.3), session=6, chunk_id=2**64 - 1, epoch=2**32 - 1))
    ros.until(dropped(status, Reason.CHUNK_OTHER_SESSION))
    assert "session 0000000000000006, dropped, 407" in ros.output(bridge)
    ros.until(in_state(status, State.HOLDING))  # its plan is over
    assert status[-1].session == 5
    assert arm(ros).success, "a new consent"
    ros.until(lambda: status[-1].session == 0)
    chunks.publish(chunk(near(0.2), session=6))
    ros.until(lambda: status[-1].session == 6)


def test_a_stop_before_any_chunk_needs_a_new_arming(ros, bridge, chunks, status):
    assert trigger(ros, "stop").success
    ros.until(lambda: status[-1].arm_again)
    chunks.publish(chunk(near(0.1)))
    ros.until(dropped(status, Reason.CHUNK_NOT_ASKED_FOR))
    assert arm(ros).success
    ros.until(lambda: not status[-1].arm_again)
    chunks.publish(chunk(near(0.1)))
    ros.until(lambda: status[-1].session == 1)


def test_messages_that_are_too_long_are_refused(ros, bridge, chunks, status):
    endless = chunk(near(0.1))
    endless.trajectory.points = endless.trajectory.points * 100
    chunks.publish(endless)
    ros.until(dropped(status, Reason.CHUNK_UNREADABLE))
    feedback = ros.node.create_publisher(JointState, ROBOT.groups["torso"].feedback, 1)
    endless_names = JointState(name=["joint"] * 6_000, position=HOME[:4])
    timer = ros.node.create_timer(0.1, lambda: feedback.publish(endless_names))  # best effort: some are lost
    ros.until(lambda: {stream.name: stream.rejected for stream in status[-1].feedback}["torso"])
    ros.node.destroy_timer(timer)
    chunks.publish(chunk(near(0.1)))
    ros.until(lambda: status[-1].session == 1)


def test_feedback_in_another_order_moves_no_arm(ros, bridge, chunks, status):
    commands = ros.collect(JointState, ROBOT.groups["left_arm"].target)
    emulate_fault(ros, "permuted")
    ros.until(lambda: len(commands) > 100)
    assert status[-1].state == State.HOLDING
    assert arm(ros, on=False).success
    ros.until(in_state(status, State.DISARMED))
    commands.clear()
    ros.until(lambda: arm(ros).success)
    ros.until(lambda: commands)
    np.testing.assert_allclose(commands[0].position, HOME[:6], atol=1e-3)
    chunks.publish(chunk(near(0.1)))
    ros.until(lambda: any(abs(command.position[0] - HOME[0] - 0.1) < 1e-3 for command in commands))
    assert not any(stream.rejected for stream in status[-1].feedback)


def test_feedback_with_other_names_is_dropped_counted_and_named(ros, bridge, chunks, status):
    emulate_fault(ros, "names")
    ros.until(in_state(status, State.HOLDING, Reason.FEEDBACK_INVALID))
    assert next(stream for stream in status[-1].feedback if stream.name == "left_arm").rejected > 0
    joints = {side: ", ".join(ROBOT.groups[f"{side}_arm"].joints) for side in ("left", "right")}
    assert f"expected the joints {joints['left']}; got {joints['right']}" in ros.output(bridge)
    assert arm(ros, on=False).success
    ros.until(in_state(status, State.DISARMED))
    assert "302" in arm(ros).message
    emulate_fault(ros, "none")
    ros.until(lambda: arm(ros).success)


def test_a_gripper_that_is_sent_as_0_to_1_is_a_fault_that_names_the_factor(ros, bridge, chunks, status):
    emulate_fault(ros, "fraction")
    goal = near(0.0)
    goal[6] = 30.0
    for number in range(1, 100):
        chunks.publish(chunk(goal, chunk_id=number))
        begin = time.monotonic()
        ros.until(lambda at=begin: status[-1].state == State.FAULT or time.monotonic() - at > 0.3)
        if status[-1].state == State.FAULT:
            break
    assert status[-1].reason == Reason.FEEDBACK_UNIT
    assert "left_gripper, 0." in status[-1].reason_text
    assert "factor of 100" in status[-1].reason_text


def test_two_clocks_are_refused(ros, status):
    ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)
    clocks = [ros.node.create_publisher(Clock, "/clock", 10) for _ in range(2)]

    def tick(clock, offset):
        return lambda: clock.publish(Clock(clock=time_message(time.time_ns() + offset)))

    ros.node.create_timer(0.01, tick(clocks[0], 0))
    ros.start("galaxea_r1lite_bridge", "bridge_node", use_sim_time=True, **SLOW_MACHINE)
    arm_when_ready(ros, status)
    second = ros.node.create_timer(0.01, tick(clocks[1], 10 * 10**9))
    ros.until(in_state(status, State.HOLDING, Reason.CLOCK_INTERLEAVED))
    assert arm(ros, on=False).success
    ros.until(in_state(status, State.DISARMED))
    assert "205" in arm(ros).message
    ros.node.destroy_timer(second)
    ros.until(lambda: arm(ros).success)


@pytest.mark.parametrize(("rows", "rate"), [(32, 1000), (400_000, 5)])
def test_what_brakes_is_not_held_up_by_chunks(ros, bridge, status, rows, rate):
    ros.run(sys.executable, "-c", FLOOD, ROBOT.interfaces.action_chunk, str(rows), str(rate))
    ros.until(lambda: status[-1].drops)
    stop = ros.node.create_client(Trigger, ROBOT.interfaces.stop)
    ros.until(stop.service_is_ready)
    answers = []
    for _ in range(30):
        begin = time.monotonic()
        future = stop.call_async(Trigger.Request())
        ros.until(future.done)
        answers.append(time.monotonic() - begin)
    assert np.median(answers) < 5 * ANSWER_TIME, answers
    begin = time.monotonic()
    estop = ros.node.create_publisher(Bool, ROBOT.interfaces.estop, 10)
    ros.until(estop.get_subscription_count)
    begin = time.monotonic()
    estop.publish(Bool(data=True))
    ros.until(in_state(status, State.ESTOP))
    assert time.monotonic() - begin < 10 * ANSWER_TIME, "of which a status every 50 ms"
    assert ros.call(SetBool, ROBOT.interfaces.arm, SetBool.Request(data=False)).success
