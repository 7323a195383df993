import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.camera import Cameras, not_rendered
from galaxea_r1lite_sim.expert import STEP, UnreachableError
from galaxea_r1lite_sim.randomization import Conditions, draw
from galaxea_r1lite_sim.simulation import Simulation
from galaxea_r1lite_sim.tasks.fold import Fold, FoldExpert, vertices

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()


def run_expert(simulation, targets):
    for row in targets:
        simulation.target = row
        simulation.step(STEP)
    simulation.step(8 * STEP)
    return simulation.progress()


@pytest.fixture(scope="module")
def folded():
    """A fold by the expert: what the cameras saw before and after, and the simulation."""
    simulation = Simulation(ROBOT, draw(3))
    cameras = Cameras(simulation)
    before = {name: cameras.render(name) for name in cameras.names}
    flat = simulation.progress()
    run_expert(simulation, simulation.plan())
    return simulation, before, {name: cameras.render(name) for name in cameras.names}, flat


def test_links_are_where_the_kinematics_say():
    simulation = Simulation(ROBOT, Conditions())
    joints = dict(zip(ROBOT.joint_names, simulation.joints, strict=True))
    joints |= dict(zip(ROBOT.groups["torso"].joints, simulation.torso, strict=True))
    cameras = (mount.link for mount in ROBOT.mounts.values())
    for link in (*cameras, "left_gripper_link", "right_arm_link5"):
        expected = ROBOT.kinematics().pose(link, joints)
        position, turn = simulation.pose(link)
        np.testing.assert_allclose(position, expected[:3, 3], atol=1e-6)
        np.testing.assert_allclose(turn, expected[:3, :3], atol=1e-6)
    tool = ROBOT.workspace.arms["left_arm"].tool
    expected = (ROBOT.kinematics().pose(tool.link, joints) @ [*tool.point, 1])[:3]
    np.testing.assert_allclose(simulation.tool("left_arm"), expected, atol=1e-6)


def test_it_starts_at_the_start_pose_with_a_flat_towel():
    conditions = draw(5, "objects")
    simulation = Simulation(ROBOT, conditions)
    home = np.array([value for group in ROBOT.commanded.values() for value in group.home])
    arms = np.array([unit == "rad" for unit in ROBOT.units])
    np.testing.assert_allclose(simulation.joints[arms], home[arms] + conditions.start_noise, atol=3e-3)
    np.testing.assert_allclose(simulation.joints[~arms], home[~arms], atol=0.5)
    progress = simulation.progress()
    assert not progress.success
    assert progress.footprint == pytest.approx(1.0, abs=0.06)
    assert progress.distance == pytest.approx(conditions.task.size, abs=0.01)
    np.testing.assert_allclose(vertices(simulation).mean(axis=(0, 1))[:2], conditions.task.center, atol=5e-3)


def test_joints_follow_their_targets_with_a_lag_and_a_speed_limit():
    simulation = Simulation(ROBOT, Conditions())
    start = simulation.joints
    simulation.target = start + np.where(np.arange(14) == 0, 0.5, 0.0)
    simulation.speed_limit[0] = 0.5
    positions = []
    for _ in range(60):
        simulation.step(1 / 60)
        positions.append(simulation.joints[0])
    speed = np.diff(positions) * 60
    assert speed.max() < 0.65
    assert 0.02 < positions[5] - start[0] < 0.05
    simulation.step(2.0)
    assert simulation.joints[0] == pytest.approx(start[0] + 0.5, abs=5e-3)
    assert np.abs(simulation.joint_velocities).max() < 0.05


def test_the_expert_folds(folded):
    simulation, _, _, flat = folded
    progress = simulation.progress()
    assert not flat.success
    assert progress.success
    assert progress.distance < 0.02
    assert progress.grasps == {"left_arm": 1, "right_arm": 1}
    towel = vertices(simulation)
    assert (towel[0, [0, -1], 2] > towel[-1, [0, -1], 2]).all(), "the folded corners lie on top of the others"
    assert towel[..., 2].min() > ROBOT.workspace.table_height - 2e-3
    assert {contact.kind for contact in simulation.contacts} == {"finger-table"}, "it does not touch itself"
    assert max(contact.depth for contact in simulation.contacts) < 20.0


