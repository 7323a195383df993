"""Joints as drivers, recorders and other people's datasets name and measure them: read right, or refused in a line.

The rules are in docs/concepts/joints.md.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fastwam_policy.cli.main import main
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.recorded_episode import ConvertSettings, read_episode
from fastwam_policy.policies.remote.server.openpi import read_request
from galaxea_r1lite_bridge.robot.config import RobotConfig, share_directory
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from ..served import Client, Counting, request, served
from . import bags
from .made import CAMERAS, FPS, LENGTH, ROBOT, dataset, edit_column, edit_info, episode, positions, table

ORDER = [3, 1, 2, 0, 4, 5]
LEFT = ROBOT.groups["left_arm"].joints
SETTINGS = ConvertSettings("fold the towel")


def robot_file(folder, **messages):
    """A robot whose messages are like that, by group."""
    data = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
    for group, mapping in messages.items():
        data["groups"][group]["messages"] = mapping
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


# --- recordings


def recording(path, joints=None):
    """`joints` gives the numbers and names of each message of a group; `side` is state or action."""
    sides = {f"/{group.feedback}": ("state", name) for name, group in ROBOT.groups.items()}
    sides |= {f"/{group.target}": ("action", name) for name, group in ROBOT.commanded.items()}
    sent = bags.messages()
    for stamp, topic, message in sent if joints else ():
        if topic in sides:
            side, group = sides[topic]
            time = (stamp - bags.BEGIN) / bags.SECOND + (0.2 if side == "action" else 0.0)
            values, message.name = joints(side, group, time)
            message.position = np.asarray(values, np.float64)
    return bags.write(path, sent)


def plain(side, group, time):
    return positions(group, time), ROBOT.groups[group].joints


def only(concerned, change, sides=("state", "action")):
    """What `change` makes of the numbers and names of one group."""
    return lambda side, group, time: (
        change(*plain(side, group, time)) if group == concerned and side in sides else plain(side, group, time)
    )


def permuted(values, names):
    return values[ORDER], [names[place] for place in ORDER]


RIGHT_VALUE = {
    "names_in_another_order": only("left_arm", permuted),
    "names of the targets in another order": only("right_arm", permuted, ("action",)),
    "no names": lambda side, group, time: (positions(group, time), ()),
    "names that are all empty": only("left_arm", lambda values, names: (values, [""] * 6)),
    "a 7th entry without a name": only("left_arm", lambda values, names: ([*values, 9.9], ())),
    "a 7th entry with one": only("left_arm", lambda values, names: ([9.9, *values], ["left_arm_extra", *names])),
}


@pytest.mark.parametrize("joints", RIGHT_VALUE.values(), ids=RIGHT_VALUE)
def test_recordings_are_read_by_name(tmp_path, joints):
    found = read_episode(recording(tmp_path / "bag", joints=joints), ROBOT, SETTINGS)
    for side, groups in (("state", found.state), ("action", found.action)):
        ahead = 0.2 if side == "action" else 0.0
        for group, values in groups.items():
            expected = [positions(group, row / FPS + ahead) for row in range(len(values))]
            np.testing.assert_allclose(values, expected, atol=0.05 if "gripper" not in group else 1.0)
            assert np.abs(np.diff(values[0])).max(initial=0) > 0.01 or "gripper" in group


def fraction(values, names):
    return values / 100, names


REFUSED = {
    "names_wrong": (
        only("left_arm", lambda values, names: (values, ROBOT.groups["right_arm"].joints)),
        [f"state left_arm (expected the joints {', '.join(LEFT)}; got right_arm_joint1", "right_arm_joint6)"],
    ),
    "a name twice": (only("left_arm", lambda v, names: (v, [*names[:5], names[0]])), ["more than once: left_arm_"]),
    "gripper_0_to_1": (
        only("left_gripper", lambda values, names: ([0.7], names)),
        ["left_gripper is measured", "0 to 1, a factor of 100 (range: [0, 1])", "`messages` of its group"],
    ),
    "gripper 0 to 1 that moves": (only("left_gripper", fraction), ["left_gripper", "a factor of 100"]),
    "gripper measured 0 to 1": (only("left_gripper", fraction, ("state",)), ["left_gripper is measured", "of 100"]),
    "degrees": (
        only("left_arm", lambda values, names: (np.degrees(values), names), ("state",)),
        ["left_arm_joint", "outside its range", "degrees, a factor of 57.3 (unit: deg)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("joints", "says"), REFUSED.values(), ids=REFUSED)
def test_recordings_with_other_joints_or_units_are_refused_in_a_line(tmp_path, capsys, joints, says):
    bag = recording(tmp_path / "bag", joints=joints)
    with pytest.raises(SystemExit) as status:
        main(["convert", str(bag), "--output", str(tmp_path / "data"), "--task", "fold"])
    assert status.value.code != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if str(bag) in line]
    for text in says:
        assert text in line
    assert not list(tmp_path.glob("data/data/**/*.parquet")), "nothing is written"


@pytest.mark.parametrize(
    ("joints", "messages"),
    [
        (only("left_gripper", fraction), {"left_gripper": {"range": [0, 1]}}),
        (
            only("left_arm", lambda values, names: (np.degrees(values[ORDER]), [f"j{place}" for place in ORDER])),
            {"left_arm": {"names": [f"j{place}" for place in range(6)], "unit": "deg"}},
        ),
        (only("right_arm", lambda values, names: (-values, names)), {"right_arm": {"sign": -1}}),
    ],
)
def test_what_the_robot_file_says_of_the_messages_is_converted(tmp_path, joints, messages):
    bag, robot = recording(tmp_path / "bag", joints=joints), RobotConfig.load(robot_file(tmp_path, **messages))
    found = read_episode(bag, robot, SETTINGS)
    expected = read_episode(recording(tmp_path / "plain"), ROBOT, SETTINGS)
    for group in ROBOT.commanded:
        np.testing.assert_allclose(found.state[group], expected.state[group], atol=1e-9)
        np.testing.assert_allclose(found.action[group], expected.action[group], atol=1e-9)


def test_a_gripper_that_is_closed_all_the_time_is_converted(tmp_path):
    closed = {"state": [0.6], "action": [0.0]}
    bag = recording(
        tmp_path / "bag",
        joints=lambda side, group, time: (closed[side], ()) if group == "left_gripper" else plain(side, group, time),
    )
    assert (read_episode(bag, ROBOT, SETTINGS).state["left_gripper"] == 0.6).all()


# --- datasets


def whole(folder, names, order=range(14)):
    """A dataset with state and action in one column each, whose names are these."""
    dataset(folder)
    for index in range(2):
        content = pq.read_table(table(folder, index))
        for prefix in ("observation.state", "action"):
            keys = [f"{prefix}.{group}" for group in ROBOT.commanded]
            rows = np.concatenate(
                [np.array(content[key].to_pylist()).reshape(len(content), -1) for key in keys], axis=1
            )
            content = content.drop_columns(keys)
            content = content.append_column(prefix, pa.array(rows[:, list(order)].tolist(), pa.list_(pa.float32())))
        pq.write_table(content, table(folder, index))

    def change(info):
        for prefix in ("observation.state", "action"):
            for group in ROBOT.commanded:
                del info["features"][f"{prefix}.{group}"]
            info["features"][prefix] = {"dtype": "float32", "shape": [len(list(order))], "names": names}

    return edit_info(folder, change)


def vectors(folder):
    reader = Reader(folder, ROBOT, FPS, CAMERAS)
    return reader.vectors(reader.episodes[0])


def assert_as_written(folder):
    for found, groups in zip(vectors(folder), (episode().state, episode().action), strict=True):
        np.testing.assert_allclose(found, np.concatenate(list(groups.values()), axis=1), atol=1e-4)


FLAT = ROBOT.joint_names
AT_THE_END = [*range(6), *range(7, 13), 6, 13]
HALVES = {"left": FLAT[:7], "right": FLAT[7:]}
NAMES = {
    "a list": (FLAT, range(14)),
    "vector_grippers_at_the_end": ([FLAT[place] for place in AT_THE_END], AT_THE_END),
    "names_nested_list": ([FLAT], range(14)),
    "names_dict_motors": ({"motors": FLAT}, range(14)),
    "names_dict_two_keys": (HALVES, range(14)),
    "names_dict_of_indices": ({name: place for place, name in enumerate(FLAT)}, range(14)),
    "indices in another order": ({FLAT[place]: at for at, place in enumerate(AT_THE_END)}, AT_THE_END),
}


@pytest.mark.parametrize(("names", "order"), NAMES.values(), ids=NAMES)
def test_a_vector_is_read_by_its_names(tmp_path, names, order):
    assert_as_written(whole(tmp_path / "data", names, order))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {},
            "observation.state has the shape [14] and no names of its numbers: expected the names of 14 joints, left_",
        ),
        (None, "no names of its numbers"),
        ({"motors": FLAT[:13]}, "has the shape [14], but 13 names"),
        ([*FLAT[:13], FLAT[0]], "more than once: left_arm_joint1"),
        ({name: 2 * place for place, name in enumerate(FLAT)}, "no names of its numbers"),
        ("joints", "no names of its numbers"),
        ([1, 2], "no names of its numbers"),
    ],
)
def test_a_vector_without_complete_names_is_refused_with_what_is_expected(tmp_path, names, says):
    folder = whole(tmp_path / "data", names)
    with pytest.raises(ConfigError) as error:
        Reader(folder, ROBOT, FPS, CAMERAS)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


ROBOCOIN = [f"{side}_{part}" for side in ("left", "right") for part in
            [*(f"arm_joint_{number}_rad" for number in range(1, 7)), "gripper_open"]]  # fmt: skip
ROBOCOIN_MAPPING = {
    f"{side}_{group}": {"names": [name for name in ROBOCOIN if name.startswith(f"{side}_{group}")]}
    for side in ("left", "right")
    for group in ("arm", "gripper")
}


def test_names_of_another_robot_are_refused_with_both_lists_until_a_mapping_says_what_they_are(tmp_path):
    folder = whole(tmp_path / "data", ROBOCOIN)
    with pytest.raises(ConfigError) as error:
        Reader(folder, ROBOT, FPS, CAMERAS)
    text = f"expected the joints {', '.join(FLAT)}; got {', '.join(ROBOCOIN)}"
    assert text in str(error.value)
    mapping = folder / "meta" / "joints.yaml"
    assert f"{mapping}, such as" in str(error.value)
    mapping.write_text(yaml.safe_dump(ROBOCOIN_MAPPING))
    assert_as_written(folder)


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"arm": {"unit": "deg"}}, "the robot has no joint group arm; it has left_arm, "),
        ({"left_arm": {"unit": "mm"}}, "left_arm.unit: joints in rad can come in rad or deg, got mm"),
        ({"left_arm": {"units": "deg"}}, "left_arm.units: Extra inputs"),
        ({"left_arm": 3}, "left_arm"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_with_its_key(tmp_path, mapping, says):
    folder = dataset(tmp_path / "data")
    (folder / "meta" / "joints.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(ConfigError) as error:
        Reader(folder, ROBOT, FPS, CAMERAS)
    assert says in str(error.value)


def feature(folder, key, **changed):
    return edit_info(folder, lambda info: info["features"][key].update(changed))


def test_group_names_reversed(tmp_path):
    folder, key = dataset(tmp_path / "data"), "observation.state.left_arm"
    feature(folder, key, names=LEFT[::-1])
    edit_column(folder, key, lambda rows: [row[::-1] for row in rows])
    assert_as_written(folder)


def test_names_that_put_numbers_where_no_joint_can_be_leave_the_episode_out(tmp_path):
    folder, key = dataset(tmp_path / "data"), "observation.state.left_arm"
    feature(folder, key, names=LEFT[::-1])
    reader = Reader(folder, ROBOT, FPS, CAMERAS)
    state, _ = reader.vectors(reader.episodes[0])
    np.testing.assert_allclose(state[:, :6], episode().state["left_arm"][:, ::-1], atol=1e-4)
    with pytest.raises(ConfigError, match="left_arm_joint3 is measured at .* outside its range of -3.299 to"):
        reader.check(reader.episodes[0])


def test_a_group_without_names_is_in_the_robot_files_order_if_its_shape_fits(tmp_path):
    folder, key = dataset(tmp_path / "data"), "observation.state.left_arm"
    for names in (None, [], {}, ["joints"]):
        assert_as_written(feature(folder, key, names=names))
    feature(folder, key, names=None, shape=[7])
    with pytest.raises(ConfigError, match=r"has the shape \[7\] and no names of its numbers: expected \[6\], left_arm"):
        Reader(folder, ROBOT, FPS, CAMERAS)


def test_a_group_of_another_length_is_read_by_its_names(tmp_path):
    folder, key = dataset(tmp_path / "data"), "observation.state.left_arm"
    for index in range(2):
        content = pq.read_table(table(folder, index))
        rows = pa.array([[9.9, *row] for row in content[key].to_pylist()], pa.list_(pa.float32()))
        pq.write_table(content.set_column(content.schema.get_field_index(key), key, rows), table(folder, index))
    assert_as_written(feature(folder, key, shape=[7], names=["left_arm_extra", *LEFT]))


def test_feature_without_shape(tmp_path):
    folder = dataset(tmp_path / "data")
    edit_info(folder, lambda info: info["features"]["observation.state.left_arm"].pop("shape"))
    assert_as_written(folder)


def test_galaxea_torso_4_extra_columns(tmp_path):
    folder = dataset(tmp_path / "data")
    edit_info(
        folder, lambda info: info["features"].update({"observation.state.torso": {"dtype": "float32", "shape": [4]}})
    )
    path = table(folder)
    content = pq.read_table(path)
    pq.write_table(content.append_column("observation.state.torso", pa.array([[0.0] * 4] * LENGTH)), path)
    assert_as_written(folder)


def scaled(folder, keys, factor):
    for index in range(2):
        for key in keys:
            edit_column(folder, key, lambda rows: (np.array(rows) * factor).tolist(), index)
    return folder


GRIPPERS = [f"{side}.{arm}_gripper" for side in ("observation.state", "action") for arm in ("left", "right")]
ARMS = [f"{side}.{arm}_arm" for side in ("observation.state", "action") for arm in ("left", "right")]
UNITS = {
    "gripper_0_1": (GRIPPERS, 0.01, {"range": [0, 1]}, "gripper", "a factor of 100 (range: [0, 1])"),
    "gripper_0_1, state only": (GRIPPERS[:2], 0.01, None, "gripper", "left_gripper is measured"),
    "gripper in m": (GRIPPERS, 0.001, {"unit": "m"}, "gripper", "m, a factor of 1000 (unit: m)"),
    "gripper 0 to 255": (GRIPPERS, 2.55, {"range": [0, 255]}, "gripper", "0 to 255, a factor of 2.55"),
    "degrees": (ARMS, 180 / np.pi, {"unit": "deg"}, "arm", "degrees, a factor of 57.3 (unit: deg)"),
    "degrees, state only": (ARMS[:2], 180 / np.pi, None, "arm", "is measured at"),
}


@pytest.mark.parametrize(("keys", "factor", "mapping", "group", "says"), UNITS.values(), ids=UNITS)
def test_units_are_told_by_their_span_and_converted_where_they_are_declared(
    tmp_path, keys, factor, mapping, group, says
):
    folder = scaled(dataset(tmp_path / "data"), keys, factor)
    with pytest.raises(ConfigError) as error:
        vectors(folder)
    assert says in str(error.value)
    assert str(error.value).startswith(f"{table(folder)}: episode 0: left_{group}")
    assert f"Another unit is declared in {folder / 'meta' / 'joints.yaml'}" in str(error.value)
    assert "\n" not in str(error.value)
    if mapping:
        declared = {name: dict(mapping) for name in ROBOT.commanded if name.endswith(group)}
        (folder / "meta" / "joints.yaml").write_text(json.dumps(declared))
        assert_as_written(folder)


def test_robot_type_of_another_robot_is_a_note(tmp_path):
    folder = edit_info(dataset(tmp_path / "data"), lambda info: info.update(robot_type="so101_follower"))
    assert "so101_follower" in "".join(Reader(folder, ROBOT, FPS, CAMERAS).notes)
    assert_as_written(folder)


# --- policies on other machines


def test_an_observation_travels_by_name_and_names_each_joint_once():
    info, joints = Counting().info, {name: float(place) for place, name in enumerate(FLAT)}
    shuffled = {FLAT[place]: joints[FLAT[place]] for place in (*AT_THE_END[7:], *AT_THE_END[:7])}
    assert read_request(request(state=shuffled), info).observation.joints == joints
    with pytest.raises(ValueError, match="state: expected the joints .*; got .*missing: left_arm_joint1"):
        read_request(request(state=dict(list(joints.items())[1:])), info)


def test_a_chunk_of_a_server_is_put_in_the_order_that_its_policy_says():
    policy, actions = Counting(), np.tile(np.arange(14.0), (4, 1))
    policy.names, policy.actions = [FLAT[place] for place in AT_THE_END], actions[:, AT_THE_END]
    with served(policy) as address, Client(address) as client:
        np.testing.assert_array_equal(client.ask(request())["actions"], actions)
        policy.names = [*FLAT[:13], FLAT[0]]
        assert "more than once: left_arm_joint1" in client.ask(request())
