"""What is read of a joint message, recording or dataset: by name, in the robot file's order and units, or refused."""

import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.types import JointFeedback
from galaxea_r1lite_bridge.nodes.bridge_messages import target_messages
from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory
from galaxea_r1lite_bridge.robot.joint_gate import Flaw, JointGate, JointMapping, JointsRefusedError, places
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .rig import ROBOT, Rig

JOINTS = ROBOT.groups["left_arm"].joints
OTHERS = ROBOT.groups["right_arm"].joints
NUMBERS = np.arange(1.0, 7.0)
GATE = ROBOT.gates["left_arm"]


def refused(gate, names, values):
    with pytest.raises(JointsRefusedError) as error:
        gate.positions(names, values)
    return error.value.flaw, str(error.value)


@pytest.mark.parametrize("names", [[], JOINTS, [""] * 6, tuple(JOINTS)])
def test_without_names_or_in_order_the_first_numbers_are_taken_as_they_are(names):
    assert GATE.positions(names, NUMBERS).tolist() == NUMBERS.tolist()
    assert GATE.positions(names, [*NUMBERS, math.nan]).tolist() == NUMBERS.tolist(), "the vendor's 7th entry"


@given(order=st.permutations(range(7)), values=st.lists(st.floats(-1e6, 1e6), min_size=7, max_size=7))
def test_names_in_any_order_with_the_vendors_seventh_among_them_are_read_by_name(order, values):
    names = [[*JOINTS, "left_arm_extra"][place] for place in order]
    sent = [values[place] for place in order]
    for _ in range(2):  # the first message of that order, and the next
        assert GATE.positions(names, sent).tolist() == values[:6]
    assert GATE.positions(JOINTS, values[:6]).tolist() == values[:6], "and the order before is none of the next"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (OTHERS, f"got {', '.join(OTHERS)}"),
        ([*JOINTS[:5], "torso_joint1"], "missing: left_arm_joint6; not expected: torso_joint1"),
        ([*JOINTS[:5], JOINTS[0]], "more than once: left_arm_joint1"),
        ([*JOINTS, JOINTS[0]], "more than once: left_arm_joint1"),
        (JOINTS[:5], "missing: left_arm_joint6"),
        (["", *JOINTS[1:]], "missing: left_arm_joint1"),
        (["joint1", "joint2"], "got joint1, joint2"),
        (["x"] * 6000, "... (6000)"),
    ],
)
def test_names_that_are_not_each_joint_once_are_refused_with_both_lists(names, says):
    flaw, text = refused(GATE, names, np.zeros(7))
    assert flaw == Flaw.OTHER_JOINTS
    assert text.startswith(f"expected the joints {', '.join(JOINTS)}; got {', '.join(names[:5])}")
    assert says in text
    assert len(text) < 2000
    assert GATE.positions(JOINTS, NUMBERS).tolist() == NUMBERS.tolist(), "what was refused is not remembered"


