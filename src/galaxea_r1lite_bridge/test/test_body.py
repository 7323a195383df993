"""The robot's capsules: they hold what the URDF says, and their distances are right."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.robot.body import Body
from galaxea_r1lite_bridge.robot.config import share_directory
from galaxea_r1lite_bridge.robot.fit_body import fit_body
from galaxea_r1lite_bridge.robot.geometry import Capsule, fit, link_solids
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .rig import ROBOT

HOME = np.array([value for group in ROBOT.actuated.values() for value in group.home])
BODY = Body(ROBOT)


def test_the_robot_file_holds_what_the_command_fits():
    path = share_directory() / "config" / "r1lite.yaml"
    assert fit_body(path)[0] == path.read_text()


@pytest.mark.parametrize("link", ["torso_link3", "left_arm_link4", "left_gripper_finger_link1", "base_link"])
def test_every_point_of_a_link_is_inside_of_its_capsules(link):
    solids = link_solids(ROBOT.urdf_path)[link]
    points = np.concatenate([solid.surface(25) for solid in solids])
    capsules = [Capsule(np.array(c.begin), np.array(c.end), c.radius) for c in ROBOT.body[link]]
    assert np.min([capsule.distance(points) for capsule in capsules], axis=0).max() <= 0
    assert fit(solids).outside < 1e-9


def test_a_mesh_is_refused(tmp_path):
    urdf = tmp_path / "robot.urdf"
    urdf.write_text(
        "<robot><link name='a'><collision><geometry><mesh filename='a.stl'/></geometry></collision></link></robot>"
    )
    with pytest.raises(ConfigError, match="robot.urdf: the collision geometry of a must be a box"):
        link_solids(urdf)


def test_distances_are_the_smallest_of_all_pairs_of_points():
    random = np.random.default_rng(0)
    placed = BODY.place(HOME + random.normal(0, 0.3, (5, len(HOME))))
    share = np.linspace(0, 1, 41)[:, None]
    for pair in (BODY.pairs[k] for k in random.choice(len(BODY.pairs), 40, replace=False)):
        found = BODY.distances(placed, np.array([pair.first]), np.array([pair.second]))[:, 0]
        for row, distance in enumerate(found):
            ends = [(placed.begin[:, row, k], placed.end[:, row, k]) for k in (pair.first, pair.second)]
            a, b = (begin + share * (end - begin) for begin, end in ends)
            brute = np.linalg.norm(a[:, None] - b[None], axis=2).min() - BODY.radii[[pair.first, pair.second]].sum()
            assert brute - 0.01 <= distance <= brute + 1e-9


def test_neighbours_are_left_out_and_nothing_else():
    links = {frozenset((BODY.links[pair.first], BODY.links[pair.second])) for pair in BODY.pairs}
    assert frozenset(("left_arm_link2", "left_arm_link3")) not in links
    assert frozenset(("left_gripper_finger_link1", "left_gripper_finger_link2")) not in links
    for pair in (
        ("left_arm_link2", "left_arm_link4"),
        ("left_arm_link3", "left_arm_link5"),
        ("left_arm_link4", "right_arm_link4"),
        ("left_arm_base_link", "right_gripper_finger_link1"),
        ("torso_link3", "left_arm_link2"),
        ("camera_head_left_link", "right_gripper_link"),
        ("base_link", "left_gripper_finger_link2"),
    ):
        assert frozenset(pair) in links
    assert frozenset(("base_link", "torso_link1")) not in links, "no arm moves these"


def test_levers_bound_every_motion():
    random = np.random.default_rng(1)
    for joint in range(len(HOME)):
        for _ in range(20):
            position = HOME + random.normal(0, 0.3, len(HOME))
            moved = position.copy()
            moved[joint] += 0.01
            placed = BODY.place(np.stack([position, moved]))
            assert placed.travel().max() <= 0.01 * BODY.levers[joint] + 1e-12
