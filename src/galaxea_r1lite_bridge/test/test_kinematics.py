import numpy as np
import pytest
import yourdfpy

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import Kinematics
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


@pytest.fixture(scope="module")
def robot():
    return RobotConfig.load()


@pytest.fixture(scope="module")
def reference(robot):
    """An independent implementation of URDF kinematics."""
    return yourdfpy.URDF.load(str(robot.urdf_path), load_meshes=False, build_collision_scene_graph=False)


def test_agrees_with_an_independent_library_to_a_nanometre(robot, reference):
    kinematics = robot.kinematics()
    random = np.random.default_rng(0)
    links = [
        f"{side}_{part}" for side in ("left", "right") for part in ("arm_link3", "gripper_link", "gripper_finger_link2")
    ]
    links += ["camera_wrist_left_link", "camera_head_left_link", "torso_link3"]
    for _ in range(50):
        pose = {name: random.uniform(*limits) for name, limits in kinematics.limits.items()}
        reference.update_cfg(pose)
        for link in links:
            np.testing.assert_allclose(
                kinematics.pose(link, pose), reference.get_transform(link, "base_link"), rtol=0, atol=1e-9
            )


def test_towel_pose_puts_the_head_camera_where_it_was_measured(robot):
    """At the towel pose of the torso the head camera was measured at x 0.223, y 0.030, z 1.272 m, 40.4 deg down."""
    torso = dict(zip(robot.groups["torso"].joints, (-0.82, 1.5, 0.5), strict=True))
    pose = robot.kinematics().pose("camera_head_left_link", torso)
    np.testing.assert_allclose(pose[:3, 3], [0.223, 0.030, 1.272], atol=2e-3)
    assert np.degrees(-np.arcsin(pose[2, 2])) == pytest.approx(40.4, abs=0.1)


def test_arms_are_the_same_chain_and_fingers_follow_the_stroke(robot):
    kinematics = robot.kinematics()
    angles = [0.1, 1.7, -1.8, 0.9, 0.2, 0.3]
    tips = {}
    for side in ("left", "right"):
        pose = dict(zip(robot.groups[f"{side}_arm"].joints, angles, strict=True))
        tips[side] = kinematics.pose(f"{side}_gripper_link", pose, base=f"{side}_arm_base_link")
    np.testing.assert_array_equal(tips["left"], tips["right"])
    fingers = robot.urdf_positions("left_gripper", np.array([100.0]))
    assert set(fingers) <= set(kinematics.limits)
    gap = [kinematics.pose(f"left_gripper_finger_link{k}", fingers, base="left_gripper_link")[1, 3] for k in (1, 2)]
    assert gap[0] - gap[1] == pytest.approx(0.1 + 2 * 0.013453)


def test_every_joint_and_every_link_is_connected(robot, reference):
    assert reference.validate()
    assert reference.base_link == "base_link"
    for group in robot.groups.values():
        if group.unit == "rad":
            assert set(group.joints) <= set(robot.kinematics().limits)


def test_bad_urdf(tmp_path):
    path = tmp_path / "robot.urdf"
    path.write_text("<robot><joint name='a' type='floating'/></robot>")
    with pytest.raises(ConfigError, match="joint a has type floating"):
        Kinematics.from_urdf(path)
    path.write_text("<robot>")
    with pytest.raises(ConfigError, match="cannot be read as URDF"):
        Kinematics.from_urdf(path)
