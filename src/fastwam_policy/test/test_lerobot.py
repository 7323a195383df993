"""Datasets as LeRobot reads them (version 2.1), and episodes of the simulator in them."""

import errno
import importlib.util
import itertools
import json
import weakref
from contextlib import closing
from dataclasses import replace

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from fastwam_policy.cli.main import main
from fastwam_policy.common.files import alone_in
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim, write_video
from fastwam_policy.data.message_types import typestore
from fastwam_policy.data.recorded_episode import ConvertSettings, read_episode
from fastwam_policy.data.recordings import open_recording, stamp_ns
from fastwam_policy.policies.images import decode_image
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

pytestmark = pytest.mark.training
ROBOT = RobotConfig.load()
NEEDS_SIMULATOR = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="MuJoCo 4 has no wheel for Python 3.10"
)


def episode(length=20, task="fold the towel", seed=0):
    random = np.random.default_rng(seed)
    ramp = np.linspace(20, 200, length).astype(np.uint8)
    images = {camera: [np.full((36, 64, 3), value, np.uint8) for value in ramp] for camera in ROBOT.cameras}
    state, action = (
        {name: random.normal(group.home, 0.05, (length, len(group.home))) for name, group in ROBOT.commanded.items()}
        for _ in range(2)
    )
    return Episode(task, images, state, action)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dataset_is_what_lerobot_expects(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15)
    episodes = [episode(20), episode(31, "wave", 1), episode(12, seed=2)]
    for index in (2, 0, 1):  # in any order
        assert not dataset.has(index)
        dataset.write(index, episodes[index])
        assert dataset.has(index)
    assert dataset.finish() == dataset.finish() == 3

    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v2.1", "R1Lite", 15)
    assert (info["total_episodes"], info["total_frames"], info["total_videos"], info["total_tasks"]) == (3, 63, 9, 2)
    features = info["features"]
    assert features["observation.images.head_rgb"]["shape"] == [36, 64, 3]
    assert features["action.left_gripper"] == {"dtype": "float32", "shape": [1], "names": ["left_gripper"]}
    assert features["observation.state.right_arm"]["names"] == ROBOT.groups["right_arm"].joints
    assert lines(tmp_path / "meta" / "tasks.jsonl")[1] == {"task_index": 1, "task": "wave"}
    assert [e["length"] for e in lines(tmp_path / "meta" / "episodes.jsonl")] == [20, 31, 12]

    table = pq.read_table(tmp_path / info["data_path"].format(episode_chunk=0, episode_index=1))
    assert set(table.column_names) == {key for key in features if not key.startswith("observation.images")}
    assert table["index"].to_pylist() == list(range(20, 51))
    assert set(table["task_index"].to_pylist()) == {1}
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.arange(31) / 15, rtol=1e-6)
    np.testing.assert_allclose(
        np.array(table["action.left_arm"].to_pylist()), episodes[1].action["left_arm"], rtol=1e-6
    )
    statistics = lines(tmp_path / "meta" / "episodes_stats.jsonl")[1]["stats"]
    np.testing.assert_allclose(statistics["action.left_arm"]["mean"], episodes[1].action["left_arm"].mean(axis=0), 1e-5)
    assert statistics["index"]["min"] == [20]
    assert np.shape(statistics["observation.images.head_rgb"]["mean"]) == (3, 1, 1)

    path = tmp_path / info["video_path"].format(
        episode_chunk=0, video_key="observation.images.left_wrist_rgb", episode_index=1
    )
    with av.open(str(path)) as container:
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    np.testing.assert_allclose([time for time, _ in frames], np.arange(31) / 15, atol=1e-3)
    np.testing.assert_allclose([value for _, value in frames], np.linspace(20, 200, 31), atol=4)


