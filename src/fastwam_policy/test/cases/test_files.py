"""Recordings as they come: of everything, damaged, unfinished, converted twice, some of them bad."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import require_space
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.recordings import open_recording
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import bags
from .bags import (
    CAMERAS,
    LEFT_ARM,
    LEFT_TARGET,
    changed,
    convert,
    count,
    messages,
    pictures,
    the_file,
    write,
)
from .made import FPS, ROBOT

pytestmark = pytest.mark.training
HEAD = CAMERAS["head"]


def test_a_recording_of_everything(tmp_path):
    """Hidden topics of actions and services, and types that nobody knows: only what is asked for is looked at."""
    foreign = [
        ("/fold/_action/feedback", "x/action/Fold_FeedbackMessage", "nonsense !! $"),
        ("/add/_service_event", "x/srv/Add_Event", "=" * 80 + "\nSRV: x/srv/Add\nint64 a\n---\nint64 sum\n"),
        ("/odd", "y/msg/Odd", "z/Missing field\n"),
    ]
    assert convert(write(tmp_path / "bag", messages(), foreign=foreign), "--output", tmp_path / "data") == 0
    assert pictures(tmp_path / "data") == [list(range(10))]


@pytest.mark.parametrize("encoding", [b"unknown!", b"protobuf"])
def test_an_encoding_that_nobody_knows(tmp_path, encoding):
    """Of the schema of a foreign topic, in a file without checksums of its index."""
    foreign = [("/odd", "y/msg/Odd", "int32 a")]
    path = the_file(write(tmp_path / "bag", messages(), foreign=foreign))
    data = path.read_bytes()
    at = data.rfind(b"y/msg/Odd", 0, len(data))
    place = data.rfind(b"ros2msg", 0, at + 60)
    path.write_bytes(data[:place] + encoding[:7] + data[place + 7 :])
    assert count(path)[0] == len(messages()) + 1


def test_qualities_of_service_that_only_metadata_says(tmp_path):
    """Two writers of one recording that do not agree on them: by name and type it is the same topic."""
    forever = QosTime(9223372036, 854775807)
    quality = Qos(
        QosHistory.KEEP_LAST, 10, QosReliability.BEST_EFFORT, QosDurability.TRANSIENT_LOCAL, forever, forever,
        QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
    folder = write(tmp_path / "bag", messages(), qos=[quality])
    plain = the_file(write(tmp_path / "plain" / "bag", messages()) if (tmp_path / "plain").mkdir() is None else None)
    shutil.copy(plain, the_file(folder))
    with contextlib.closing(open_recording(folder)) as reader:
        assert sum(1 for _ in reader.messages()) == len(messages())
        assert all(connection.latched for connection in reader.connections)


def killed(folder, mode):
    """A sqlite recording whose recorder was killed: with a write-ahead log, or in the middle of a transaction."""
    source = the_file(write(folder.parent / "whole", messages(1.0), StoragePlugin.SQLITE3))
    folder.mkdir()
    code = f"""
import os, sqlite3
a, b = sqlite3.connect({str(source)!r}), sqlite3.connect({str(folder / "x_0.db3")!r}, isolation_level=None)
b.execute("PRAGMA journal_mode={mode}"); b.execute("PRAGMA wal_autocheckpoint=0"); b.execute("PRAGMA cache_size=1")
for (s,) in a.execute("select sql from sqlite_master where sql not null"): b.execute(s)
for t in ("schema", "metadata", "topics", "message_definitions"):
    for r in a.execute("select * from " + t): b.execute("insert into %s values (%s)" % (t, ",".join("?" * len(r))), r)
rows = list(a.execute("select * from messages order by timestamp")); half = len(rows) // 2
for part, end in ((rows[:half], "commit"), (rows[half:], {"commit" if mode == "WAL" else ""!r})):
    b.execute("begin"); b.executemany("insert into messages values (?,?,?,?)", part)
    if end: b.execute(end)
