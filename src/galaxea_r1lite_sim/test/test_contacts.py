"""Contacts of the robot: kinds and figures, and the collisions themselves."""

import json

import numpy as np
import pytest

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.contacts import Contact, ContactLog, RobotParts, counts, summarise, texts

ROBOT = RobotConfig.load()
ABOVE = {
    "torso": "base", "head": "torso", "left_base": "torso", "left_1": "left_base", "left_2": "left_1",
    "left_finger": "left_2", "right_base": "torso", "right_1": "right_base", "right_2": "right_1",
}  # fmt: skip
PARTS = RobotParts(ABOVE, {"left": "left_1", "right": "right_1"}, ["left_finger"])


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("left_2", "right_2", "arm-arm"),
        ("left_2", "right_base", "arm-arm"),  # what carries one arm alone is that arm's
        ("left_base", "left_finger", "own-arm"),
        ("head", "left_finger", "arm-body"),
        ("base", "right_1", "arm-body"),
        ("left_finger", "table", "finger-table"),
        ("left_2", "table", "link-table"),
        ("torso", "table", "link-table"),
    ],
)
def test_kinds(first, second, kind):
    log = ContactLog(PARTS)
    log.add(0.0, 0.1, [(second, first, 1.0)])
    log.add(0.1, 0.1, [(first, second, 2.0)])
    assert log.contacts == (Contact(kind, first, second, 2.0, 0.0, 0.2, 1),)


def test_the_log_keeps_the_deepest_the_first_time_and_how_often():
    log = ContactLog(PARTS)
    depths = {1: 1.0, 2: 3.0, 3: 2.0, 5: 2.5, 30: 0.5}  # step: mm; apart for one step, and for a quarter of a second
    for step in range(40):
        touching = [("left_2", "table", depths[step]), ("left_2", "table", 0.1)] if step in depths else []
        log.add(step / 100, 0.01, touching)
    (contact,) = log.contacts
    assert (contact.depth, contact.begin, contact.count) == (3.0, 0.01, 2)
    assert contact.duration == pytest.approx(0.05)


def test_the_summary_says_how_often_and_the_deepest():
    shallow = Contact("finger-table", "left_finger", "table", 0.5, 1.0, 0.2, 2)
    deep = Contact("finger-table", "right_finger", "table", 1.5, 2.0, 0.1, 1)
    summary = summarise([(), (shallow,), (shallow, deep)])
    assert summary["finger-table"] | {"deepest": None} == {"episodes": 2, "count": 5, "deepest": None}
    assert summary["finger-table"]["deepest"]["first"] == "right_finger"
    assert summary["arm-arm"] == {"episodes": 0, "count": 0, "deepest": None}
    assert counts(json.loads(json.dumps(summary)), ["link-table", "finger-table"]) == {"finger-table": 5}
    assert counts({}, ["arm-arm"]) == {}
    assert texts(summary) == {
        "robot touched itself": "never",
        "robot touched the table": "5 x finger-table in 2 episodes (deepest 1.5 mm, right_finger with table)",
    }


mujoco = pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

from galaxea_r1lite_sim.randomization import Conditions  # noqa: E402
from galaxea_r1lite_sim.simulation import Simulation  # noqa: E402


def driven(seconds, **joints):
    """The simulation after some seconds with these targets, named as left_arm_joint2; the rest at home."""
    simulation = Simulation(ROBOT, Conditions())
    simulation.target = simulation.joints
    for name, value in joints.items():
        simulation.target[ROBOT.joint_names.index(name)] = value
    simulation.step(seconds)
    return simulation


def test_arms_that_are_driven_into_each_other_do_not_pass_through():
    simulation = driven(1.5, left_arm_joint1=-1.2, right_arm_joint1=1.2)
    assert {contact.kind for contact in simulation.contacts} == {"arm-arm"}
    assert 0.3 < simulation.contacts[0].begin < 1.0
    assert all(0 < contact.depth < 5 for contact in simulation.contacts)
    assert np.abs((simulation.joints - simulation.target)[ROBOT.is_arm]).max() > 0.03, "they keep each other off"


def test_fingers_on_the_table_are_noticed_and_not_pushed():
    simulation = driven(2.0, left_arm_joint2=2.5, left_arm_joint3=-1.6)
    assert {contact.kind for contact in simulation.contacts} == {"finger-table"}
    assert all(0 < contact.depth < 40 and contact.begin > 0.3 for contact in simulation.contacts)
    np.testing.assert_allclose(simulation.joints[ROBOT.is_arm], simulation.target[ROBOT.is_arm], atol=1e-3)


def test_other_links_stop_at_the_table():
    simulation = driven(2.0, left_arm_joint2=2.8, left_arm_joint3=-1.6)
    deepest = max(contact.depth for contact in simulation.contacts if contact.kind == "link-table")
    assert 0 < deepest < 10
    assert np.abs(simulation.joints - simulation.target)[ROBOT.is_arm].max() > 0.03


def test_links_that_belong_together_never_touch():
    """Over the hardware's whole range: neighbours, the parts around the wrist, the fingers of a gripper."""
    simulation = Simulation(ROBOT, Conditions())
    model, data, random = simulation.model, simulation.data, np.random.default_rng(0)
    places = model.jnt_qposadr[[model.joint(name).id for name in ROBOT.kinematics().limits if "torso" not in name]]
    lower, upper = np.array([limit for name, limit in ROBOT.kinematics().limits.items() if "torso" not in name]).T
    touched = set()
    for _ in range(500):
        data.qpos[places] = random.uniform(lower, upper)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        touched |= {(min(a, b), max(a, b)) for a, b, _ in simulation._touching()}
    assert ("left_arm_base_link", "left_arm_link1") not in touched
    assert ("left_arm_link4", "left_arm_link6") not in touched
    assert ("left_gripper_finger_link1", "left_gripper_finger_link2") not in touched
    assert ("left_arm_link2", "left_arm_link4") in touched, "what can really meet is not left out"
    assert ("left_arm_link2", "torso_link3") in touched
    assert ("left_gripper_link", "table") in touched


def test_the_robot_does_not_touch_the_towel():
    """But for the grasp rule."""
    model = Simulation(ROBOT, Conditions()).model
    links = model.geom_bodyid > 0
    towel, towels = model.flex_contype[0], model.flex_conaffinity[0]
    assert not (model.geom_contype[links] & towels).any()
    assert not (model.geom_conaffinity[links] & towel).any()
    assert links.sum() > 50
