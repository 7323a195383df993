"""Clocks, rates and pictures in recordings: what belongs to the same moment is in the same row, or it is said."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastwam_policy.data.streams import Stream

from . import bags
from .bags import BEGIN, CAMERAS, LEFT_ARM, LEFT_TARGET, SECOND, changed, convert, converted, messages, pictures, write

pytestmark = pytest.mark.training
HEAD = CAMERAS["head"]


def test_a_camera_of_another_rate_shows_what_was_newest(tmp_path):
    def at_10_hz(place, log, _):
        return None if place % 3 == 2 else bags.image(log + (SECOND // 30 if place % 3 == 1 else 0), place)

    sent = [(log + (SECOND // 30 if topic == HEAD and int(1.5 + (log - BEGIN) * 15 / SECOND) % 3 == 2 else 0), topic, c)
            for log, topic, c in changed(at_10_hz, HEAD)]  # fmt: skip
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    assert pictures(tmp_path / "data") == [[0, 0, 1, 3, 3, 4, 6, 6, 7, 9]]


def test_a_camera_that_ends_halfway_ends_the_episode(tmp_path, capsys):
    topic = CAMERAS["wrist_left"]
    sent = changed(lambda place, _, content: None if place > 7 else content, topic, messages(1.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    assert "wrist_left ends 0.53 s before the last stream: the episode ends there" in capsys.readouterr().err
    assert len(pictures(tmp_path / "data")[0]) in (7, 8)


@pytest.mark.parametrize(("lost", "seconds"), [((10, 11, 12, 13), None), (range(10, 17), 0.47)])
def test_a_gap_of_a_camera(tmp_path, capsys, lost, seconds):
    """Up to 0.2 s the picture before it is shown; a longer one splits the recording."""
    sent = changed(lambda place, _, content: None if place in lost[1:] else content, HEAD, messages(3.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    (found,) = pictures(tmp_path / "data")
    error = capsys.readouterr().err
    if seconds is None:
        assert found == [*range(11), 10, 10, 10, *range(14, 46)]
        assert "has a gap" not in error
    else:
        assert found == list(range(17, 46))
        assert re.search(r"head has a gap of 0\.40 s before 1\.07 s: the episode is the longest part .*29 of 46", error)


@pytest.mark.parametrize("ahead", [1000, -1000])
@pytest.mark.parametrize("topic", [LEFT_ARM, LEFT_TARGET, HEAD])
def test_one_stamp_of_another_time_ends_no_stream(tmp_path, capsys, ahead, topic):
    def odd(place, _, content):
        if place == 4:
            content.header.stamp.sec += ahead
        return content

    assert convert(write(tmp_path / "bag", changed(odd, topic)), "--output", tmp_path / "data") == 0
    assert "not used are 1 with a stamp of another time" in capsys.readouterr().err
    (found,) = pictures(tmp_path / "data")
    assert found == ([0, 1, 2, 3, 3, 5, 6, 7, 8, 9] if topic == HEAD else list(range(10)))


def test_a_clock_that_is_set_back_is_refused(tmp_path, capsys):
    """What is stamped alike was seconds apart."""

    def back(_, log, content):
        if log > BEGIN + 2 * SECOND:
            content.header.stamp.sec -= 2
        return content

    sent = changed(back, HEAD, messages(5.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 2
    assert re.search(r"head: its clock was set back by 2\.\d\d s after", capsys.readouterr().err)


def by(seconds, since=0.0):
    """Stamps that are another clock's from some time on."""

    def change(_, log, content):
        stamp = content.header.stamp
        if log >= BEGIN + since * SECOND:
            moved = stamp.sec * SECOND + stamp.nanosec + round(seconds * SECOND)
            stamp.sec, stamp.nanosec = divmod(moved, SECOND)
        return content

    return change


