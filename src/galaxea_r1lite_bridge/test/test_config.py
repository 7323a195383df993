import sys

import pytest
import yaml

from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays, share_directory
from galaxea_r1lite_bridge.robot.share import share_directory as installed_share
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


@pytest.fixture
def data():
    return yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())


def load(tmp_path, data):
    path = tmp_path / "r1lite.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return RobotConfig.load(path)


def test_the_vector_is_left_arm_left_gripper_right_arm_right_gripper():
    robot = RobotConfig.load()
    assert robot.slices == {
        "left_arm": slice(0, 6),
        "left_gripper": slice(6, 7),
        "right_arm": slice(7, 13),
        "right_gripper": slice(13, 14),
    }
    assert robot.joint_names[6:8] == ["left_gripper", "right_arm_joint1"]
    assert robot.units == ["rad"] * 6 + ["mm"] + ["rad"] * 6 + ["mm"]
    assert {values.shape for values in limit_arrays(robot.commanded)} == {(14,)}
    assert {values.shape for values in limit_arrays(robot.actuated)} == {(17,)}


def change(data, keys, value):
    for key in keys[:-1]:
        data = data[key]
    if value is None:
        del data[keys[-1]]
    else:
        data[keys[-1]] = value


LEFT = ("groups", "left_arm")
SHAPE = {
    "tool": {"link": "left_gripper_link", "point": [0, 0, 0]},
}


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ((*LEFT, "limits", "velocity", 2), -1.0, r"groups.left_arm.limits.velocity\[2\].*greater than 0, got -1.0"),
        ((*LEFT, "limits", "velocity", 2), float("nan"), r"velocity\[2\].*finite"),
        ((*LEFT, "limits", "velocity"), [1.0], r"groups.left_arm.*limits.velocity: needs one entry .* 6 joints, got 1"),
        ((*LEFT, "limits", "position", 0), [1.0, -1.0], r"position\[0\] must be \[lower, upper\]"),
        ((*LEFT, "limits", "position", 0), [-9.0, 1.0], r"position\[0\].* inside the hardware limits"),
        ((*LEFT, "limits"), None, "groups.left_arm.limits: Field required"),
        ((*LEFT, "limits", "step"), [0.1], r"limits.step: needs one entry .* 6 joints, got 1"),
        ((*LEFT, "home", 1), 3.5, r"home\[1\]: 3.5 must lie inside limits.position\[1\], \[0.1, 3.0\]"),
        (
            ("workspace", "box"),
            [[0, 0, 1], [1, 1, 0]],
            "box: the first corner must be the lower one, got z from 1.0 to 0",
        ),
        (("workspace", "arms", "left_arm", "tool", "link"), "hand", "tool.link: hand is not a link of r1lite.urdf"),
        (("body", "hand"), [], "body.hand: hand is not a link of r1lite.urdf"),
        (("workspace", "margins", "arms"), -0.01, "workspace.margins.arms: .*greater than or equal to 0"),
        (
            ("workspace", "arms"),
            {"left_arm": SHAPE, "arm": SHAPE},
            "workspace.arms: arm is not one of the groups that the policy moves",
        ),
        (("base", "type"), "Twist", "base.type"),
        ((*LEFT, "joints", 0), "elbow", "elbow is not a joint of r1lite.urdf"),
        ((*LEFT, "feedback"), "/hdas/feedback_arm_left", "groups.left_arm.feedback: .*pattern"),
        ((*LEFT, "feedback"), "hdas/feedback_arm_right", "topic named more than once: hdas/feedback_arm_right"),
        ((*LEFT, "takeover"), "hdas/feedback_arm_right", "topic named more than once: hdas/feedback_arm_right"),
        (
            ("groups", "torso", "takeover"),
            "takeover/torso",
            "groups.torso: takeover: a person takes over what the policy moves; leave it out here",
        ),
        ((*LEFT, "unit"), "deg", "groups.left_arm.unit: .*'rad' or 'mm'.*got 'deg'"),
        (("cameras", "head", "type"), "Image", "cameras.head.type"),
        (
            ("cameras", "head", "mount", "link"),
            "nose",
            r"r1lite.yaml: cameras.head.mount.link: nose is not a link of r1lite.urdf",
        ),
        (("cameras", "head", "mount", "field_of_view"), 180, "cameras.head.mount.field_of_view: .* less than 180"),
        (("speed",), 1, "speed: Extra inputs"),
        (("qos", "sensor", "depth"), 0, "qos.sensor.depth.*got 0"),
        (("qos",), None, "qos: Field required"),
        (("urdf",), "missing.urdf", "missing.urdf: cannot be read as URDF"),
    ],
)
def test_errors_name_the_key_and_the_fix(tmp_path, data, keys, value, expected):
    change(data, keys, value)
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path, data)


def test_every_error_is_listed(tmp_path, data):
    change(data, ("qos", "sensor", "depth"), 0)
    change(data, (*LEFT, "unit"), "deg")
    with pytest.raises(ConfigError) as error:
        load(tmp_path, data)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "no such file"), ("a: [", "cannot be read as YAML"), ("- 1", "expected a mapping")],
)
def test_unreadable_files(tmp_path, text, expected):
    path = tmp_path / "r1lite.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        RobotConfig.load(path)


def test_a_digest_is_of_what_the_file_says(tmp_path, data):
    """Wherever it lies and however it is written."""
    assert load(tmp_path, data).digest() == RobotConfig.load().digest()
    limits = data["groups"]["left_arm"]["limits"]
    limits["velocity"] = [0.2 for _ in limits["velocity"]]
    assert load(tmp_path, data).digest() != RobotConfig.load().digest()


def test_the_reach_of_a_joint_is_the_hardwares():
    robot = RobotConfig.load()
    assert robot.reach["left_arm"][0].tolist() == [-2.86234670748, 2.86234670748]
    assert robot.reach["right_gripper"].tolist() == [[0.0, 100.0]]
    assert robot.reach["torso"].shape == (3, 2)


def test_without_ros_2_a_packages_files_are_where_pip_put_them(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", None)
    about = tmp_path / "site" / "some_robot-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: some_robot\nVersion: 1\n")
    (about / "RECORD").write_text("some_robot/__init__.py,,\n../share/some_robot/package.xml,,\n")
    (tmp_path / "share" / "some_robot").mkdir(parents=True)
    (tmp_path / "share" / "some_robot" / "package.xml").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert installed_share("some_robot") == tmp_path / "share" / "some_robot"
    with pytest.raises(LookupError, match="another_robot is not installed"):
        installed_share("another_robot")
