"""`check-dataset` and `check-recording` find what is wrong, say it in all three forms, and need no ROS."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.common.processes import shipped_bundle
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode
from fastwam_policy.policies.fastwam.embodiments import BENCHMARKS
from fastwam_policy.reports.data_checks import OF_BENCHMARKS

from . import bags
from .made import CAMERAS, FPS, KEYS, ROBOT, edit_column, edit_info, edit_lines, positions, video, write_frames

pytestmark = pytest.mark.training
ROWS = 60
SCENE = np.random.default_rng(0).integers(30, 220, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
KEY = dict(zip(CAMERAS, KEYS, strict=True))


def view(row):
    return np.roll(SCENE, 4 * row, 1)


def dataset(folder, lengths=(ROWS,) * 3, images=lambda camera, episode, row: view(row), begin=lambda index: index / 10):
    made = Dataset(folder, ROBOT, FPS)
    for index, length in enumerate(lengths):
        times = begin(index) + np.arange(length) / FPS
        sides = (
            {group: np.array([positions(group, 3 * t + ahead) for t in times]) for group in ROBOT.commanded}
            for ahead in (0.0, 0.1)
        )
        pictures = {camera: [images(camera, index, k) for k in range(length)] for camera in CAMERAS}
        made.write(index, Episode("fold the towel", pictures, *sides))
    made.finish()
    return folder


def check(tmp_path, command, *arguments):
    """Exit status, and kind, episode and text of each finding."""
    figures = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as status:
        main([command, *map(str, arguments), "--json", str(figures)])
    if not figures.exists():
        return status.value.code, []
    found = [finding for each in json.loads(figures.read_text()) for finding in each["findings"]]
    return status.value.code, [(finding["kind"], finding["episode"], finding["text"]) for finding in found]


def test_a_good_dataset_has_nothing(tmp_path, capsys):
    assert check(tmp_path, "check-dataset", dataset(tmp_path / "data")) == (0, [])
    assert "3 episodes, nothing wrong" in capsys.readouterr().out


def test_a_dataset_of_a_benchmark_is_not_judged(tmp_path):
    assert set(OF_BENCHMARKS) == set(BENCHMARKS)
    edit_info(dataset(tmp_path / "data", (10,)), lambda info: info.update(robot_type="libero"))
    status, ((kind, _, text),) = check(tmp_path, "check-dataset", tmp_path / "data")
    assert (status, kind) == (1, "structure")
    assert "robot_type is libero, but this checks datasets of" in text


def frozen(folder):
    return dataset(folder, images=lambda c, e, k: view(min(k, 20) if (c, e) == ("wrist_left", 1) else k))


def dark(folder):
    return dataset(folder, images=lambda c, e, k: view(k) // 60 if (c, e) == ("head", 2) else view(k))


def lost(folder):
    path = video(dataset(folder), 1, KEY["head"])
    write_frames(path, [k for k in range(ROWS) if k != 30], places=[k for k in range(ROWS) if k != 30])
    return folder


def far(folder, index=2):
    for column in ("observation.state.left_arm", "action.left_arm"):
        edit_column(folder, column, lambda rows: [[row[0] + 1.2, *row[1:]] for row in rows], index)
    return folder


WRONG = {
    "frozen": (frozen, "frozen", 1, "wrist_left, for"),
    "dark": (dark, "blind", 2, "head, "),
    "frame lost": (lost, "unusable", 1, "frame 30 is missing"),
    "short": (lambda f: dataset(f, (ROWS, ROWS, ROWS, 5)), "outlier", 3, "5 frames, where the median is 60"),
    "elsewhere": (lambda f: far(dataset(f, (ROWS,) * 4)), "outlier", 2, "left_arm_joint1 is at"),
    "duplicate": (lambda f: dataset(f, begin=lambda index: index % 2), "duplicate", 2, "those of episode 0"),
    "no frames": (lambda f: edit_lines(dataset(f), lambda r: r[0].update(length=0)), "odd", None, "has no frames"),
    "another robot": (lambda f: edit_info(dataset(f), lambda i: i.update(robot_type="x")), "odd", None, "robot_type"),
    "no dataset": (lambda f: f.parent, "structure", None, "not a LeRobot dataset"),
    "no folder": (lambda f: f, "structure", None, "no such folder"),
    "a recording": (
        lambda f: bags.write(f, bags.messages(0.2)),
        "structure",
        None,
        "it is a recording, which convert makes one of",
    ),
}


@pytest.mark.parametrize(("make", "kind", "episode", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found(tmp_path, make, kind, episode, text):
    status, found = check(tmp_path, "check-dataset", make(tmp_path / "data"))
    assert status == 1
    assert [(k, e) for k, e, _ in found] == [(kind, episode)], found
    assert text in found[0][2]


def test_a_page_shows_the_worst(tmp_path):
    page = tmp_path / "page.html"
    assert check(tmp_path, "check-dataset", frozen(tmp_path / "data"), "--html", page)[0] == 1
    text = page.read_text()
    assert "wrist_left, for" in text
    assert text.count("data:image/jpeg") == 1


def test_a_fixed_copy_has_nothing_wrong(tmp_path):
    folder = edit_column(lost(tmp_path / "data"), "frame_index", lambda values: values, 0)
    assert check(tmp_path, "check-dataset", folder, "--fix", tmp_path / "fixed")[0] == 1
    assert check(tmp_path, "check-dataset", tmp_path / "fixed") == (0, [])
    before, after = (Reader(path, ROBOT, FPS, CAMERAS) for path in (folder, tmp_path / "fixed"))
    assert [episode.length for episode in after.episodes] == [ROWS, ROWS]
    for old, new in ((0, 0), (2, 1)):
        for one, other in zip(before.vectors(before.episodes[old]), after.vectors(after.episodes[new]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert check(tmp_path, "check-dataset", folder, "--fix", tmp_path / "fixed")[0] == 2


def test_a_policy_that_knows_other_poses(tmp_path):
    folder = dataset(tmp_path / "data")
    for index in range(3):
        far(folder, index)
    status, found = check(tmp_path, "check-dataset", folder, "--quick", "--policy", shipped_bundle())
    assert status == 1
    assert any(k == "distribution" and t.startswith("left_arm_joint1 is outside") and "100%" in t for k, _, t in found)


def test_recordings_are_checked(tmp_path, capsys):
    sent = bags.changed(lambda k, _, m: None if k > 7 else m, bags.CAMERAS["wrist_left"], bags.messages(1.0))
    stops, plain = bags.write(tmp_path / "stops", sent), bags.write(tmp_path / "plain", bags.messages(1.0))
    (tmp_path / "bad.mcap").write_bytes(b"nothing")
    status, found = check(tmp_path, "check-recording", stops, "--quick")
    assert (status, [kind for kind, _, _ in found]) == (1, ["odd"])
    assert "wrist_left ends 0.53 s before" in found[0][2]
    status, found = check(tmp_path, "check-recording", plain, tmp_path / "bad.mcap", "--html", tmp_path / "x.html")
    assert status == 1
    assert [kind for kind, _, _ in found] == ["blind"] * 3 + ["unusable"], "its pictures are of one colour"
    assert "cannot be read" in found[3][2]
    assert "cannot be read" in (tmp_path / "x.html").read_text()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check-dataset", "check-recording"])
def test_they_need_no_ros(tmp_path, command):
    source = (
        dataset(tmp_path / "data", (10,))
        if command == "check-dataset"
        else bags.write(tmp_path / "bag", bags.messages())
    )
    code = (
        "import sys\nfor name in ('rclpy', 'sensor_msgs', 'fastwam_msgs', 'torch'): sys.modules[name] = None\n"
        f"from fastwam_policy.cli.main import main\nmain([{command!r}, {str(source)!r}, '--quick'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
