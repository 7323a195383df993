"""Mapping files, and the maths between this robot and what they describe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fastwam_policy.policies.base import Observation, PolicyUnavailableError
from fastwam_policy.policies.remote.layout import Layout, picture
from fastwam_policy.policies.remote.mapping import ImageMapping, Mapping, load_mapping
from fastwam_policy.policies.robot_check import check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

ROBOT = RobotConfig.load()
SHIPPED = sorted((Path(__file__).resolve().parents[3] / "config" / "policies").glob("*.yaml"))
HOME = dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True))
LEFT = [f"left_arm_joint{k}" for k in range(1, 7)]
GRIPPERS = [{"group": "left_gripper", "range": [0, 1]}, {"group": "right_gripper", "range": [0, 1]}]
ALOHA = {
    "protocol": "openpi",
    "images": {"images.cam_high": {"camera": "head", "layout": "CHW", "size": [224, 224]}},
    "state": {"parts": ["left_arm", GRIPPERS[0], "right_arm", GRIPPERS[1]]},
    "action": {"fps": 15, "horizon": 4},
}


def layout(**changed):
    return Layout(validate(ALOHA | changed, Mapping, "mine.yaml"), ROBOT, "mine", "ws://there")


def observation(joints=HOME, **changed):
    images = {camera: np.full((90, 160, 3), 7, np.uint8) for camera in ROBOT.cameras}
    return replace(Observation(5_000_000_000, images, joints, "fold it"), **changed)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_mapping_fits_the_robot_and_turns_its_own_words_back(file):
    mapping, robot = load_mapping(file)
    shipped = Layout(mapping, robot, file.stem, "there")
    check_robot(shipped.info, robot, file.name)
    assert shipped.info.horizon == mapping.action.horizon
    random = np.random.default_rng(0)
    names = [channel.name for channel in shipped.info.action]
    actions = random.uniform(0, 1, (shipped.info.horizon, len(names)))
    wire = shipped.sent(actions)
    assert wire.shape == actions.shape
    assert shipped.request(observation())


def test_names_units_and_order_of_a_request():
    joints = HOME | {"left_gripper": 25.0, "right_gripper": 100.0, "left_arm_joint2": 0.5}
    request = layout(prompt={"template": "Task: {task}\n"}, constants={"mode.kind": "a"}).request(observation(joints))
    assert request["images"]["cam_high"].shape == (3, 224, 224)
    assert request["state"].dtype == np.float32
    assert request["state"].shape == (14,)
    assert (request["state"][1], request["state"][6], request["state"][13]) == (0.5, 0.25, 1.0)
    assert (request["prompt"], request["mode"]) == ("Task: fold it\n", {"kind": "a"})


def test_other_orders_units_and_signs():
    parts = [
        {"group": "right_gripper", "range": [1, 0]},
        {"group": "left_arm", "joints": LEFT[::-1], "unit": "deg", "sign": [1, -1, 1, 1, 1, 1]},
        "right_arm",
        {"group": "left_gripper", "unit": "m"},
    ]
    odd = layout(state={"key": "s", "parts": parts})
    joints = HOME | {"right_gripper": 25.0, "left_gripper": 50.0, "left_arm_joint1": np.pi / 2, "left_arm_joint2": 1.0}
    state = odd.request(observation(joints))["s"]
    np.testing.assert_allclose(state[[0, 5, 6, 13]], [0.75, -np.degrees(1.0), 90.0, 0.05], rtol=1e-6)
    names = [channel.name for channel in odd.info.action]
    assert names == ["right_gripper", *LEFT[::-1], *[f"right_arm_joint{k}" for k in range(1, 7)], "left_gripper"]
    chunk = odd.chunk({"actions": np.tile(state, (4, 1))}, observation(joints))
    np.testing.assert_allclose(chunk.actions, np.tile([joints[name] for name in names], (4, 1)), atol=1e-5)
    assert (chunk.stamp_ns, chunk.names, len(chunk.actions)) == (5_000_000_000, names, 4)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(data):
    signs = st.lists(st.sampled_from([1, -1]), min_size=6, max_size=6)
    arm = {"group": "left_arm", "joints": data.draw(st.permutations(LEFT)), "sign": data.draw(signs)}
    arm["unit"] = data.draw(st.sampled_from(["rad", "deg"]))
    bounds = data.draw(st.sampled_from([[0, 1], [1, 0], [0, 100], [-1, 1]]))
    kind = data.draw(st.sampled_from(["absolute", "delta", "delta_stepwise"]))
    parts = data.draw(st.permutations([arm, {"group": "left_gripper", "range": bounds}, "right_arm", GRIPPERS[1]]))
    odd = layout(state={"parts": parts}, action={"fps": 15, "horizon": 4, "kind": kind})
    wanted = np.array(data.draw(st.lists(st.lists(st.floats(-3, 3), min_size=14, max_size=14), min_size=4, max_size=4)))
    wire = odd.sent(wanted).astype(np.float64)
    here = odd.request(observation())["state"].astype(np.float64)
    if kind == "delta":
        wire = wire - here
    elif kind == "delta_stepwise":
        wire = np.diff(wire, axis=0, prepend=here[None])
    found = odd.chunk({"actions": wire}, observation())
    np.testing.assert_allclose(found.actions, wanted, atol=1e-3)


def test_deltas_become_absolute_and_grippers_may_stay_so():
    parts = ["left_arm", {**GRIPPERS[0], "kind": "absolute"}, "right_arm", {**GRIPPERS[1], "kind": "absolute"}]
    for kind, expected in (("delta", [0.1, 0.1, 0.1, 0.1]), ("delta_stepwise", [0.1, 0.2, 0.3, 0.4])):
        moved = layout(state=None, action={"fps": 15, "horizon": 4, "kind": kind, "parts": parts})
        rows = np.zeros((4, 14))
        rows[:, 0], rows[:, 6] = 0.1, 0.5
        chunk = moved.chunk({"actions": rows}, observation())
        np.testing.assert_allclose(chunk.actions[:, 0] - HOME["left_arm_joint1"], expected)
        np.testing.assert_allclose(chunk.actions[:, 6], 50.0)
        assert len(moved.info.state) == 12, "what a delta needs is observed, even if it is not sent"


def test_arrays_of_their_own_and_flat_keys():
    parts = [{"group": group, "key": group} for group in ROBOT.commanded]
    gr00t = layout(
        protocol="gr00t", images={"video.ego": {"camera": "head"}}, state={"parts": parts},
        action={"key": "action", "fps": 15, "horizon": 4}, prompt={"key": "annotation.task"},
    )  # fmt: skip
    request = gr00t.request(observation())
    assert request["video.ego"].shape == (1, 90, 160, 3)
    assert request["state.left_arm"].shape == (1, 6)
    assert request["annotation.task"] == ["fold it"]
    reply = {f"action.{name}": np.ones((1, 4, len(group.joints))) for name, group in ROBOT.commanded.items()}
    assert (gr00t.chunk(reply, observation()).actions == 1).all()
    reply["action.left_gripper"] = np.ones(4)
    assert gr00t.chunk(reply, observation()).actions.shape == (4, 14)


def test_a_part_that_a_reply_leaves_out_is_held_as_it_was_last_wanted():
    parts = [{"group": group, "key": group} for group in ROBOT.commanded]
    vla = layout(
        protocol="galaxea", state={"parts": parts}, action={"key": "action", "fps": 10, "horizon": 4},
        prompt={"key": "task"},
    )  # fmt: skip
    whole = {name: np.arange(4.0)[:, None] + np.zeros(len(ROBOT.groups[name].joints)) for name in ROBOT.commanded}
    without = {name: rows for name, rows in whole.items() if name != "left_gripper"}
    measured = HOME | {"left_gripper": 44.0}

    def gripper(reply, stamp_ms):
        chunk = vla.chunk({"action": reply}, observation(measured, stamp_ns=stamp_ms * 1_000_000))
        return chunk.actions[:, chunk.names.index("left_gripper")].tolist()

    assert gripper(without, 1000) == [44.0] * 4, "nothing was wanted yet"
    assert gripper(whole, 2000) == [0.0, 1.0, 2.0, 3.0]
    assert gripper(without, 2250) == [2.0] * 4, "as its last chunk has it for that time"
    assert gripper(without, 5000) == [44.0] * 4, "too long ago"
    vla.forget()
    for reply, message in (({}, "the reply has nothing"), (whole | {"tail": [1.0]}, "the reply has .*tail")):
        with pytest.raises(ConfigError, match=message):
            gripper(reply, 6000)


def test_numbers_that_are_not_the_robots():
    """A single arm whose action is a step of its end effector, as OpenVLA's."""
    channels = {"channels": ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]}
    vla = layout(
        protocol="openvla", images={"image": {"camera": "head"}}, state=None,
        action={"fps": 5, "horizon": 1, "parts": [channels], "kind": "delta"},
    )  # fmt: skip
    here = dict(zip(channels["channels"], range(7), strict=True))
    chunk = vla.chunk(np.full(7, 0.5), observation(here))
    assert chunk.actions.tolist() == [[0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]]
    assert {channel.unit for channel in vla.info.action} == {"opaque"}
    with pytest.raises(ConfigError, match="action: x is not a commanded joint of the robot"):
        check_robot(vla.info, ROBOT, "vla")


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("pad", (100, 100), [(0, 0), (22, 255), (50, 255), (77, 255), (99, 0)]),
        ("stretch", (100, 100), [(0, 255), (99, 255)]),
        ("crop", (50, 50), [(0, 255), (49, 255)]),
        ("pad", None, [(0, 255)]),
    ],
)
def test_sizes_of_pictures(fit, size, expected):
    given = np.full((90, 160, 3), 255, np.uint8)
    found = picture(given, ImageMapping(camera="head", size=size, fit=fit))
    assert found.shape == (*(size or (90, 160)), 3)
    for row, value in expected:
        assert (found[row] == value).all(), row
    assert picture(given, ImageMapping(camera="head", size=size, fit=fit, layout="CHW")).shape[0] == 3