@pytest.mark.parametrize("steps", [45, 70])
def test_the_expert_goes_on_with_a_towel_in_its_grippers(steps):
    simulation = Simulation(ROBOT, draw(4, "objects"))
    targets = simulation.plan()
    for row in targets[:steps]:
        simulation.target = row
        simulation.step(STEP)
    assert set(simulation.progress().held) == {"left_arm", "right_arm"}
    left = simulation.plan()
    assert len(left) < len(targets) - 30
    progress = run_expert(simulation, left)
    assert progress.success
    assert progress.distance < 0.02
    assert progress.grasps == {"left_arm": 1, "right_arm": 1}, "it did not let go in between"


def test_the_expert_stays_inside_the_robots_limits(folded):
    simulation = Simulation(ROBOT, draw(3))
    targets = simulation.plan()
    speed = np.abs(np.diff(targets, axis=0)) / STEP
    assert speed[:, np.array(ROBOT.units) == "rad"].max() < 2.5
    for name, place in ROBOT.slices.items():
        lower, upper = np.array(ROBOT.groups[name].limits.position).T
        assert (targets[:, place] >= lower).all()
        assert (targets[:, place] <= upper).all()


def test_equal_seeds_give_equal_motion_and_others_do_not():
    ends = []
    for seed in (1, 1, 2):
        simulation = Simulation(ROBOT, draw(seed))
        targets = simulation.plan()
        for row in targets[:45]:
            simulation.target = row
            simulation.step(STEP)
        ends.append(vertices(simulation))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


@pytest.mark.parametrize("offset", [0.0, 0.05])
def test_a_gripper_takes_only_what_is_near(offset):
    simulation = Simulation(ROBOT, Conditions())
    targets = FoldExpert(ROBOT, simulation.joints, vertices(simulation) - [offset, 0, 0]).targets
    for row in targets[:40]:
        simulation.target = row
        simulation.step(STEP)
    assert set(simulation.progress().held) == (set() if offset else {"left_arm", "right_arm"})
    assert list(simulation.progress().grasps.values()) == ([0, 0] if offset else [1, 1])


def test_a_towel_out_of_reach_is_named():
    simulation = Simulation(ROBOT, Conditions(Fold(center=(0.95, 0.0))))
    with pytest.raises(UnreachableError, match=r"out of reach: \w+_arm misses \(.*\) m by"):
        simulation.plan()


def test_cameras_see_the_towel_and_the_fold(folded):
    simulation, before, after, _ = folded
    for name in ROBOT.cameras:
        assert before[name].shape == (180, 320, 3)
        assert before[name].dtype == np.uint8
    assert np.abs(before["head"].astype(int) - after["head"]).max() > 60
    color = 255 * np.array(simulation.conditions.task.color[0])

    def towel_pixels(image):
        unit = image / np.maximum(np.linalg.norm(image, axis=2, keepdims=True), 1)
        return (unit @ (color / np.linalg.norm(color)) > 0.999).sum()

    assert towel_pixels(before["head"]) > 1.4 * towel_pixels(after["head"]) > 100


def test_projection_is_that_of_a_pinhole_camera():
    """The table's far left corner is seen where the camera's pose and field of view say."""
    simulation = Simulation(ROBOT, Conditions())
    image = Cameras(simulation, 360, 640).render("head").astype(int)
    position, turn = simulation.pose(ROBOT.mounts["head"].link)
    corner = np.array([0.56 + 0.30, 0.60, ROBOT.workspace.table_height])
    x, y, z = turn.T @ (corner - position)
    focal = 180 / np.tan(np.deg2rad(77) / 2)
    column, row = int(320 + focal * x / z), int(180 + focal * y / z)
    background, table = image[row - 7 : row - 4, column], image[row + 6, column + 12]
    assert np.abs(background.mean(axis=0) - image[:3, 320].mean(axis=0)).max() < 5
    assert np.abs(table - background).max() > 10