os._exit(9)"""
    subprocess.run([sys.executable, "-c", code], check=False)
    return folder


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_killed_sqlite_recorder(tmp_path, mode):
    """All that was committed is read, nothing else, and its files stay as they are."""
    folder = killed(tmp_path / "bag", mode)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert any(name.endswith(("-wal", "-journal")) and data for name, data in before.items())
    share = 1 if mode == "WAL" else 0.5
    assert count(folder)[0] == int(len(messages(1.0)) * share)
    assert convert(folder, "--output", tmp_path / "data") == 0
    assert len(pictures(tmp_path / "data")[0]) in ((16,) if mode == "WAL" else (7, 8))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["a#b", "what?", "50%25", "ä ö", "a&b=c"])
def test_a_sqlite_recording_may_have_any_name(tmp_path, name):
    folder = write(tmp_path / "bag", messages(), StoragePlugin.SQLITE3).rename(tmp_path / name)
    file = shutil.copy(the_file(folder), tmp_path / f"{name}.db3")
    assert count(folder)[0] == count(file)[0] == len(messages())


@pytest.mark.parametrize("topic", [LEFT_ARM, HEAD, LEFT_TARGET])
def test_one_cut_message_is_skipped_and_counted(tmp_path, topic, capsys):
    def cut(place, _, content):
        kind = bags.COMPRESSED_IMAGE if topic == HEAD else bags.JOINT_STATE
        return bytes(bags.STORE.serialize_cdr(content, kind))[:40] if place == 5 else content

    assert convert(write(tmp_path / "bag", changed(cut, topic)), "--output", tmp_path / "data") == 0
    assert re.search(r"note: .*bag: 1 of \d+ messages are damaged", capsys.readouterr().err)
    expected = [0, 1, 2, 3, 4, 4, 6, 7, 8, 9] if topic == HEAD else list(range(10))
    assert pictures(tmp_path / "data") == [expected]


def test_more_than_a_hundredth_lost_is_refused(tmp_path, capsys):
    cut = changed(lambda place, _, content: b"\x00\x01" if place < 20 else content, LEFT_ARM)
    assert convert(write(tmp_path / "bag", cut), "--output", tmp_path / "data") == 2
    assert re.search(r"20 of \d+ messages are damaged, more than 1%", capsys.readouterr().err)
    assert not list((tmp_path / "data").rglob("*.parquet"))


def test_one_flipped_byte_costs_its_chunk(tmp_path):
    """Wherever it is, the other chunks are read, and what is read is as written."""
    sent = messages(8.0, size=(320, 240))  # several chunks
    path = bags.with_checksums(the_file(write(tmp_path / "bag", sent)))
    whole = path.read_bytes()
    with contextlib.closing(open_recording(path)) as reader:
        right = {(c.topic, log): data for c, log, data in reader.messages()}
    most = 0
    for place in np.linspace(200, len(whole) - 40, 12).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.closing(open_recording(path)) as reader:
            read = {(c.topic, log): data for c, log, data in reader.messages()}
            assert len(read) + reader.lost == len(right), place
        assert all(right[key] == data for key, data in read.items())
        most = max(most, len(right) - len(read))
    assert 0 < most < len(right)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return the_file(write(tmp_path_factory.mktemp("bags") / "bag", messages(0.2))).read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_gives_a_recording_or_one_line(small_file, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.mcap"
    damaged = bytearray(small_file)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    del damaged[data.draw(st.integers(len(damaged) // 2, len(damaged))) :]
    path.write_bytes(damaged)
    try:
        found, _ = count(path)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found <= len(messages(0.2))


def test_a_pointer_of_git_lfs_is_named(tmp_path, capsys):
    folder = write(tmp_path / "bag", messages())
    path = the_file(folder)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert convert(folder, "--output", tmp_path / "data") == 2
    assert f"{path}: is a git-lfs pointer, not the file itself; run git lfs pull" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "[]", "a: b", "rosbag2_bagfile_information: {relative_file_paths: [../x.mcap]}", "a: *b", "\x00"]
)
def test_metadata_that_is_none(tmp_path, text):
    folder = write(tmp_path / "bag", messages(0.2))
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"metadata\.yaml|is missing"):
        open_recording(folder)


# Several recordings, and the same ones again


@pytest.fixture
def three(tmp_path):
    return [write(tmp_path / name, messages(length)) for name, length in (("a", 0.6), ("b", 0.8), ("c", 1.0))]


def lengths(folder):
    return [len(each) for each in pictures(folder)]


def test_one_bad_recording_ends_nothing(three, tmp_path, capsys):
    the_file(three[1]).write_bytes(b"nothing")
    assert convert(*three, "--output", tmp_path / "data", "--json", tmp_path / "x.json") == 1
    assert lengths(tmp_path / "data") == [10, 16]
    assert list(json.loads((tmp_path / "x.json").read_text())["skipped"]) == [str(three[1])]
    error = capsys.readouterr().err
    assert f"skipped: {three[1]}: cannot be read" in error
    assert "Traceback" not in error


def test_strict_stops_at_once_and_keeps_what_is_done(three, tmp_path, capsys):
    the_file(three[1]).write_bytes(b"nothing")
    assert convert(*three, "--output", tmp_path / "data", "--strict") == 1
    assert lengths(tmp_path / "data") == [10]
    assert f"skipped: {three[1]}: cannot be read" in capsys.readouterr().err


def test_strict_counts_what_is_converted(three, tmp_path):
    figures = tmp_path / "figures.json"
    the_file(three[1]).write_bytes(b"nothing")
    assert convert(*three, "--output", tmp_path / "data", "--strict", "--workers", 1, "--json", figures) == 1
    assert json.loads(figures.read_text())["converted"] == 1


def test_another_instruction_for_what_is_there_is_named(three, tmp_path, capsys):
    assert convert(*three, "--output", tmp_path / "data") == 0
    assert convert(*three, "--output", tmp_path / "data", "--task", "wave") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "is there already with the instruction" in line]
    assert len(notes) == 3
    assert notes[0].endswith("which stays: to change it to 'wave', convert into another folder")


def test_an_unknown_error_skips_one_recording(three, tmp_path, monkeypatch, capsys):
    from fastwam_policy.data import convert as module

    real = module.read_episode

    def odd(path, *rest):
        if path == three[0]:
            raise ZeroDivisionError("oh")
        return real(path, *rest)

    monkeypatch.setattr(module, "read_episode", odd)
    assert convert(*three, "--output", tmp_path / "data") == 1
    assert "cannot be converted (ZeroDivisionError: oh)" in capsys.readouterr().err
    assert lengths(tmp_path / "data") == [13, 16]


def test_nothing_is_doubled(three, tmp_path, capsys):
    """The same again, under another name, moved, copied, and touched."""
    folder = tmp_path / "data"
    assert convert(*three, "--output", folder) == 0
    for again in (three, [f"{three[0]}/../{three[0].name}"], [tmp_path / "moved"]):
        if again == [tmp_path / "moved"]:
            three[0].rename(*again)
        assert convert(*again, "--output", folder) == 0
        assert lengths(folder) == [10, 13, 16]
    copy = shutil.copytree(three[1], tmp_path / "copy")
    capsys.readouterr()
    assert convert(copy, "--output", folder) == 0
    assert f"note: {copy}: is the same recording as {three[1]}, episode 1: not added again" in capsys.readouterr().err
    os.utime(the_file(three[2]), (0, 0))
    assert convert(three[2], "--output", folder) == 0
    assert lengths(folder) == [10, 13, 16]
    part = json.loads((folder / "meta" / "parts" / "episode_000001.json").read_text())
    assert part["content"]["sha256"] == hashlib.sha256(the_file(three[1]).read_bytes()).hexdigest()


def test_what_changed_is_converted_again(three, tmp_path):
    folder = tmp_path / "data"
    assert convert(*three, "--output", folder) == 0
    shutil.rmtree(three[0])
    write(three[0], messages(1.2))
    assert convert(*three, "--output", folder) == 0
    assert sorted(lengths(folder)) == [13, 16, 19]
    assert lengths(folder) == [13, 16, 19]
    assert convert(*three, "--output", folder) == 0
    assert lengths(folder) == [13, 16, 19]


def test_half_of_them_after_a_kill(three, tmp_path):
    folder = tmp_path / "data"
    assert convert(*three, "--output", folder) == 0
    (folder / "meta" / "parts" / "episode_000001.json").unlink()  # written last: this one was cut
    shutil.copy(folder / "meta/parts/episode_000000.json", folder / "meta/parts/episode_000003.json")
    for path in list(folder.rglob("*episode_000000.*")):  # and a new episode was there before the old one was gone
        if path.suffix in (".mp4", ".parquet"):
            shutil.copy(path, path.with_name(path.name.replace("000000", "000003")))
    assert convert(*three, "--output", folder) == 0
    assert sorted(lengths(folder)) == [10, 13, 16]


# Sizes and disks


@pytest.mark.parametrize("size", [(33, 24), (32, 25), (33, 25)])
def test_odd_sizes_are_padded_and_said_once(tmp_path, capsys, size):
    assert convert(write(tmp_path / "bag", messages(size=size)), "--output", tmp_path / "data") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "even numbers" in line]
    assert len(notes) == len(CAMERAS)
    wide, high = (side + side % 2 for side in size)
    assert f"{size[0]}x{size[1]}: the codec wants even numbers, they are {wide}x{high} now" in notes[0]
    reader = Reader(tmp_path / "data", ROBOT, FPS, ["head"])
    assert reader.images(reader.episodes[0], "head", [0])[0].shape == (high, wide, 3)
    info = json.loads((tmp_path / "data" / "meta" / "info.json").read_text())
    assert info["features"]["observation.images.head_rgb"]["shape"] == [high, wide, 3]


def test_a_disk_that_is_too_small_is_seen_first(three, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    assert convert(*three, "--output", tmp_path / "data") == 1
    assert re.search(r"the episodes need about 0\.00 GB, the disk has 0\.00 GB free", capsys.readouterr().err)
    assert not list((tmp_path / "data").rglob("*.mp4"))
    with pytest.raises(RunError, match="make room"):
        require_space(tmp_path / "not" / "there", 10**4, "it")


def test_sqlite_damage_is_counted(tmp_path):
    path = the_file(write(tmp_path / "bag", messages(2.0), StoragePlugin.SQLITE3))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    path.write_bytes(data)
    try:
        found, lost = count(path)
    except ConfigError:
        return
    assert lost > 0 or found == len(messages(2.0))
    with contextlib.suppress(sqlite3.Error):
        assert found <= len(messages(2.0))