def test_a_killed_writer_loses_one_episode_and_the_gap_is_named(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15)
    dataset.write(0, episode())
    dataset.write(2, episode())
    (tmp_path / "meta" / "parts" / "episode_000001.tmp").write_text("{")
    assert not dataset.has(1)
    with pytest.raises(ConfigError, match=r"episodes are missing: \[1\]"):
        dataset.finish()
    with pytest.raises(ConfigError, match="episodes are missing"):
        Dataset(tmp_path / "empty", ROBOT, 15).finish()


def test_bad_episodes_are_named(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15)
    bad = episode()
    bad.action["right_arm"][7, 2] = np.nan
    with pytest.raises(ConfigError, match=r"action.right_arm: NaN or infinity in row 7"):
        dataset.write(0, bad)
    short = episode()
    short.state["torso"] = np.zeros((3, 3))
    with pytest.raises(ConfigError, match=r"state.torso: 3 rows, but the episode has 20 frames"):
        dataset.write(0, short)
    with pytest.raises(ConfigError, match="without frames"):
        dataset.write(0, episode(0))
    assert not any(tmp_path.iterdir())


@NEEDS_SIMULATOR
def test_collect_writes_continues_and_refuses(tmp_path, capsys):
    def collect(*arguments):
        with pytest.raises(SystemExit) as status:
            main(["collect", *map(str, arguments)])
        return status.value.code

    folder = tmp_path / "data"
    small = ("--height", 90, "--workers", 2)
    assert collect(folder, "--episodes", 2, *small, "--json", tmp_path / "figures.json") == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["episodes"], figures["failed_seeds"]) == (2, 0)
    first = (folder / "meta" / "parts" / "episode_000000.json").stat().st_mtime_ns
    assert collect(folder, "--episodes", 3, *small) == 0
    assert (folder / "meta" / "parts" / "episode_000000.json").stat().st_mtime_ns == first, "kept"
    info = json.loads((folder / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 3
    assert info["features"]["observation.images.head_rgb"]["shape"] == [90, 160, 3]
    table = pq.read_table(folder / "data" / "chunk-000" / "episode_000002.parquet")
    action, state = (np.array(table[f"{key}.left_arm"].to_pylist()) for key in ("action", "observation.state"))
    assert 0.005 < np.abs(action - state).mean() < 0.2, "the arm follows its target, with lag and noise"

    assert collect(folder, "--episodes", 3, "--height", 108) == 2
    assert "was begun with other settings: height: 90 -> 108" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    assert collect(tmp_path / "mine", "--episodes", 1) == 2
    assert "is not empty and was not written by collect" in capsys.readouterr().err
    assert collect(tmp_path / "new", "--episodes", 0) == 2


@NEEDS_SIMULATOR
def test_every_task_can_be_collected():
    """The fold is, above; here the other one, with noise."""
    from fastwam_policy.simulation.collect import CollectSettings, record

    made = record(ROBOT, 10_003, CollectSettings("put it there", height=90, simulated="cube"))
    assert made.task == "put it there"
    assert 100 < made.length < 140
    assert len(made.images["head"]) == made.length


@NEEDS_SIMULATOR
@pytest.mark.slow
def test_noise_is_gentle_where_it_matters():
    from fastwam_policy.simulation.collect import CollectSettings, _noise, record

    targets = np.tile(np.where([unit == "mm" for unit in ROBOT.units], 70.0, 0.5), (400, 1))
    targets[200:, [6, 13]] = 0.0
    noise = np.array(list(_noise(ROBOT, targets, 0.015, 3)))
    arms = np.array([unit == "rad" for unit in ROBOT.units])
    assert (noise[:, ~arms] == 0).all()
    assert 0.010 < noise[:150, arms].std() < 0.022
    assert noise[196:205, arms].std() < 0.6 * noise[:150, arms].std()
    first, again = (record(ROBOT, 10_001, CollectSettings("fold", height=90)) for _ in range(2))
    np.testing.assert_array_equal(first.state["left_arm"], again.state["left_arm"])


def convert(*arguments):
    with pytest.raises(SystemExit) as status:
        main(["convert", *map(str, arguments)])
    return status.value.code


def another(recording, folder):
    """The same messages as another recording: without the first ones, since a copy would be known as one."""
    store = typestore()
    count = 1 + len(list(folder.parent.iterdir()))
    with (
        closing(open_recording(recording)) as reader,
        Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        outputs = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in reader.connections}
        for connection, stamp, data in itertools.islice(reader.messages(), count, None):
            writer.write(outputs[connection.topic], stamp, data)
    return folder


def test_a_recording_becomes_an_episode(short_bag, tmp_path):
    second, third = (another(short_bag, tmp_path / name) for name in ("second", "third"))
    assert convert(short_bag, second, "--output", tmp_path / "data", "--task", "fold it", "--height", 90) == 0
    info = json.loads((tmp_path / "data" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 2
    assert info["features"]["observation.images.head_rgb"]["shape"][0] == 90
    assert lines(tmp_path / "data" / "meta" / "tasks.jsonl")[0]["task"] == "fold it"
    table = pq.read_table(tmp_path / "data" / "data" / "chunk-000" / "episode_000000.parquet")
    assert 40 <= len(table) <= 46, "3 s at 15 Hz, without the edges where a stream is missing"
    action, state = (np.array(table[f"{key}.left_arm"].to_pylist()) for key in ("action", "observation.state"))
    assert np.abs(action - state).max() < 0.5
    assert np.abs(np.diff(state, axis=0)).max() < 0.2
    assert convert(short_bag, third, "--output", tmp_path / "data", "--height", 90) == 0  # the first is there already
    assert json.loads((tmp_path / "data" / "meta" / "info.json").read_text())["total_episodes"] == 3


def test_a_recording_that_is_skipped_leaves_no_gap(short_bag, tmp_path):
    """Several at once, the first of them bad: the others move up, with their number in every file."""
    second = another(short_bag, tmp_path / "second")
    bad, folder, figures = tmp_path / "bad", tmp_path / "data", tmp_path / "figures.json"
    assert convert(bad, short_bag, second, "--output", folder, "--height", 90, "--workers", 2, "--json", figures) == 1
    assert json.loads(figures.read_text())["converted"] == 2
    assert "no such recording" in json.loads(figures.read_text())["skipped"][str(bad)]
    reader = Reader(folder, ROBOT, 15, list(ROBOT.cameras))
    assert [episode.index for episode in reader.episodes] == [0, 1]
    for episode in reader.episodes:
        reader.vectors(episode)  # asks for the rows of its number
        assert len(reader.images(episode, "head", range(episode.length))) == episode.length
    parts = [json.loads(path.read_text())["source"] for path in sorted((folder / "meta" / "parts").iterdir())]
    assert parts == [str(short_bag.resolve()), str(second)]
    rows = lines(folder / "meta" / "episodes_stats.jsonl")
    assert [row["stats"]["episode_index"]["max"] for row in rows] == [[0], [1]]
    assert {path.stem for path in folder.rglob("episode_*")} == {"episode_000000", "episode_000001"}


def test_a_second_convert_leaves_the_settings_of_the_first(short_bag, tmp_path):
    """It is refused before it writes, also while the first has no episode yet."""
    folder = tmp_path / "data"
    claim(folder, "convert", ConvertSettings("fold"))
    before = (folder / "meta" / "convert.txt").read_text()
    with alone_in(folder):
        assert convert(short_bag, "--output", folder, "--fps", 30) == 2
    assert (folder / "meta" / "convert.txt").read_text() == before


def test_a_dataset_of_an_older_version_is_continued(tmp_path):
    """It knew fewer settings; the others keep their defaults."""
    (tmp_path / "meta" / "parts").mkdir(parents=True)
    (tmp_path / "meta" / "parts" / "episode_000000.json").touch()
    text = tmp_path / "meta" / "convert.txt"
    text.write_text("fps: 15\nheight: 0\n")
    claim(tmp_path, "convert", ConvertSettings("another task"))
    assert "max_skew: 0.05\n" in text.read_text(), "complete from now on"
    text.write_text("fps: 15\nheight: 0\n")
    with pytest.raises(ConfigError, match=r"other settings: max_skew: 0\.05 -> 0\.1\. Name another folder"):
        claim(tmp_path, "convert", ConvertSettings("fold", max_skew=0.1))
    text.write_text("fps: 15\nheight: 0\nfilter: median\n")
    with pytest.raises(ConfigError, match="filter: median -> unknown to this version"):
        claim(tmp_path, "convert", ConvertSettings("fold"))


def test_frames_hold_what_was_nearest(short_bag):
    episode = read_episode(short_bag, ROBOT, ConvertSettings("fold", fps=30))
    reader = open_recording(short_bag)
    topic = f"/{ROBOT.groups['right_arm'].feedback}"
    connections = [c for c in reader.connections if c.topic == topic]
    messages = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(connections)]
    reader.close()
    rows = {tuple(np.asarray(m.position[:6], float)): stamp_ns(m) for m in messages}
    stamps = [rows[tuple(row)] for row in episode.state["right_arm"]]
    np.testing.assert_allclose(np.diff(stamps) / 1e9, 1 / 30, atol=0.005)


def test_gaps_are_reported_and_skipped(short_bag, tmp_path, capsys):
    assert convert(short_bag, tmp_path / "nothing", "--output", tmp_path / "data") == 1
    output = capsys.readouterr()
    assert "1 of 2 recordings are in" in output.out
    assert "no such recording" in output.err
    assert convert(short_bag, "--output", tmp_path / "data") == 0  # as after a kill: what is there is not added again
    assert len(lines(tmp_path / "data" / "meta" / "episodes.jsonl")) == 1
    capsys.readouterr()
    assert convert(short_bag, "--output", tmp_path / "none", "--max-skew", 0.0001) == 2
    assert "has a gap of" in capsys.readouterr().err
    assert convert(short_bag, "--output", tmp_path / "none") == 0  # nothing was written with the other skew
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    assert convert(short_bag, "--output", tmp_path / "mine") == 2
    assert "was not written by convert" in capsys.readouterr().err
    assert convert(short_bag, "--output", tmp_path / "data", "--fps", 30) == 2
    assert "fps: 15 -> 30" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_what_was_written_is_read(tmp_path, version):
    dataset = Dataset(tmp_path, ROBOT, 15, version)
    episodes = [episode(20), episode(31, "wave", 1)]
    for index, value in enumerate(episodes):
        dataset.write(index, value)
    dataset.finish()
    reader = Reader(tmp_path, ROBOT, 15, list(ROBOT.cameras))
    assert [(e.length, e.task) for e in reader.episodes] == [(20, "fold the towel"), (31, "wave")]
    state, action = reader.vectors(reader.episodes[1])
    np.testing.assert_allclose(state, np.concatenate(list(episodes[1].state.values()), axis=1), rtol=1e-6)
    np.testing.assert_allclose(action, np.concatenate(list(episodes[1].action.values()), axis=1), rtol=1e-6)
    frames = [0, 7, 8, 30]
    images = reader.images(reader.episodes[1], "wrist_right", frames)
    np.testing.assert_allclose([i.mean() for i in images], np.linspace(20, 200, 31)[frames], atol=4)
    assert images[0].shape == (36, 64, 3)


def test_version_3_has_its_own_meta(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15, "v3.0")
    for index in range(3):
        dataset.write(index, episode(20 + index, seed=index))
    dataset.finish()
    rows = pq.read_table(tmp_path / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [(0, 20), (20, 41), (41, 63)]
    assert rows[2]["videos/observation.images.head_rgb/to_timestamp"] == pytest.approx(22 / 15)
    actions = np.concatenate([episode(20 + k, seed=k).action["left_arm"] for k in range(3)])
    statistics = json.loads((tmp_path / "meta" / "stats.json").read_text())["action"]
    np.testing.assert_allclose(statistics["mean"][:6], actions.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics["std"][:6], actions.std(axis=0), atol=1e-6)
    assert statistics["count"] == [63]
    features = json.loads((tmp_path / "meta" / "info.json").read_text())["features"]
    for key in ("observation.state", "action"):  # what lerobot's policies take
        assert (features[key]["shape"], features[key]["names"]) == ([14], ROBOT.joint_names)
    tasks = pq.read_table(tmp_path / "meta" / "tasks.parquet")
    assert tasks.schema.pandas_metadata["index_columns"] == ["task"]  # lerobot looks tasks up by pandas' index
    assert tasks.to_pylist() == [{"task_index": 0, "task": "fold the towel"}]
    with pytest.raises(ConfigError, match="in version v3.0, not v2.1"):
        Dataset(tmp_path, ROBOT, 15).finish()


def test_episodes_of_several_in_one_file_are_read(tmp_path):
    """As lerobot 0.4 writes version 3.0: data and videos of many episodes in one file."""
    parts = Dataset(tmp_path / "parts", ROBOT, 15, "v3.0")
    for index in range(2):
        parts.write(index, episode(20, seed=index))
    parts.finish()
    folder = tmp_path / "parts"
    data = sorted((folder / "data" / "chunk-000").iterdir())
    pq.write_table(pa.concat_tables([pq.read_table(path) for path in data]), data[0])
    data[1].unlink()
    both = [*episode(20).images["head"], *[np.full((36, 64, 3), 250, np.uint8)] * 20]
    meta = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    rows = pq.read_table(meta).to_pylist()
    rows[1]["data/file_index"] = 0
    for camera in ROBOT.cameras.values():
        key = f"observation.images.{camera.dataset_key}"
        write_video(folder / "videos" / key / "chunk-000" / "file-000.mp4", both, 15)
        rows[1] |= {f"videos/{key}/file_index": 0, f"videos/{key}/from_timestamp": 20 / 15}
    pq.write_table(pa.Table.from_pylist(rows), meta)
    reader = Reader(folder, ROBOT, 15, list(ROBOT.cameras))
    second = reader.episodes[1]
    np.testing.assert_allclose(reader.vectors(second)[1][:, :6], episode(20, seed=1).action["left_arm"], rtol=1e-6)
    assert reader.images(second, "head", [0])[0].mean() == pytest.approx(250, abs=4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "meta" / "info.json").unlink(), "info.json is missing"),
        (lambda f: edit(f, fps=30), "recorded at 30 fps, but 15 is needed"),
        (lambda f: edit(f, codebase_version="v1.6"), "'v1.6' is not read"),
        (lambda f: drop(f, "observation.images.head_rgb"), "no video observation.images.head_rgb for the camera head"),
        (lambda f: drop(f, "action.left_arm"), "needs the keys action.left_arm"),
        (lambda f: next(f.rglob("*.parquet")).write_bytes(b"x"), "cannot be read"),
        (lambda f: [path.write_bytes(b"x") for path in f.rglob("*.mp4")], "cannot be decoded"),
        (lambda f: empty(f), "episode 0 has no frames"),
        (lambda f: poison(f), "action of right_gripper is not finite in frame 3"),
        (lambda f: (f / "meta" / "episodes.jsonl").unlink(), "meta: not that of a whole v2.1 dataset: FileNotFound"),
        (lambda f: narrow(f), r"a row of action.left_arm has not the shape \[6\]"),
    ],
)
def test_bad_datasets_are_named(tmp_path, spoil, message):
    dataset = Dataset(tmp_path, ROBOT, 15)
    dataset.write(0, episode())
    dataset.finish()
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=message):
        read_everything(tmp_path)


