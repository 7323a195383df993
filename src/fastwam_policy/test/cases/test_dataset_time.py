"""Rows and frames belong together by their times: what an encoder lost, another rate, drifts, odd orders."""

import re
import shutil
import struct

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastwam_policy.data.frame_times import FrameTimes, frames_at
from fastwam_policy.data.lerobot_reader import Reader
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .made import (
    CAMERAS,
    FPS,
    HEAD,
    KEYS,
    LENGTH,
    ROBOT,
    as_written,
    dataset,
    edit_column,
    edit_episodes,
    edit_lines,
    joined,
    picture,
    read,
    video,
    write_frames,
)

pytestmark = pytest.mark.training
NUMBERS = list(range(LENGTH))


def without(*lost):
    return [k for k in NUMBERS if k not in lost]


def gap(*lost):
    """The encoder left frames out, the times of the others are right."""
    return lambda folder: write_frames(video(dataset(folder)), without(*lost), places=without(*lost))


def moved_up(*lost):
    """Frames were lost before the encoder: those after them moved up."""
    return lambda folder: write_frames(video(dataset(folder)), without(*lost))


def all_videos(**how):
    def spoil(folder):
        dataset(folder)
        numbers = [k for k in NUMBERS for _ in range(how.get("copies", 1))]
        for key in KEYS:
            write_frames(video(folder, 0, key), numbers, fps=how["fps"])

    return spoil


def timestamps(change):
    return lambda folder: edit_column(dataset(folder), "timestamp", lambda values: change(np.array(values)))