@pytest.mark.parametrize("topic", [HEAD, LEFT_TARGET])
@pytest.mark.parametrize(("seconds", "says"), [(-5, "5.00 s behind"), (0.8, "0.80 s ahead of"), (-3600, "3600.00 s")])
def test_a_stream_with_another_clock_is_put_on_that_of_the_others(tmp_path, capsys, topic, seconds, says):
    """Log time is everybody's: what is stamped alike was seconds apart."""
    sent = changed(by(seconds), topic, messages(3.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    name = "head" if topic == HEAD else "action left_arm"
    assert re.search(rf"the clock of {name} is {says}.*: followed\. Synchronise", capsys.readouterr().err)
    assert convert(write(tmp_path / "plain", messages(3.0)), "--output", tmp_path / "expected") == 0
    (found,), (expected,) = (converted(tmp_path / name).values() for name in ("data", "expected"))
    assert found[0] == expected[0] == list(range(46))
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("change", [lambda log: 0, lambda log: log + 10**16, lambda log: 2 * log], ids=["0", "+", "2"])
def test_log_times_that_say_nothing_about_the_stamps_change_nothing(tmp_path, capsys, change):
    sent = [(change(log), topic, content) for log, topic, content in messages(3.0)]
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    assert "clock" not in capsys.readouterr().err
    assert pictures(tmp_path / "data") == [list(range(46))]


def test_a_recorder_that_stalled_changes_nothing(tmp_path, capsys):
    late = [(max(log, BEGIN + 5 * SECOND) if log > BEGIN + 2 * SECOND else log, t, c) for log, t, c in messages(7.0)]
    assert convert(write(tmp_path / "bag", late), "--output", tmp_path / "data") == 0
    assert "clock" not in capsys.readouterr().err
    assert len(pictures(tmp_path / "data")[0]) == 106


@pytest.mark.parametrize(("seconds", "says"), [(3, "set ahead by 3.00 s"), (-0.5, "set back by 0.50 s")])
@pytest.mark.parametrize("topic", [HEAD, LEFT_ARM])
def test_a_clock_that_is_set_is_refused(tmp_path, capsys, topic, seconds, says):
    sent = changed(by(seconds, since=3.0), topic, messages(7.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 2
    assert f"its clock was {says} after" in capsys.readouterr().err


@pytest.mark.parametrize("ahead", [1000, -1000])
@pytest.mark.parametrize("place", [0, 30])
def test_an_odd_stamp_at_an_end_is_left_out(tmp_path, capsys, place, ahead):
    sent = changed(lambda k, log, c: by(ahead)(k, log, c) if k == place else c, HEAD, messages(2.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    error = capsys.readouterr().err
    assert "head: not used are 1 with a stamp of another time" in error
    assert "begins" not in error
    assert "ends" not in error
    expected = [k for k in range(31) if k != place]
    (found,) = pictures(tmp_path / "data")
    assert set(found) <= set(expected)
    assert len(found) >= 28


def test_stamps_that_are_missing_or_stand_still_are_said(tmp_path, capsys):
    sent = changed(lambda k, log, _: bags.image(0 if k % 2 else log, k), HEAD, messages(2.0))
    assert convert(write(tmp_path / "half", sent), "--output", tmp_path / "data") == 0
    assert "head: not used are 15 without a stamp" in capsys.readouterr().err
    for name, stamp, says in (
        ("none", 0, "no usable messages of head (31 have no stamp)"),
        ("one", BEGIN, "of head there are 1 (30 more repeat a stamp)"),
    ):
        sent = changed(lambda k, _, __, stamp=stamp: bags.image(stamp, k), HEAD, messages(2.0))
        assert convert(write(tmp_path / name, sent), "--output", tmp_path / name / "data") == 2
        assert says in capsys.readouterr().err


# Pictures in recordings


def seen(change, seconds=2.0):
    """`change(number, picture)` gives the bytes of the head's pictures, or None: as they are."""

    def new(k, log, content):
        data = change(k, bytes(content.data))
        return bags.message(bags.COMPRESSED_IMAGE, log, format="x", data=np.frombuffer(data, np.uint8))

    return changed(new, HEAD, messages(seconds, size=(160, 120)))


def damaged(data):
    """Without its middle; its end is there."""
    begin = data.rfind(b"\xff\xda") + 14
    return data[: begin + (len(data) - begin) // 3] + b"\xff\xd9"


def jpeg(number, size):
    return cv2.imencode(".jpg", np.full((*size[::-1], 3), 20 + 3 * number, np.uint8))[1].tobytes()


ONE_ODD_PICTURE = {
    "damaged": lambda data: damaged(data),
    "nothing": lambda _: b"",
    "of another size": lambda _: jpeg(30, (64, 48)),
    "text": lambda _: b"no picture",
}


@pytest.mark.parametrize("place", [0, 7])
@pytest.mark.parametrize("spoil", ONE_ODD_PICTURE.values(), ids=ONE_ODD_PICTURE)
def test_one_odd_picture_is_skipped_and_counted(tmp_path, capsys, spoil, place):
    bag = write(tmp_path / "bag", seen(lambda k, data: spoil(data) if k == place else data))
    if place == 0 and spoil is ONE_ODD_PICTURE["of another size"]:  # the others are
        assert convert(bag, "--output", tmp_path / "data") == 2
        assert "head has no usable image for 0.2 s: 160x120 pixels, those before 64x48" in capsys.readouterr().err
        return
    assert convert(bag, "--output", tmp_path / "data") == 0
    assert re.search(r"1 of \d+ (messages|images of head) are damaged", capsys.readouterr().err)
    (found,) = pictures(tmp_path / "data")
    assert found == ([*range(7), 6, *range(8, 31)] if place else list(range(1, 31)))


def test_pictures_that_nobody_can_use_are_named(tmp_path, capsys):
    for name, change, says in (
        ("h264", lambda k, _: b"\0\0\0\1gabc", "are not an image, neither a JPEG nor a PNG (format label: 'x')"),
        ("size", lambda k, data: jpeg(k, (64, 48)) if k > 10 else data, "64x48 pixels, those before 160x120"),
    ):
        assert convert(write(tmp_path / name, seen(change)), "--output", tmp_path / name / "data") == 2
        assert says in capsys.readouterr().err


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=40))
def test_a_settled_stream_ascends_and_keeps_the_most(stamps):
    stream = Stream(1)
    for log, stamp in enumerate(stamps):
        stream.add(stamp, log, [stamp])
    stream.settle()
    kept = list(stream.stamps)
    assert all(a < b for a, b in zip(kept, kept[1:], strict=False))
    assert stream.rows(range(len(kept))).ravel().tolist() == kept
    longest = [1] * len(stamps)
    for k, stamp in enumerate(stamps):
        longest[k] = 1 + max((longest[j] for j in range(k) if stamps[j] < stamp), default=0)
    assert len(kept) == max(longest, default=0)


def test_a_camera_that_froze_is_said(tmp_path, capsys):
    """The picture comes again and again while the arm moves; the data are kept."""
    scene = np.random.default_rng(0).integers(30, 220, (24, 32, 3), np.uint8)
    data = cv2.imencode(".jpg", scene)[1]
    same = lambda _, log, __: bags.message(bags.COMPRESSED_IMAGE, log, format="jpeg", data=data)  # noqa: E731
    sent = changed(same, CAMERAS["wrist_left"], messages(3.0))
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    error = capsys.readouterr().err
    assert re.search(
        r"note: .*bag: frozen camera: wrist_left, for \d\.\d s while an arm moved .* up to frame \d+", error
    )
    assert "frozen camera: head" not in error
    assert len(pictures(tmp_path / "data")[0]) == 46