def test_a_camera_that_the_robot_has_not_is_named(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15)
    dataset.write(0, episode())
    dataset.finish()
    with pytest.raises(ConfigError, match="the robot has no camera chest; it has head, wrist_left, wrist_right"):
        Reader(tmp_path, ROBOT, 15, ["head", "chest"])


def read_everything(folder):
    reader = Reader(folder, ROBOT, 15, list(ROBOT.cameras))
    reader.vectors(reader.episodes[0])
    reader.images(reader.episodes[0], "head", [0, 19])


def edit(folder, **entries):
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def drop(folder, key):
    features = json.loads((folder / "meta" / "info.json").read_text())["features"]
    edit(folder, features={name: value for name, value in features.items() if name != key})


def empty(folder):
    (folder / "meta" / "episodes.jsonl").write_text('{"episode_index": 0, "tasks": ["fold the towel"], "length": 0}\n')


def poison(folder):
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    values = table["action.right_gripper"].to_numpy().copy()
    values[3] = np.nan
    place = table.schema.get_field_index("action.right_gripper")
    pq.write_table(table.set_column(place, "action.right_gripper", pa.array(values)), path)


def narrow(folder):
    path = next(folder.rglob("*.parquet"))
    table = pq.read_table(path)
    values = [row[:5] for row in table["action.left_arm"].to_pylist()]
    place = table.schema.get_field_index("action.left_arm")
    pq.write_table(table.set_column(place, "action.left_arm", pa.array(values)), path)