def test_cropping_keeps_the_middle_and_stretching_all():
    given = np.zeros((100, 200, 3), np.uint8)
    given[:, :40] = 255
    assert picture(given, ImageMapping(camera="head", size=(50, 50), fit="crop")).max() == 0
    assert picture(given, ImageMapping(camera="head", size=(50, 50), fit="stretch"))[0, :9].min() == 255


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({}, r"expected actions \[4, 14\], the reply has nothing"),
        ({"action": 1, "x": 2}, "the reply has action, x"),
        (None, "the reply has NoneType"),
        ({"actions": np.zeros((5, 14))}, r"the reply has \[5, 14\]; correct action.horizon"),
        ({"actions": np.zeros((4, 32))}, r"the reply has \[4, 32\]"),
        ({"actions": np.zeros(14)}, r"the reply has \[14\]"),
        ({"actions": [[1.0], [1.0, 2.0]]}, "the reply has no array of numbers there"),
        ({"actions": "fold"}, "the reply has no array of numbers there"),
        ({"actions": {"a": 1}}, "the reply has no array of numbers there"),
    ],
)
def test_a_reply_of_another_form_is_refused(reply, message):
    with pytest.raises(ConfigError, match=message) as refused:
        layout().chunk(reply, observation())
    assert not isinstance(refused.value, PolicyUnavailableError)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.7e308])
