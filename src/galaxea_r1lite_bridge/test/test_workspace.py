from copy import copy

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.leading import Leader
from galaxea_r1lite_bridge.execution.offline import Clock
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.workspace import KINDS, Workspace

from .clearance import by_reason, check_clearance, clearance
from .rig import ROBOT, Rig, check_limits

WORKSPACE = Workspace(ROBOT)
JOINTS = Joints.of(ROBOT)
HOME = JOINTS.home
ARMS = [ROBOT.actuated_slices[name] for name in ROBOT.workspace.arms]
LEADER = Leader(WORKSPACE, ARMS)


def least(position, reason, workspace=WORKSPACE):
    return by_reason(workspace, clearance(workspace, position[None]))[reason][0]


def test_clearance_is_that_of_the_kinematics():
    kinematics, positions = ROBOT.kinematics(), {}
    for name, place in ROBOT.actuated_slices.items():
        positions |= ROBOT.urdf_positions(name, HOME[place])
    tools = [
        (kinematics.pose(arm.tool.link, positions) @ [*arm.tool.point, 1])[:3] for arm in ROBOT.workspace.arms.values()
    ]
    fingers = [f"{side}_gripper_finger_link{k}" for side in ("left", "right") for k in (1, 2)]
    poses = [kinematics.pose(finger, positions) for finger in fingers]
    tips = [pose @ [0.015 + x, sign * 0.007 + y, z, 1] for pose, sign in zip(poses, (-1, 1, -1, 1), strict=True)
            for x in (-0.035, 0.035) for y in (-0.006, 0.006) for z in (-0.011, 0.011)]  # fmt: skip
    low, high = np.array(ROBOT.workspace.box)
    clearances = clearance(WORKSPACE, HOME[None])
    found, of_fingers = by_reason(WORKSPACE, clearances), ["finger" in limit.first for limit in WORKSPACE.limits]
    of_fingers &= np.array([limit.reason == Reason.LIMIT_TABLE for limit in WORKSPACE.limits])
    height = min(tip[2] for tip in tips) - ROBOT.workspace.table_height
    assert clearances[0, of_fingers].min() == pytest.approx(height - ROBOT.workspace.margins.fingertips)
    assert found[Reason.LIMIT_BOX] == pytest.approx(min(np.minimum(tool - low, high - tool).min() for tool in tools))
    assert 0 < found[Reason.LIMIT_ARM_DISTANCE] < np.linalg.norm(tools[0] - tools[1])


def test_the_start_pose_is_clear_of_everything():
    assert clearance(WORKSPACE, HOME[None]).min() > 0.03


def test_what_is_not_measured_is_bounded():
    """A walk through the workspace: all that is near is measured, with what an uncertain torso takes."""
    random = np.random.default_rng(0)
    workspace, position, exact = Workspace(ROBOT), HOME.copy(), 0
    lower, upper = np.array([limits for group in ROBOT.actuated.values() for limits in group.limits.position]).T
    for _ in range(200):
        step = random.normal(0, 0.05, (random.integers(1, 12), len(HOME))) * np.where(JOINTS.angular, 1, 20)
        rows = np.clip(position + np.cumsum(step, axis=0), lower, upper)
        within, off = random.choice([0.0, 0.01, 0.03]), random.choice([0.0, 1e-4, 5e-3]) * np.ones(3)
        placed = workspace.body.place(rows)
        found, true = workspace.look(placed, off, within), workspace.look(placed, off)
        np.testing.assert_allclose(found.clearance, true.clearance[:, found.limits], atol=1e-9)
        np.testing.assert_array_equal(found.lost, true.lost[found.limits])
        left = np.delete(true.clearance - true.lost, found.limits, axis=1)
        assert left.min() >= within - 1e-9
        exact += (true.clearance < within).sum()
        position = rows[-1]
    assert exact > 300