def test_images_of_another_size_are_refused(tmp_path):
    dataset = Dataset(tmp_path, ROBOT, 15)
    dataset.write(0, episode())
    smaller = {camera: [image[:18, :32] for image in images] for camera, images in episode().images.items()}
    with pytest.raises(
        ConfigError, match=r"head .* are \[18, 32, 3\], those before \[36, 64, 3\].*give all .* one size"
    ):
        dataset.write(1, replace(episode(), images=smaller))
    assert not dataset.has(1)
    with pytest.raises(ConfigError, match="images of head: 19, but the episode has 20 frames"):
        dataset.write(1, replace(episode(), images={name: i[1:] for name, i in episode().images.items()}))
    with pytest.raises(ConfigError, match="has images of head, .* of head, wrist_left, wrist_right"):
        dataset.write(1, replace(episode(), images={"head": episode().images["head"]}))
    assert not list(tmp_path.rglob("*00001*")), "nothing is left of them"


def test_images_are_encoded_as_they_are_read(short_bag, tmp_path, monkeypatch):
    """Never more than a few of a recording are held, however long it is."""
    decoded, most = [], 0

    def watched(data, label):
        nonlocal most
        image = decode_image(data, label)
        decoded.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in decoded))
        return image

    monkeypatch.setattr("fastwam_policy.data.recorded_episode.decode_image", watched)
    Dataset(tmp_path, ROBOT, 15).write(0, read_episode(short_bag, ROBOT, ConvertSettings("fold")))
    assert len(decoded) > 100
    assert most <= 3


def test_a_full_disk_is_named_and_what_is_there_goes_on(tmp_path, monkeypatch, capsys):
    """The second episode does not fit; after room was made, the first one is not collected again."""
    from fastwam_policy.data import lerobot_writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    dataset = Dataset(tmp_path / "data", ROBOT, 15)
    dataset.write(0, episode())
    with monkeypatch.context() as patch:
        patch.setattr(lerobot_writer, "write_video", full)
        patch.setattr("fastwam_policy.cli.convert.run", lambda _: dataset.write(1, episode()))
        with pytest.raises(SystemExit) as ended:
            main(["convert", "recording", "--output", str(tmp_path / "data")])
    assert ended.value.code == 1
    assert "the disk is full" in capsys.readouterr().err
    assert dataset.has(0)
    assert not dataset.has(1)
    dataset.write(1, episode())
    assert dataset.finish() == 2
