"""Whether recorded joints are in the unit that they should be in."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_motion import oddities
from galaxea_r1lite_bridge.robot.joint_units import check_units, contradictions
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
T = np.linspace(0, 2, 31)[:, None]


def episode(**changed):
    """State and action by group; `state_GROUP` and `action_GROUP` change them, by a function or to numbers."""
    sides = {}
    for side, ahead in (("state", 0.0), ("action", 0.2)):
        groups = {name: np.array(group.home) + 0.1 * np.sin(T + ahead) for name, group in ROBOT.commanded.items()}
        groups |= {name: 50 + 40 * np.sin(2 * T + ahead) for name in groups if "gripper" in name}
        for key, change in changed.items():
            if key.startswith(f"{side}_"):
                name = key.removeprefix(f"{side}_")
                groups[name] = change(groups[name]) if callable(change) else np.full_like(groups[name], change)
        sides[side] = groups
    return sides["state"], sides["action"]


def found(**changed):
    return list(contradictions(ROBOT, *episode(**changed)))


def fraction(x):
    return x / 100


def jitter(x):
    return 0.3 + 0.2 * np.sin(40 * T)


def closing(x):
    return np.maximum(70 * (1 - 3 * T), 0.5)


WAVE = 0.3 * np.sin(3 * T) * [0, 0, 0, 0, 0, 1]
SLOWLY = {f"{side}_{arm}_arm": lambda x: x[:1] + 0 * x for side in ("state", "action") for arm in ("left", "right")}

FINE = {
    "as declared": {},
    "a gripper that is closed all the time": {"state_left_gripper": 0.6, "action_left_gripper": 0.0},
    "a gripper that closes": {"state_left_gripper": closing, "action_left_gripper": jitter},
    "a gripper on something": {"state_left_gripper": 45.0, "action_left_gripper": lambda x: 20 + 10 * np.sin(T)},
    "a gripper 3 mm off": {"state_left_gripper": lambda x: x - 12},
    "an arm that rests": {"state_left_arm": lambda x: 0 * x + x[0], "action_left_arm": lambda x: 0 * x + x[0]},
    "nothing moves": {**SLOWLY, "state_left_gripper": 0.7, "action_left_gripper": 0.2,
                      "state_right_gripper": 70.0, "action_right_gripper": 70.0},
}  # fmt: skip


@pytest.mark.parametrize("changed", FINE.values(), ids=FINE)
def test_what_can_be_is_no_contradiction(changed):
    assert found(**changed) == []


WRONG = {
    "arms in degrees": ({"state_left_arm": np.degrees}, ["left_arm_joint2 is measured", "degrees, a factor of 57.3"]),
    "targets in degrees": ({"action_right_arm": np.degrees}, ["right_arm_joint", "is commanded", "unit: deg"]),
    "a turn": ({"state_left_arm": lambda x: x + 2 * np.pi}, ["outside its range of", "rad"]),
    "0 to 1": (
        {"state_left_gripper": fraction, "action_left_gripper": fraction},
        ["left_gripper is measured and commanded", "0 to 1, a factor of 100 (range: [0, 1])"],
    ),
    "0 to 1, at rest": (
        {"state_left_gripper": 0.7, "action_left_gripper": 0.2},
        ["left_gripper is measured and commanded at 0.2 to 0.7", "a factor of 100"],
    ),
    "measured 0 to 1": (
        {"state_right_gripper": fraction},
        ["right_gripper is measured", "a factor of 100", "the other side says mm"],
    ),
    "commanded 0 to 1": ({"action_right_gripper": fraction}, ["right_gripper is commanded", "a factor of 100"]),
    "metres": (
        {"state_left_gripper": lambda x: x / 1000, "action_left_gripper": lambda x: x / 1000},
        ["m, a factor of 1000 (unit: m)"],
    ),
    "0 to 255": ({"state_left_gripper": lambda x: 2.55 * x}, ["it looks like 0 to 255, a factor of 2.55"]),
    "an arm that does not follow": (
        {"action_left_arm": lambda x: x + 0.5 * np.sin(3 * T), "state_left_arm": lambda x: x[:1] + 1e-4 * np.sin(T)},
        ["left_arm_joint", "while it was commanded", "a factor of"],
    ),
    "commanded differences": (
        {"action_left_arm": lambda x: np.diff(x, axis=0, prepend=x[:1])},
        ["left_arm_joint2 is measured at 1.75 to 1.85 rad and commanded at -0.0", "no absolute targets"],
    ),
    "commanded zeros": ({"action_right_arm": 0.0}, ["right_arm_joint2 is measured", "commanded at 0 to 0 rad"]),
    "joints in another order": (
        {"state_left_arm": lambda x: x[:, [3, 1, 2, 0, 4, 5]]},
        ["left_arm_joint4 is measured at -0.05", "they are of different joints"],
    ),
    "measured the other way": (
        {"state_left_arm": lambda x: x - WAVE, "action_left_arm": lambda x: x + WAVE},
        ["left_arm_joint6 moves against what it is commanded: one of both counts the other way (sign: -1)"],
    ),
    "a gripper that closes when it is opened": (
        {"state_left_gripper": lambda x: 100 - x},
        ["left_gripper moves against what it is commanded: one of both counts the other way (range: [100, 0])"],
    ),
    "an arm that nobody commands": (
        {"state_left_arm": lambda x: x + 2 * WAVE, "action_left_arm": lambda x: 0 * x + x[0]},
        ["left_arm_joint6 moved 1.", "rad while it was commanded 0 rad: these are not the commands that moved it"],
    ),
}
NO_UNITS = ("a turn", "an arm that does not follow", "commanded differences", "commanded zeros",
            "joints in another order", "measured the other way", "a gripper that closes when it is opened",
            "an arm that nobody commands")  # fmt: skip


@pytest.mark.parametrize(("changed", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_told_with_the_likely_factor(changed, says):
    problems = found(**changed)
    assert len(problems) == 1
    for text in says:
        assert text in problems[0]
    state, action = episode(**changed)
    with pytest.raises(ConfigError) as error:
        check_units(ROBOT, state, action, "bag", "the robot file", ())
    assert str(error.value) == f"bag: {problems[0]}. Another unit is declared in the robot file"


def test_a_unit_that_is_declared_is_believed():
    held = episode(state_left_gripper=0.7, action_left_gripper=0.6)
    assert list(contradictions(ROBOT, *held))
    assert list(contradictions(ROBOT, *held, {"left_gripper"})) == []


def test_radians_that_were_declared_as_degrees_are_told():
    taken = episode(state_left_arm=lambda x: np.radians(x + WAVE), action_left_arm=lambda x: np.radians(x + WAVE))
    (problem,) = contradictions(ROBOT, *taken, {"left_arm"})
    assert "left_arm is measured and commanded within 0.032 rad of 0 all the time" in problem
    assert "taken for degrees, a factor of 57.3 (unit: rad)" in problem
    resting = episode(state_left_arm=lambda x: 0 * x, action_left_arm=lambda x: 0 * x)
    assert list(contradictions(ROBOT, *resting, {"left_arm"})) == []


def test_only_units_are_told_apart_from_what_no_joint_can_be():
    for name, (changed, _) in WRONG.items():
        told = list(contradictions(ROBOT, *episode(**changed), units_only=True))
        assert bool(told) == (name not in NO_UNITS), name


def test_a_joint_that_leaps_is_told():
    state, action = episode()
    assert list(oddities(ROBOT, state, action)) == []
    state["right_arm"][20:, 1] += 0.5
    state["left_arm"][7, 4] += 1.0
    state["left_gripper"][5] = 0
    assert list(oddities(ROBOT, state, action)) == [
        "left_arm_joint5 leaps by 1.01 rad before row 7, and 1 time more: an encoder's fault, or two publishers",
        "right_arm_joint2 leaps by 0.502 rad before row 20: an encoder's fault, or two publishers",
    ]


def test_feedback_that_froze_is_told():
    state, action = episode(action_left_arm=lambda x: x + WAVE)
    state["left_arm"][10:] = state["left_arm"][10]
    state["right_arm"][:] = state["right_arm"][0]  # it is not commanded much
    assert list(oddities(ROBOT, state, action)) == [
        "left_arm is measured at the same place to the last digit in rows 10 to 30, while it is commanded 0.55 rad: "
        "its feedback froze"
    ]


def test_an_episode_without_frames_says_nothing():
    state, action = ({name: values[:0] for name, values in side.items()} for side in episode())
    assert list(contradictions(ROBOT, state, action)) == []