NARROW = copy(WORKSPACE)
NARROW.box = np.array([[0.05, -0.5, 0.6], [1.0, 0.5, 1.6]])
ARM = np.eye(14)
CASES = {  # offsets from the start pose that lead out of the workspace
    Reason.LIMIT_TABLE: ARM[1] * 0.9,
    Reason.LIMIT_BOX: ARM[0] * 1.4,
    Reason.LIMIT_ARM_DISTANCE: ARM[0] * -0.85 + ARM[7] * 0.85,
    Reason.LIMIT_OWN_ARM: ARM[2] * 1.35 + ARM[3] * 0.6,
    Reason.LIMIT_BODY: ARM[0] * -1.3,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_arms_stop_before_a_workspace_limit_and_come_back(kind):
    rig = Rig().armed()
    rig.controller.guard.workspace = NARROW
    rig.controller.guard.leader = Leader(NARROW, ARMS)
    offset = CASES[kind]
    assert least(HOME + np.pad(offset, (0, 3)), kind, NARROW) < -0.01
    for number in range(1, 9):
        rig.accept(offset, chunk_id=number)
        rig.run(0.5)
    command = rig.sent[-1]
    assert (command.state, command.reason) == (State.HOLDING, kind)
    assert " and " in command.detail
    assert command.detail.endswith(" mm")
    check_clearance(rig.sent, NARROW)
    assert least(command.motion.position, kind, NARROW) < 0.05, "it went as far as it may"
    assert rig.controller.interventions[kind] >= 1
    for number in range(9, 15):
        rig.accept(0.0, chunk_id=number)
        rig.run(0.5)
    np.testing.assert_allclose(rig.sent[-1].motion.position[:14], HOME[:14], atol=0.01)
    check_limits(rig.sent, rig.controller.limiter)


def test_the_two_bodies_are_named():
    nearest = WORKSPACE.nearest(HOME + np.pad(CASES[Reason.LIMIT_BODY], (0, 3)))
    assert nearest.clearance < 0
    assert nearest.text.startswith("torso_link3 and left_")
    nearest = WORKSPACE.nearest(HOME + np.pad(ARM[0] * -0.7 + ARM[7] * 0.7, (0, 3)))
    first, second = nearest.points
    assert nearest.text.endswith(f", {1e3 * np.linalg.norm(first - second):.0f} mm")
    assert first[1] > second[1], "the left arm's point is further left"
    nearest = WORKSPACE.nearest(HOME + np.pad(ARM[1] * 0.79, (0, 3)))
    assert "left_gripper_finger_link" in nearest.text
    assert nearest.points[1, 2] == ROBOT.workspace.table_height


def test_out_of_a_place_that_is_outside_it_moves_inwards_only():
    """The torso was moved by somebody else while the arms were armed: the grippers are now below the table."""
    rig = Rig({"watchdog.feedback_jump.limit": 1.0}).armed()
    offset = ARM[1] * 0.45 + ARM[8] * 0.45
    rig.accept(offset)
    rig.run(1.0)
    rig.joints[14] += 0.35  # leans forward
    rig.run(0.6)

    def table():
        return least(rig.sent[-1].motion.position, Reason.LIMIT_TABLE)

    begin = table()
    assert begin < -0.02
    rig.accept(offset + ARM[1] * 0.2, chunk_id=2)
    rig.run(0.5)
    assert table() >= begin - 1e-3
    for number in range(3, 8):
        rig.accept(0.0, chunk_id=number)
        rig.run(0.5)
    assert table() > 0


def test_a_plan_past_the_torso_is_led_around_it():
    """An elbow that would touch gives way; the tool stays where the plan has it."""
    random, tools = np.random.default_rng(0), WORKSPACE.body.tools
    low, high = HOME.copy(), HOME.copy()
    low[7:13] = [0.6, 2.0, -2.1, -0.4, -0.4, -0.1]
    high[7:13] = [1.0, 2.8, -0.6, 0.9, 0.4, 0.1]
    poses = random.uniform(low, high, (4000, 17))
    found = by_reason(WORKSPACE, WORKSPACE.clearance(poses))
    clear = np.min([found[reason] for reason in KINDS if reason != Reason.LIMIT_BODY], axis=0) > 0.02
    touching = poses[(found[Reason.LIMIT_BODY] < 0) & (found[Reason.LIMIT_BODY] > -0.02) & clear][:40]
    assert len(touching) > 10
    led, look, along = LEADER.lead(touching, np.zeros(3))
    assert along == {Reason.LIMIT_BODY}
    moved = np.linalg.norm(WORKSPACE.body.place(touching).begin[..., tools] - look.placed.begin[..., tools], axis=0)
    assert np.mean(look.clearance.min(axis=1) > 0) > 0.9
    assert np.median(moved) < 0.003
    np.testing.assert_array_equal(led[:, :7], touching[:, :7])


def test_a_plan_that_dips_into_the_table_is_led_along_it():
    """The joints that do not lift the fingers go on, so that a gripper can close at the lowest point and come up."""
    lowest = ARM[1] * 0.83
    dips = (HOME + np.pad(lowest, (0, 3)))[None]
    assert -0.03 < WORKSPACE.clearance(dips).min() < -0.01
    lifted, look, along = LEADER.lead(dips, np.zeros(3))
    assert look.clearance.min() == pytest.approx(0.002, abs=5e-4)  # of what is near
    assert along == {Reason.LIMIT_TABLE}
    np.testing.assert_array_equal(lifted[0, 7:], dips[0, 7:])  # only that arm gives way

    rig = Rig().armed()
    gripper = ARM[6] * -20.0
    for number in range(1, 5):
        rig.accept(lowest + gripper, chunk_id=number)
        rig.run(0.5)
    command = rig.sent[-1]
    assert command.state == State.TRACKING
    check_clearance(rig.sent, WORKSPACE)
    assert least(command.motion.position, Reason.LIMIT_TABLE) < 0.006
    np.testing.assert_allclose(command.motion.position[6], HOME[6] - 20.0, atol=1.0)
    assert rig.controller.interventions[Reason.LIMIT_TABLE] == 1
    check_limits(rig.sent, rig.controller.limiter)


class SlowClock(Clock):
    """Of a simulation on a busy machine."""

    def advance(self, period_ns):
        self.now_ns += period_ns * 2 // 5
        self.steady_ns += period_ns


@pytest.mark.parametrize("clock", [Clock, SlowClock])
def test_fingers_on_the_table_let_go(clock):
    """From a trial: at rest on the table's margin, the plan sinks on while it opens the gripper.

    Each joint at its fastest would dip there; the straight way does not.
    """
    resting = [-0.4630, 2.5012, -1.4825, -0.2000, 0.3486, 0.0203, 2.98]
    wanted = [-0.4388, 2.6379, -1.5481, -0.3612, 0.3725, 0.0206, 61.2]
    rig = Rig()
    rig.clock, rig.noise = clock(rig.clock.now_ns, rig.clock.steady_ns), 0.0
    rig.joints[:7] = resting
    assert 0 <= least(rig.joints, Reason.LIMIT_TABLE) < 1e-4
    rig.run(0.5)
    rig.armed()
    for number in range(1, 6):
        rig.accept(np.pad(wanted - HOME[:7], (0, 7)), chunk_id=number)
        rig.run(0.5)
    goal = np.concatenate([wanted, HOME[7:]])
    np.testing.assert_allclose(rig.sent[-1].motion.position, LEADER.lead(goal[None], np.zeros(3))[0][0], atol=0.01)
    check_clearance(rig.sent, WORKSPACE)
    check_limits(rig.sent, rig.controller.limiter)