@pytest.mark.parametrize(
    ("names", "values", "flaw"),
    [
        ([], NUMBERS[:5], Flaw.TOO_FEW),
        (JOINTS, [], Flaw.TOO_FEW),
        ([*JOINTS[::-1], "extra"], NUMBERS, Flaw.TOO_FEW),
        ([], [math.nan, *NUMBERS[1:]], Flaw.NOT_FINITE),
        (JOINTS[::-1], [math.inf, *NUMBERS[1:]], Flaw.NOT_FINITE),
        ([], [-1e10, *NUMBERS[1:]], Flaw.NOT_FINITE),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(names, values, flaw):
    assert refused(GATE, names, values)[0] == flaw


def gate(own="mm", reach=(0.0, 100.0), joints=("finger",), **mapping):
    return JointGate(joints, own, np.tile(reach, (len(joints), 1)), JointMapping(**mapping))


@pytest.mark.parametrize("mapping", [{"range": [0, 1]}, {"unit": "m"}])
def test_what_conversion_makes_too_large_is_refused(mapping):
    for read in (gate(**mapping).positions, gate(**mapping).speeds):
        for value in (1e307, -1e8):
            with pytest.raises(JointsRefusedError, match="expected finite numbers of finger"):
                read([], [value])


@pytest.mark.parametrize(
    ("mapping", "theirs", "ours"),
    [
        ({"range": [0, 1]}, 0.7, 70.0),
        ({"range": [1, 0]}, 0.7, 30.0),
        ({"range": [0, 255]}, 255.0, 100.0),
        ({"unit": "m"}, 0.02, 20.0),
        ({"unit": "mm"}, 20.0, 20.0),
        ({"sign": -1}, -20.0, 20.0),
        ({"unit": "m", "sign": [-1]}, -0.02, 20.0),
    ],
)
def test_units_are_converted_both_ways(mapping, theirs, ours):
    stroke = gate(**mapping)
    assert stroke.positions([], [theirs]) == pytest.approx([ours])
    assert stroke.write(np.array([ours])) == pytest.approx([theirs])
    assert stroke.rows(np.array([[theirs], [theirs]])) == pytest.approx(np.array([[ours], [ours]]))


@given(
    values=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    sign=st.lists(st.sampled_from([1, -1]), min_size=3, max_size=3),
    unit=st.sampled_from(["rad", "deg"]),
    order=st.permutations(range(3)),
)
def test_what_is_written_is_read_back(values, sign, unit, order):
    arm = gate("rad", (-3.0, 3.0), ("a", "b", "c"), unit=unit, sign=sign, names=["A1", "A2", "A3"])
    sent = arm.write(np.array(values))
    names = [arm.names[place] for place in order]
    np.testing.assert_allclose(arm.positions(names, sent[list(order)]), values, atol=1e-12)
    np.testing.assert_allclose(arm.speeds(arm.names, arm.write_speeds(np.ones(3))), 1.0)
    assert refused(arm, ["a", "b", "c"], values)[0] == Flaw.OTHER_JOINTS


def robot_with(tmp_path, group, **messages):
    data = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
    data["groups"][group]["messages"] = messages
    path = tmp_path / "robot.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def test_the_range_of_a_gripper_is_the_hardwares_whatever_the_limits(tmp_path):
    path = robot_with(tmp_path, "left_gripper", range=[0, 1])
    path.write_text(path.read_text().replace("- - 0\n        - 100", "- - 10\n        - 90"))
    robot = RobotConfig.load(path)
    assert robot.groups["left_gripper"].limits.position != ROBOT.groups["left_gripper"].limits.position
    assert robot.gates["left_gripper"].positions(["left_gripper"], [0.7]) == pytest.approx([70.0])


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ({"unit": "m"}, "groups.left_arm: messages.unit: joints in rad can come in rad or deg, got m"),
        ({"names": ["a"]}, "messages.names: needs one entry for each of the 6 joints, got 1"),
        ({"names": [*JOINTS[:5], JOINTS[0]]}, "messages.names: left_arm_joint1 more than once"),
        ({"sign": [1, -1]}, "messages.sign: needs one entry for each of the 6 joints, got 2"),
        ({"range": [1, 1]}, "range: needs two different numbers"),
        ({"range": [0, 1], "unit": "rad"}, "range: takes the place of unit and sign"),
        ({"units": "rad"}, "messages.units: Extra inputs"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_its_key(tmp_path, messages, says):
    with pytest.raises(ConfigError) as error:
        RobotConfig.load(robot_with(tmp_path, "left_arm", **messages))
    assert says in str(error.value)


def test_targets_are_sent_as_the_robots_messages_are(tmp_path):
    names = [f"axis_{number}" for number in range(6)]
    robot = RobotConfig.load(robot_with(tmp_path, "left_arm", names=names, unit="deg"))
    command = Rig().armed().tick()
    sent = dict(target_messages(robot, command, 0, 0.3))
    assert sent["left_arm"].name == names
    np.testing.assert_allclose(sent["left_arm"].position, np.degrees(command.motion.position[:6]))
    np.testing.assert_allclose(sent["left_arm"].velocity, np.degrees(robot.groups["left_arm"].limits.velocity))
    np.testing.assert_allclose(sent["right_arm"].position, command.motion.position[7:13])


class Messages(Rig):
    """A bridge whose feedback comes through the gates, as messages with the joints in these orders."""

    def __init__(self, orders):
        self.orders = orders
        super().__init__()

    def inputs(self):
        inputs, read = super().inputs(), {}
        for group, feedback in inputs.feedback.items():
            joints, order = ROBOT.groups[group].joints, self.orders.get(group, [0])
            names, sent = [joints[place] for place in order], feedback.positions[list(order)]
            read[group] = JointFeedback(ROBOT.gates[group].positions(names, sent), feedback.age)
        return type(inputs)(inputs.now_ns, inputs.steady_ns, read)


def commands(orders):
    rig = Messages(orders).armed()
    rig.accept(0.2, ramp=True)
    rig.run(0.5)
    return np.array([command.motion.position for command in rig.sent if command.motion is not None])


@settings(max_examples=10, deadline=None)
@given(left=st.permutations(range(6)), right=st.permutations(range(6)), torso=st.permutations(range(3)))
def test_any_order_of_names_gives_the_same_commands(left, right, torso):
    in_order = {"left_arm": range(6), "right_arm": range(6), "torso": range(3)}
    found = commands({"left_arm": left, "right_arm": right, "torso": torso})
    np.testing.assert_array_equal(found, commands(in_order))


def test_places_lists_what_is_missing_and_what_comes_twice():
    assert places(["b", "x", "a"], ["a", "b"]) == [2, 0]
    with pytest.raises(JointsRefusedError, match="expected the joints a, b; got none"):
        places([], ["a", "b"])
