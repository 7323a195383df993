"""Latents are used for exactly the pictures that they were made of."""

import os
import shutil

import numpy as np
import pytest

from fastwam_policy.training.latent_files import are_current, forget_contents, latents_file, note_contents

from .made import LENGTH, dataset, edit_column, edit_info, edit_lines, read, video, write_frames

pytestmark = pytest.mark.training


@pytest.fixture
def encoded(tmp_path):
    """A dataset whose first episode has latents."""
    folder = dataset(tmp_path / "data")
    reader, _ = read(folder)
    path = latents_file(reader, reader.episodes[0], "model")
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros(LENGTH))
    note_contents(path, reader, reader.episodes[0])
    return folder


def current(folder):
    reader, _ = read(folder)
    return are_current(latents_file(reader, reader.episodes[0], "model"), reader, reader.episodes[0])


def test_they_are_used_while_nothing_changed(encoded):
    assert current(encoded)
    edit_lines(encoded, lambda rows: [row.update(tasks=["wave"]) for row in rows] and None)  # no picture changed
    assert current(encoded)


def test_other_pictures_of_the_same_size_and_time_are_seen(encoded):
    path = video(encoded)
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    reader, _ = read(shutil.copytree(encoded, encoded.parent / "copy"))
    assert not are_current(latents_file(reader, reader.episodes[0], "model"), reader, reader.episodes[0])
    os.utime(reader.episodes[0].videos["head"][0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not are_current(latents_file(reader, reader.episodes[0], "model"), reader, reader.episodes[0])


def test_older_pictures_are_seen(encoded):
    """As from a backup: their time is before that of the latents."""
    write_frames(video(encoded), range(1, LENGTH + 1))
    os.utime(video(encoded), (10**9, 10**9))
    assert not current(encoded)


def test_other_times_of_the_rows_are_seen(encoded):
    edit_column(encoded, "timestamp", lambda values: [value + 0.02 for value in values])
    assert not current(encoded)


def test_half_written_ones_are_not_used(encoded):
    reader, _ = read(encoded)
    path = latents_file(reader, reader.episodes[0], "model")
    forget_contents(path)  # killed here
    assert not current(encoded)
    note_contents(path, reader, reader.episodes[0])
    assert current(encoded)
    for text in ("", "{", "[]", '{"rows": 1}', '{"rows": null, "videos": []}'):
        path.with_suffix(".json").write_text(text)
        assert not current(encoded)
    path.unlink()
    assert not current(encoded)


def test_another_robot_is_said(tmp_path):
    reader, _ = read(edit_info(dataset(tmp_path), lambda info: info.update(robot_type="so101_follower")))
    assert "robot_type is 'so101_follower', this robot is 'R1Lite'" in reader.notes[0]