def no_time_in_the_middle(values):
    values[LENGTH // 2] = np.nan
    return values


def jump(values):
    values[LENGTH // 2 :] += 2
    return values


REFUSED = {
    "video a frame short": (
        moved_up(11),
        r"camera head: frame 11 is missing: .* at 0\.733 s .* nearest .* at 0\.667 s",
    ),
    "frame lost in the middle": (
        gap(5),
        r"episode 0, camera head: frame 5 is missing: .* at 0\.333 s .* at 0\.(267|400) s",
    ),
    "first frame lost": (gap(0), r"frame 0 is missing"),
    "frames lost before the encoder": (moved_up(3, 7), r"frame 10 is missing"),
    "video at 30 fps, as many frames": (all_videos(fps=30), r"frame \d is missing"),
    "video at 10 fps, as many frames": (all_videos(fps=10), r"frame \d is missing"),
    "timestamps of 30 fps": (timestamps(lambda t: t / 2), r"row 1 has the timestamp 0\.033 s.* due at 0\.067 s"),
    "timestamps drift 5 %": (timestamps(lambda t: t * 1.05), r"row 10 has the timestamp 0\.700 s.* due at 0\.667 s"),
    "timestamps jump 2 s": (timestamps(jump), r"row 6 has the timestamp 2\.400 s.* due at 0\.400 s"),
    "timestamps from 5 s on": (timestamps(lambda t: t + 5), r"row 0 has the timestamp 5\.000 s.* due at 0\.000 s"),
    "a timestamp that is no number": (timestamps(no_time_in_the_middle), "row 6 has the timestamp nan s"),
    "a row lost": (
        lambda f: edit_column(dataset(f), "frame_index", lambda v: [k + (k > 4) for k in v]),
        "frame_index has no 5",
    ),
    "a row twice": (lambda f: edit_column(dataset(f), "frame_index", lambda v: [0, *v[:-1]]), "frame_index has no 1"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_an_episode_whose_rows_and_frames_differ_is_refused_alone(tmp_path, make, message):
    make(tmp_path / "data")
    reader, found = read(tmp_path / "data")
    assert re.search(message, found[0]), found[0]
    assert found[1] == as_written()
    reader.leave_out_unusable()
    assert [episode.index for episode in reader.episodes] == [1]
    assert re.search(rf"episode 0 is left out: .*{message}", reader.notes[0])


def reversed_rows(folder):
    path = dataset(folder) / "data/chunk-000/episode_000000.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.take(list(range(LENGTH // 2, LENGTH)) + list(range(LENGTH // 2))), path)


def b_frames(folder):
    write_frames(video(dataset(folder)), NUMBERS, options={"g": "250", "bf": "3", "crf": "10"})


RIGHT = {
    "version 2.1": dataset,
    "version 3.0": lambda f: dataset(f, version="v3.0"),
    "joined": joined,
    "rows not in order": reversed_rows,
    "a stale episode_index": lambda f: edit_column(dataset(f), "episode_index", lambda v: [7] * len(v)),
    "video at 30 fps, twice as many frames": all_videos(fps=30, copies=2),
    "B-frames and one key frame": b_frames,
    "HEVC": lambda f: write_frames(
        video(dataset(f)), NUMBERS, codec="libx265", options={"x265-params": "log-level=none:bframes=3"}, size=(128, 96)
    ),
    "AV1": lambda f: write_frames(
        video(dataset(f)), NUMBERS, codec="libsvtav1", options={"crf": "10", "g": "30"}, size=(128, 96)
    ),
    "MPEG-4": lambda f: write_frames(video(dataset(f)), NUMBERS, codec="mpeg4", options={"qmin": "1", "qmax": "1"}),
    "timestamps that jitter": timestamps(lambda t: np.abs(t + 0.01 * np.sin(9 * t))),
}


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
def test_each_row_has_the_frame_of_its_time(tmp_path, make):
    make(tmp_path / "data")
    reader, found = read(tmp_path / "data")
    assert found == {0: as_written(), 1: as_written()}
    reader.leave_out_unusable()
    assert not reader.notes


def test_a_frame_is_found_from_anywhere(tmp_path):
    """Seeking lands on another picture than the one asked for where frames are stored in another order."""
    write_frames(video(dataset(tmp_path, (60,))), range(60), options={"g": "12", "bf": "3", "crf": "10"})
    reader, _ = read(tmp_path)
    for first in range(0, 60, 7):
        images = reader.images(reader.episodes[0], "head", [first, 59])
        assert [round((float(image.mean()) - 20) / 3) for image in images] == [first, 59]


@pytest.mark.parametrize("more", [1, 10])
def test_a_video_with_more_frames_than_rows_is_refused(tmp_path, more):
    """It may have begun before them, or a frame in it may be there twice."""
    write_frames(video(dataset(tmp_path)), range(LENGTH + more))
    _, found = read(tmp_path)
    assert re.search(
        rf"episode 0, camera head: the video ends at {(LENGTH + more) / FPS:.3f} s, the episode's 12 rows at 0\.800 s: "
        "which of its frames belong to them cannot be told",
        found[0],
    )
    assert found[1] == as_written()


def longer_part(rows):
    for key in KEYS:
        rows[1][f"videos/{key}/to_timestamp"] += 3 / FPS


def test_a_part_of_a_video_with_more_frames_than_rows_is_refused(tmp_path):
    _, found = read(edit_episodes(joined(tmp_path), longer_part))
    assert found[0] == as_written()
    assert "the video ends at 1.800 s, the episode's 12 rows at 1.600 s" in found[1]


def test_a_file_that_goes_on_after_its_last_episode_is_said(tmp_path):
    folder = joined(tmp_path)
    write_frames(video(folder, 0, HEAD, "v3.0"), [*NUMBERS, *NUMBERS, 0, 1, 2, 3, 4])
    reader, found = read(folder)
    assert found == {0: as_written(), 1: as_written()}
    reader.leave_out_unusable()
    (note,) = reader.notes
    assert "goes on 0.33 s after episode 1, its last one: that part is not used" in note


def grainy(path, options, length=LENGTH, size=(320, 240)):
    """A video with so much in it that other bytes make other pictures."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for k in range(length):
            image = picture(k, size) + random.integers(0, 30, (*size[::-1], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("group", ["2", "250"])
def test_a_video_with_other_bytes_in_it_is_refused(tmp_path, group):
    """FFmpeg fills what it cannot decode with other pictures, and says nothing."""
    path = video(dataset(tmp_path))
    grainy(path, {"g": group, "crf": "18"})
    data = bytearray(path.read_bytes())
    place = data.find(b"mdat") + 3000
    data[place : place + 8] = bytes(255 - byte for byte in data[place : place + 8])
    path.write_bytes(data)
    _, found = read(tmp_path)
    assert "cannot be decoded" in found[0]
    assert found[1] == as_written()


def test_frames_that_refer_to_a_group_before_theirs_are_decoded_from_anywhere(tmp_path):
    """Seeking leaves the others out: that is no damage."""
    path = video(dataset(tmp_path, (60,)))
    grainy(path, {"x264-params": "open-gop=1:keyint=12:bframes=3", "crf": "10"}, 60)
    reader = Reader(tmp_path, ROBOT, FPS, CAMERAS)
    every = reader.images(reader.episodes[0], "head", range(60))
    for first in range(0, 60, 5):
        np.testing.assert_array_equal(reader.images(reader.episodes[0], "head", [first])[0], every[first])


@pytest.mark.parametrize(("turn", "back"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_video_that_says_how_the_camera_was_held_is_turned_upright(tmp_path, turn, back):
    """As players do, and as with the EXIF data of pictures."""
    path = video(dataset(tmp_path, (2, 2)))
    plain = Reader(tmp_path, ROBOT, FPS, CAMERAS)
    grainy(path, {"crf": "10"}, 2)
    expected = plain.images(plain.episodes[0], "head", [1])[0]
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 44  # of a matrix of nine numbers
    for at, value in zip((0, 4, 12, 16), turn, strict=True):
        struct.pack_into(">i", data, place + at, value << 16)
    path.write_bytes(data)
    found = Reader(tmp_path, ROBOT, FPS, CAMERAS).images(plain.episodes[0], "head", [1])[0]
    np.testing.assert_array_equal(found, np.rot90(expected, back))


def test_a_video_of_another_size_than_meta_says_is_said_once(tmp_path):
    folder = dataset(tmp_path, (LENGTH,) * 3)
    for index in (0, 1):
        write_frames(video(folder, index), NUMBERS, size=(128, 96))
    reader, found = read(folder)
    assert found == {0: as_written(), 1: as_written(), 2: as_written()}
    reader = Reader(folder, ROBOT, FPS, CAMERAS)
    reader.leave_out_unusable()
    (note,) = reader.notes
    assert "frames of 128x96, meta/info.json says [48, 64, 3]: read as is" in note


def shift(seconds, to=0.0):
    def change(rows):
        for key in KEYS:
            rows[1][f"videos/{key}/from_timestamp"] += seconds
            rows[1][f"videos/{key}/to_timestamp"] += to

    return change


@pytest.mark.parametrize(
    ("seconds", "right"), [(0.02, [0, 1]), (-0.02, [0, 1]), (0.05, [0]), (-0.2, [0])], ids="{}".format
)
def test_from_timestamp_may_drift_by_less_than_half_a_period(tmp_path, seconds, right):
    _, found = read(edit_episodes(joined(tmp_path), shift(seconds)))
    assert [index for index, pictures in found.items() if pictures == as_written()] == right
    assert all(isinstance(found[index], str) for index in found if index not in right)


def test_parts_of_a_video_that_overlap_are_nobodys(tmp_path):
    """Nothing says which of the two is right."""
    _, found = read(edit_episodes(joined(tmp_path), shift(-0.2, -0.2)))
    assert "0.000 to 0.800 s, overlaps with that of episode 1, 0.600 to 1.400 s" in found[0]
    assert "overlaps with that of episode 0" in found[1]


def test_frames_that_a_joined_file_lost_move_no_other(tmp_path):
    folder = joined(tmp_path)
    path = video(folder, 0, HEAD, "v3.0")
    write_frames(path, [*without(10), *NUMBERS], places=[*without(10), *range(LENGTH, 2 * LENGTH)])
    _, found = read(folder)
    assert "frame 10 is missing" in found[0]
    assert found[1] == as_written()
    write_frames(path, [*without(3, 10), *NUMBERS])  # all that follow moved up, and nothing says where
    _, found = read(folder)
    assert "the file ends at 1.467 s, its 2 episodes at 1.600 s: frames are lost" in found[0]
    assert isinstance(found[1], str)

    def known(rows):
        rows[0][f"videos/{HEAD}/to_timestamp"] = rows[1][f"videos/{HEAD}/from_timestamp"] = (LENGTH - 2) / FPS
        rows[1][f"videos/{HEAD}/to_timestamp"] = (2 * LENGTH - 2) / FPS

    _, found = read(edit_episodes(folder, known))  # meta/ says where the second one begins
    assert isinstance(found[0], str)
    assert found[1] == as_written()


def test_a_column_that_belongs_to_several_episodes_is_refused(tmp_path):
    edit_column(dataset(tmp_path), "episode_index", lambda v: [7, 8] * (len(v) // 2))
    _, found = read(tmp_path)
    assert "has no rows; its episode_index says [7, 8]" in found[0]


def test_numbers_of_episodes_may_have_gaps(tmp_path):
    _, found = read(edit_lines(dataset(tmp_path, (LENGTH,) * 3), lambda rows: rows.pop(1) and None))
    assert found == {0: as_written(), 2: as_written()}


def test_an_episode_that_is_listed_twice_is_named(tmp_path):
    edit_lines(dataset(tmp_path), lambda rows: rows.append(rows[1]))
    with pytest.raises(ConfigError, match=r"episodes\.jsonl line 3: episode 1 is there already, at .* line 2"):
        read(tmp_path)


def test_episodes_of_no_and_of_one_frame(tmp_path):
    reader, found = read(edit_lines(dataset(tmp_path), lambda rows: rows[0].update(length=0)))
    assert found == {1: as_written()}
    assert re.search(r"line 1: episode 0 has no frames: it is left out", reader.notes[0])
    shutil.rmtree(tmp_path)
    _, found = read(dataset(tmp_path, (1, LENGTH)))
    assert found == {0: as_written(1), 1: as_written()}


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.floats(0, 10), min_size=1, max_size=50, unique=True),
    wanted=st.lists(st.floats(0, 10), min_size=1, max_size=50),
)
def test_a_found_frame_is_the_nearest_and_near(times, wanted):
    frames = FrameTimes(np.sort(np.array(times)), np.arange(len(times)))
    distance = np.abs(np.subtract.outer(np.array(wanted), frames.seconds))
    try:
        found = frames_at(frames, np.array(wanted), 1 / FPS, "x")
    except ConfigError:
        assert (distance.min(axis=1) > 0.499 / FPS).any()
    else:
        assert (distance[np.arange(len(wanted)), found] == distance.min(axis=1)).all()
        assert distance.min(axis=1).max() <= 0.5 / FPS


def test_every_camera_is_looked_at(tmp_path):
    for index, key in enumerate(KEYS):
        write_frames(video(dataset(tmp_path / str(index)), 0, key), without(5), places=without(5))
        _, found = read(tmp_path / str(index))
        assert f"camera {CAMERAS[index]}: frame 5 is missing" in found[0]