def test_a_reply_that_is_not_finite_is_none(value):
    rows = np.full((4, 14), value)
    with pytest.raises(PolicyUnavailableError, match="not finite"):
        layout(action={"fps": 15, "horizon": 4, "kind": "delta_stepwise"}).chunk({"actions": rows}, observation())


def arm(**about):
    return {"state": {"parts": [{"group": "left_arm", **about}]}}


WRONG = {
    "unknown key": ({"speed": 1}, "mine.yaml: speed: Extra inputs are not permitted"),
    "protocol": ({"protocol": "grpc"}, "mine.yaml: protocol: Input should be 'openpi'"),
    "horizon": ({"action": {"fps": 15, "horizon": 0}}, "mine.yaml: action.horizon: Input should be greater than 0"),
    "no horizon": ({"action": {"fps": 15}}, "mine.yaml: action.horizon: Field required"),
    "no camera": ({"images": {"x": {"camera": "chest"}}}, "images.x.camera: the robot has no camera chest; it has"),
    "size": ({"images": {"x": {"camera": "head", "size": [224]}}}, "mine.yaml: images.x.size"),
    "no group": ({"state": {"parts": ["leg"]}}, r"state.parts\[0\]: the robot has no group leg; it has left_arm"),
    "unit": (arm(unit="mm"), r"state.parts\[0\].unit: joints in rad can"),
    "signs": (arm(sign=[1, -1]), r"state.parts\[0\].sign: needs one entry"),
    "range and sign": (arm(range=[0, 1], sign=-1), "range: takes the place of unit and sign"),
    "joints": (arm(joints=["a"]), r"state.parts\[0\].joints: must be left_arm"),
    "nothing named": ({"state": {"parts": [{"unit": "rad"}]}}, r"state.parts\[0\]: needs either group or channels"),
    "some keys": ({"state": {"parts": ["left_arm", {"group": "right_arm", "key": "r"}]}}, "state.parts: all have"),
    "no parts": ({"state": None}, "action.parts: needed where there is no state"),
    "one key twice": ({"prompt": {"key": "state"}}, "the key state is used for two things"),
    "a key inside": ({"constants": {"state.x": 1}}, "the key state.x is used for two things, or inside state"),
    "template": ({"prompt": {"template": "fold"}}, "prompt: template: needs {task} where the task goes"),
    "nested": ({"nested": True}, "mine.yaml: nested: is for gr00t"),
    "NaN": ({"timeout_s": float("nan")}, "mine.yaml: timeout_s: Input should be"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_mapping_file_is_named(tmp_path, changed, message):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(ALOHA | changed))
    with pytest.raises(ConfigError, match=message):
        load_mapping(file)


def test_a_mapping_may_be_about_another_robot(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(ALOHA | {"robot": "other.yaml"}))
    with pytest.raises(ConfigError, match="other.yaml: no such file"):
        load_mapping(tmp_path / "mine.yaml")
