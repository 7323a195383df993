from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.workspace import KINDS, Workspace, segment_distance

from .rig import ROBOT, Rig, check_limits

WORKSPACE = Workspace.of(ROBOT)
JOINTS = [joint for group in ROBOT.actuated.values() for joint in group.joints]
HOME = Joints.of(ROBOT).home
points = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array)


@given(points, points, points, points)
def test_segment_distance_is_the_smallest_of_all_pairs_of_points(a0, a1, b0, b1):
    if min(np.linalg.norm(a1 - a0), np.linalg.norm(b1 - b0)) < 0.05:
        return
    u = np.linspace(0, 1, 41)[:, None]
    pairs = np.linalg.norm((a0 + u * (a1 - a0))[:, None] - (b0 + u * (b1 - b0))[None], axis=2)
    distance = segment_distance(a0, a1, b0, b1)
    assert distance <= pairs.min() + 1e-9
    assert distance >= pairs.min() - 0.06


def test_clearance_is_that_of_the_kinematics():
    kinematics = ROBOT.kinematics()
    positions = dict(zip(JOINTS, HOME, strict=True))
    tools = [
        (kinematics.pose(arm.tool.link, positions) @ [*arm.tool.point, 1])[:3] for arm in ROBOT.workspace.arms.values()
    ]
    table, box, apart = WORKSPACE.clearance(HOME[None])[0]
    low, high = np.array(ROBOT.workspace.box)
    assert table == pytest.approx(min(tool[2] for tool in tools) - ROBOT.workspace.table_height)
    assert box == pytest.approx(min(np.minimum(tool - low, high - tool).min() for tool in tools))
    assert 0 < apart < np.linalg.norm(tools[0] - tools[1])


def test_batches_give_what_single_poses_give():
    random = np.random.default_rng(0)
    rows = HOME + random.normal(0, 0.2, (5, len(HOME)))
    together = WORKSPACE.clearance(rows)
    alone = np.concatenate([WORKSPACE.clearance(row[None]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-12)


NARROW = replace(WORKSPACE, box=np.array([[0.05, -0.5, 0.6], [1.0, 0.5, 1.6]]))
CASES = {  # offsets from the start pose that lead out of the workspace
    Reason.LIMIT_TABLE: np.eye(14)[1] * 0.9,
    Reason.LIMIT_BOX: np.eye(14)[0] * 1.4,
    Reason.LIMIT_ARM_DISTANCE: np.eye(14)[0] * -1.2 + np.eye(14)[7] * 1.2,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_arms_stop_before_a_workspace_limit_and_come_back(kind):
    rig = Rig().armed()
    rig.controller.guard.workspace = NARROW
    offset = CASES[kind]
    assert NARROW.clearance((HOME + np.pad(offset, (0, 3)))[None])[0, KINDS.index(kind)] < -0.01
    for number in range(1, 9):
        rig.accept(offset, chunk_id=number)
        rig.run(0.5)
    command = rig.sent[-1]
    assert (command.state, command.reason) == (State.HOLDING, kind)
    clearance = np.array([NARROW.clearance(c.motion.position[None])[0] for c in rig.sent if c.motion])
    assert clearance.min() > -2e-3
    assert clearance[-1, KINDS.index(kind)] < 0.05, "it went as far as it may"
    assert rig.controller.interventions[kind] >= 1
    for number in range(9, 15):
        rig.accept(0.0, chunk_id=number)
        rig.run(0.5)
    np.testing.assert_allclose(rig.sent[-1].motion.position[:14], HOME[:14], atol=0.01)
    check_limits(rig.sent, rig.controller.limiter)


def test_out_of_a_place_that_is_outside_it_moves_inwards_only():
    """The torso was moved by somebody else while the arms were armed: the grippers are now below the table."""
    rig = Rig({"watchdog.feedback_jump.limit": 1.0}).armed()
    offset = np.eye(14)[1] * 0.5 + np.eye(14)[8] * 0.5
    rig.accept(offset)
    rig.run(1.0)
    rig.joints[14] += 0.35  # leans forward
    rig.run(0.3)

    def table():
        return WORKSPACE.clearance(rig.sent[-1].motion.position[None])[0, 0]

    begin = table()
    assert begin < -0.02
    rig.accept(offset + np.eye(14)[1] * 0.2, chunk_id=2)
    rig.run(0.5)
    assert table() >= begin - 1e-3
    for number in range(3, 8):
        rig.accept(0.0, chunk_id=number)
        rig.run(0.5)
    assert table() > 0


def test_a_plan_that_dips_into_the_table_is_led_along_it():
    """The joints that do not lift the tool go on, so that a gripper can close at the lowest point and come up again."""
    lowest = np.eye(14)[1] * 0.85
    dips = (HOME + np.pad(lowest, (0, 3)))[None]
    assert -0.03 < WORKSPACE.clearance(dips)[0, 0] < -0.01
    lifted = WORKSPACE.lifted(dips)
    assert WORKSPACE.clearance(lifted)[0, 0] == pytest.approx(0.002, abs=5e-4)
    np.testing.assert_array_equal(lifted[0, 7:], dips[0, 7:])  # only that arm gives way

    rig = Rig().armed()
    gripper = np.eye(14)[6] * -20.0
    for number in range(1, 5):
        rig.accept(lowest + gripper, chunk_id=number)
        rig.run(0.5)
    command = rig.sent[-1]
    assert command.state == State.TRACKING
    clearance = np.array([WORKSPACE.clearance(c.motion.position[None])[0, 0] for c in rig.sent if c.motion])
    assert clearance.min() > -1e-3
    assert clearance[-1] < 0.006
    np.testing.assert_allclose(command.motion.position[6], HOME[6] - 20.0, atol=1.0)
    assert rig.controller.interventions[Reason.LIMIT_TABLE] == 1
    check_limits(rig.sent, rig.controller.limiter)
