"""The messages and the code that is written without ROS must agree on numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from galaxea_r1lite_bridge.execution.limits import Motion
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.bridge_messages import target_messages
from galaxea_r1lite_bridge.nodes.conversions import chunk_from_message, duration_message, nanoseconds, time_message

from .rig import ROBOT


@pytest.mark.parametrize(("enum", "prefix"), [(State, "STATE_"), (Reason, "REASON_")])
def test_numbers_are_those_of_the_message(enum, prefix):
    for member in enum:
        assert getattr(BridgeStatus, prefix + member.name) == member


def test_every_reason_has_its_own_text():
    texts = [reason.text for reason in Reason]
    assert len(set(texts)) == len(texts)


def test_every_field_and_constant_is_described():
    for folder in ("msg", "srv", "action"):
        for path in (Path(get_package_share_directory("fastwam_msgs")) / folder).glob(f"*.{folder}"):
            lines = path.read_text().splitlines()
            assert lines[0].startswith("#"), path.name
            bare = [line for line in lines if line[:1].isalpha() and "#" not in line]
            assert not bare, f"{path.name}: {bare}"


def test_conversions_are_exact():
    for value in (0, 1, 1_760_000_000_123_456_789):
        assert nanoseconds(time_message(value)) == value
        assert nanoseconds(duration_message(value)) == value


def test_a_chunk_says_how_many_steps_it_took_over():
    message = ActionChunk(chunk_id=7, committed_steps=3)
    message.trajectory.points = [JointTrajectoryPoint(positions=[0.1, 0.2]) for _ in range(4)]
    found = chunk_from_message(message)
    assert (found.chunk_id, found.committed_steps, found.positions.shape) == (7, 3, (4, 2))


def test_ragged_chunks_become_empty_ones():
    message = ActionChunk()
    message.trajectory.points = [JointTrajectoryPoint(positions=[1.0]), JointTrajectoryPoint(positions=[1.0, 2.0])]
    assert chunk_from_message(message).positions.size == 0


@pytest.mark.parametrize("state", [State.FAULT, State.ESTOP, State.HOLDING])
def test_arms_that_come_free_after_a_fault_are_asked_to_be_slow(armed, state):
    """While they brake as while they are fast: the limit of the robot's controller must not stop them dead."""
    armed.accept(0.4)
    moving = armed.run(0.2)
    still = replace(moving, state=state, motion=Motion(moving.motion.position, 0 * moving.motion.velocity))
    limits = ROBOT.groups["left_arm"].limits.velocity
    for command, expected in ((replace(moving, state=state), limits), (still, [0.3] * 6)):
        targets = dict(target_messages(ROBOT, command, 0, 0.3))
        assert list(targets["left_arm"].velocity) == (limits if state == State.HOLDING else expected)
        assert not targets["left_gripper"].velocity