def test_a_still_scene_never_gives_two_equal_pictures_and_equal_times_give_equal_ones():
    simulation, twin = Simulation(ROBOT, draw(3)), Simulation(ROBOT, draw(3))
    cameras, others = Cameras(simulation), Cameras(twin)
    pictures = []
    for _ in range(20):
        simulation.data.time += 1 / 15  # nothing else changes
        twin.data.time += 1 / 15
        pictures.append(cameras.render("head"))
        np.testing.assert_array_equal(pictures[-1], others.render("head"))
    assert len({picture.tobytes() for picture in pictures}) == 20
    assert np.std(pictures, axis=0).mean() == pytest.approx(1.5, abs=0.2)


@pytest.fixture
def robot_file(tmp_path):
    """Writes the robot's YAML with changes."""

    def write(change):
        data = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
        change(data)
        path = tmp_path / "robot.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return RobotConfig.load(path)

    return write


CHEST = {"topic": "chest/compressed", "type": "sensor_msgs/msg/CompressedImage", "dataset_key": "chest_rgb"}
MOUNT = {"link": "camera_head_right_link", "field_of_view": 60}


def test_a_fourth_camera_is_rendered_where_its_mount_is_known(robot_file):
    robot = robot_file(lambda data: data["cameras"].update(chest={**CHEST, "mount": MOUNT}))
    cameras = Cameras(Simulation(robot, draw(3)))
    assert cameras.names == ["head", "wrist_left", "wrist_right", "chest"]
    assert cameras.render("chest").std() > 10
    np.testing.assert_array_equal(cameras.render("head"), Cameras(Simulation(ROBOT, draw(3))).render("head"))


def test_a_camera_without_a_mount_is_left_out_and_named(robot_file):
    robot = robot_file(lambda data: data["cameras"].update(chest=CHEST))
    assert Cameras(Simulation(robot, draw(3))).names == ["head", "wrist_left", "wrist_right"]
    assert not_rendered(robot, robot.cameras) == [
        "the simulator cannot render camera chest: add cameras.chest.mount (link, field_of_view) to the robot's YAML"
    ]


def test_another_torso_is_simulated_and_another_arm_refused(robot_file):
    def rename(data):
        data["groups"]["spine"] = data["groups"].pop("torso")

    simulation = Simulation(robot_file(rename), draw(3))
    np.testing.assert_array_equal(simulation.torso, ROBOT.groups["torso"].home)
    simulation.plan()

    def shorten(data):
        group = data["groups"]["left_arm"]
        for values in (group["joints"], group["home"], *group["limits"].values()):
            values.pop()

    with pytest.raises(ConfigError, match="two arms of 6 joints and two grippers, got left_arm: 5, left_gripper: 1, "):
        Simulation(robot_file(shorten), draw(3))

    def replace_gripper(data):
        data["groups"]["left_gripper"]["joints"] = ["hand"]

    with pytest.raises(ConfigError, match="left_gripper.joints: the simulator moves hand_finger_joint1, which is not"):
        Simulation(robot_file(replace_gripper), draw(3))


def test_seeds_vary_what_their_level_says():
    none, placed, full = (draw(4, level) for level in ("none", "objects", "full"))
    assert none == Conditions()
    assert placed.task.center == full.task.center != none.task.center
    assert placed.task.color == none.task.color != full.task.color
    assert draw(5).friction != draw(4).friction
    for seed in range(200):
        drawn = draw(seed)
        assert max(abs(drawn.task.center[0] - 0.5), abs(drawn.task.center[1])) <= 0.05
        assert abs(drawn.task.yaw) <= np.deg2rad(15)
        assert 0.6 <= drawn.friction <= 1.0
