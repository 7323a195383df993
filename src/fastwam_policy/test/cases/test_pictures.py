"""Pictures as cameras and their drivers really send them: each is decoded right, or refused and counted.

The rules are in docs/reference/states.md, "Cameras".
"""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastwam_policy.policies.base import Frame
from fastwam_policy.policies.images import ImageError, decode_image, fingerprint, is_cut_off
from fastwam_policy.runtime.camera_watch import CameraReaction, CameraWatch, CameraWatchdog, is_blind
from fastwam_policy.runtime.frames import FrameSource
from fastwam_policy.runtime.observation_buffer import ObservationBuffer, Waiting
from fastwam_policy.runtime.reasons import PolicyReason
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
NS = 1_000_000_000
T = 1_000 * NS
PERIOD = NS // 15


def picture(seed=0, height=48, width=64):
    coarse = np.random.default_rng(seed).integers(20, 235, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, kind=".jpg", *flags):
    return cv2.imencode(kind, image[..., ::-1], list(flags))[1].tobytes()


JPEG, PNG = encode(picture()), encode(picture(), ".png")
SCAN = JPEG.rfind(b"\xff\xda") + 14
END = b"\xff\xd9"


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("quality", [5, 50, 90, 95, 100])
@pytest.mark.parametrize("sampling", [411, 420, 422, 440, 444])
@pytest.mark.parametrize("size", [(48, 64), (33, 47), (17, 16), (8, 8), (1, 1)])
def test_pixels_are_those_of_opencv(size, sampling, quality):
    names = {411: 0x411111, 420: 0x221111, 422: 0x211111, 440: 0x121111, 444: 0x111111}
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, names[sampling]]
    for seed in range(4):
        data = encode(picture(seed, *size), ".jpg", *flags)
        np.testing.assert_array_equal(decode_image(data), by_opencv(data))


@pytest.mark.parametrize(
    "flags", [[cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_OPTIMIZE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]]
)
def test_every_kind_of_jpeg_is_decoded(flags):
    data = encode(picture(), ".jpg", *flags)
    np.testing.assert_array_equal(decode_image(data), by_opencv(data))


def test_a_grey_picture_has_three_channels():
    grey = cv2.imencode(".jpg", picture()[..., 0])[1].tobytes()
    assert decode_image(grey).shape == (48, 64, 3)
    np.testing.assert_array_equal(decode_image(grey), by_opencv(grey))


def test_a_png_is_decoded_exactly():
    np.testing.assert_array_equal(decode_image(PNG), picture())
    with_alpha = cv2.imencode(".png", np.dstack([picture()[..., ::-1], np.full((48, 64), 7, np.uint8)]))[1].tobytes()
    np.testing.assert_array_equal(decode_image(with_alpha), picture())


def exif(orientation, order):
    """Of a TIFF header only this entry."""
    entry = struct.pack(f"{order}HHIHH", 0x112, 3, 1, orientation, 0)
    begin = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return begin + struct.pack(f"{order}H", 1) + entry + bytes(4)


def with_exif(data, orientation, order="<"):
    content = b"Exif\0\0" + exif(orientation, order)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(content)) + content + data[2:]


UPRIGHT = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p), 9: lambda p: p, 0: lambda p: p,
}  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_that_says_how_the_camera_was_held_is_turned_upright(orientation, order):
    """As viewers and OpenCV do, so that a picture is the same wherever it is looked at."""
    expected = UPRIGHT[orientation](decode_image(JPEG))
    found = decode_image(with_exif(JPEG, orientation, order))
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, by_opencv(with_exif(JPEG, orientation, order)))
    with pytest.raises(ImageError):
        decode_image(with_exif(DAMAGED["middle lost"], orientation, order))


def test_exif_data_that_is_damaged_turns_nothing():
    for cut in range(4, 20):
        content = exif(6, "<")[:cut]
        data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(content)) + b"Exif\0\0" + content + JPEG[2:]
        np.testing.assert_array_equal(decode_image(data), decode_image(JPEG))


PADDING = {
    "64 zeros": bytes(64),
    "4096 zeros": bytes(4096),
    "3 zeros": bytes(3),
    "vendor padding": bytes(range(1, 145)),
    "4096 bytes of anything": np.random.default_rng(3).bytes(4096),
    "fill bytes": b"\xff" * 5,
    "another picture": encode(picture(9)),
}


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("data", [JPEG, PNG], ids=["JPEG", "PNG"])
def test_what_follows_the_end_is_ignored(data, padding):
    np.testing.assert_array_equal(decode_image(data + padding), decode_image(data))
    assert not is_cut_off(data + padding)


DAMAGED = {
    "nothing": b"",
    "text": b"no picture",
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "half a JPEG with its end marker": JPEG[: len(JPEG) * 2 // 3] + END,
    "middle lost": JPEG[: SCAN + (len(JPEG) - SCAN) // 3] + END,
    "two thirds and padding": JPEG[: len(JPEG) * 2 // 3] + bytes(64),
    "no end marker": JPEG[:-2],
    "two bytes": JPEG[:2],
    "header only": JPEG[:SCAN],
    "header and end": JPEG[:SCAN] + END,
    "half a PNG": PNG[: len(PNG) // 2],
    "PNG without its last chunk": PNG[:-12],
    "PNG with one other byte": PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:],
    "depth picture": cv2.imencode(".png", np.full((48, 64), 700, np.uint16))[1].tobytes(),
    "compressedDepth": bytes(12) + PNG,
    "bitmap": cv2.imencode(".bmp", picture())[1].tobytes(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_pictures_are_refused_with_one_line(data):
    with pytest.raises(ImageError) as refused:
        decode_image(data)
    assert "\n" not in str(refused.value)


def test_a_picture_that_claims_to_be_huge_is_not_decoded():
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    huge = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match="60000 x 60000 pixels"):
        decode_image(b"\x89PNG\r\n\x1a\n" + huge)
    wide = bytearray(JPEG)
    frame = wide.find(b"\xff\xc0")
    wide[frame + 5 : frame + 9] = struct.pack(">HH", 5000, 5000)
    with pytest.raises(ImageError, match="5000 x 5000 pixels"):
        decode_image(bytes(wide))


def decoded(data):
    """The pixels, or None where the picture is refused; anything else is an error."""
    try:
        image = decode_image(data)
    except ImageError:
        return None
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    return image


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", JPEG[:2], JPEG[:SCAN], PNG[:8], PNG[:33]]))
def test_any_bytes_are_a_picture_or_refused(data, beginning):
    decoded(beginning + data)
    fingerprint(beginning + data)
    is_cut_off(beginning + data)


@settings(deadline=None)
@given(st.data(), st.sampled_from([JPEG, PNG]))
def test_any_damage_gives_a_picture_or_is_refused(data, whole):
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        cut = data.draw(st.integers(0, 40))
        broken[at : at + cut] = data.draw(st.binary(max_size=40))
        broken = broken or bytearray(b"\0")
    decoded(bytes(broken))
    fingerprint(bytes(broken))


@settings(deadline=None)
@given(st.integers(0, len(JPEG) - 3), st.sampled_from([b"", END, bytes(100)]))
def test_no_jpeg_that_was_cut_anywhere_is_used(length, end):
    """The last bits of a scan may be those that fill its last byte: what is left may be whole but for them."""
    image = decoded(JPEG[:length] + end)
    assert image is None or (length > len(JPEG) - 5 and np.abs(image.astype(int) - decode_image(JPEG)).max() < 3)


def with_comment(data, text):
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(text)) + text + data[2:]


def test_a_fingerprint_is_that_of_the_pixels():
    same = [JPEG, JPEG + b"padding 1", with_comment(JPEG, b"12:00:01"), with_comment(JPEG, b"12:00:02") + bytes(9)]
    assert len({fingerprint(data) for data in same}) == 1
    assert len({fingerprint(encode(picture(seed))) for seed in range(50)}) == 50
    assert fingerprint(PNG) == fingerprint(PNG + b"padding")
    assert fingerprint(PNG) != fingerprint(encode(picture(1), ".png"))
    raw = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    noisy = raw + np.random.default_rng(1).integers(0, 2, raw.shape, np.uint8)
    assert fingerprint(memoryview(raw.tobytes())) != fingerprint(memoryview(noisy.tobytes()))


HOLD, OFF = CameraReaction.HOLD, CameraReaction.OFF


class Watched:
    """Cameras at 15 Hz in front of arms that move with so many rad/s."""

    def __init__(self, frozen=HOLD, blind=HOLD):
        self.watch = CameraWatch(ROBOT, CameraWatchdog(0.5, frozen), CameraWatchdog(0.5, blind))
        self.now, self.pictures = T, 0
        self.joints = {arm: np.zeros(6) for arm in ROBOT.workspace.arms}

    def run(self, seconds, likeness, camera="wrist_left", **speeds):
        """The reason that is given in the end, and the s after which it was first given."""
        begin = self.now
        found = None
        while self.now - begin < seconds * NS:
            self.now += PERIOD
            self.pictures += 1
            for arm, speed in speeds.items():
                self.joints[arm] = self.joints[arm] + [0, speed * PERIOD / NS, 0, 0, 0, 0]
            self.watch.arrived(camera, self.now, likeness(self.pictures), self.joints)
            if found is None and self.watch.finding() is not None:
                found = (self.now - begin) / NS
        finding = self.watch.finding()
        return (finding.reason if finding else None), found


@pytest.mark.parametrize(
    ("camera", "speeds", "frozen"),
    [
        ("wrist_left", {"left_arm": 0.2}, True),
        ("wrist_left", {"left_arm": 0.01}, False),
        ("wrist_left", {"right_arm": 0.5}, False),
        ("wrist_right", {"right_arm": 0.2}, True),
        ("head", {"left_arm": 0.3}, True),
        ("head", {"right_arm": 0.3}, True),
        ("head", {"right_arm": 0.1}, False),
        ("head", {}, False),
    ],
)
def test_the_same_picture_while_its_arm_moves_is_frozen(camera, speeds, frozen):
    reason, after = Watched().run(1.5, lambda _: 7, camera, **speeds)
    assert reason == (PolicyReason.CAMERA_FROZEN if frozen else None)
    assert after is None or after <= 0.9


def test_a_still_scene_is_no_fault_until_the_arm_moves_and_the_picture_does_not():
    world = Watched()
    assert world.run(60.0, lambda _: 7)[0] is None
    assert world.run(0.5, lambda _: 7, left_arm=0.3)[0] == PolicyReason.CAMERA_FROZEN
    assert world.run(5.0, lambda _: 7)[0] == PolicyReason.CAMERA_FROZEN, "the arms rest, and it is as frozen as before"
    assert world.run(PERIOD / NS, lambda k: 100 + k)[0] is None


def test_an_arm_that_begins_to_move_is_seen_one_picture_later():
    world = Watched()
    assert world.run(2.0, lambda _: 7)[0] is None
    assert world.run(PERIOD / NS, lambda _: 7, left_arm=1.5)[0] is None, "0.1 rad: sent before the camera saw it"
    assert world.run(2.0, lambda k: k, left_arm=1.5)[0] is None


def test_old_buffers_sent_in_turn_are_frozen_too():
    assert Watched().run(2.0, lambda k: k % 4, left_arm=0.3)[0] == PolicyReason.CAMERA_FROZEN


def test_pictures_that_differ_are_not_frozen():
    assert Watched().run(5.0, lambda k: k, left_arm=0.3) == (None, None)
    assert Watched().run(5.0, lambda k: k // 4, left_arm=0.3) == (None, None), "a camera at 4 Hz that is sent at 15 Hz"


def test_frozen_cameras_can_be_left_unwatched():
    assert Watched(frozen=OFF).run(2.0, lambda _: 7, left_arm=0.3) == (None, None)


def noise(mean, spread, seed=0, size=(360, 640, 3)):
    return np.random.default_rng(seed).normal(mean, spread, size).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "blind"),
    [
        (np.zeros((360, 640, 3), np.uint8), True),
        (np.full((360, 640, 3), 255, np.uint8), True),
        (np.full((360, 640, 3), (90, 120, 30), np.uint8), True),
        (noise(3, 1), True),
        (noise(20, 3), False),
        (noise(235, 2), False),
        (picture(0, 720, 1280), False),
        (np.zeros((1, 1, 3), np.uint8), True),
    ],
)
def test_blind_is_dark_or_of_one_colour(image, blind):
    assert is_blind(image) == blind


def test_a_few_bright_pixels_do_not_make_a_dark_picture_one_to_act_on():
    image = noise(3, 1)
    image[:30, :60] = 200
    assert is_blind(image)
    image[:60, :200] = 200
    assert not is_blind(image)


def test_one_wrong_pixel_is_seen_at_any_size():
    image = np.full((360, 640, 3), 90, np.uint8)
    image[101, 333, 1] += 1
    assert not is_blind(image)


class Source:
    """One camera and the arms, decoded by a FrameSource."""

    def __init__(self, blind=HOLD):
        self.buffer = ObservationBuffer(["head"], {"left_arm": 1}, max_skew=0.05, max_age=0.3)
        self.watch = CameraWatch(ROBOT, CameraWatchdog(0.5, HOLD), CameraWatchdog(0.5, blind))
        self.frames = FrameSource(self.buffer, {"left_arm": ["j"]}, {"head": decode_image}, self.watch)
        self.now = T

    def see(self, data):
        self.now += PERIOD
        self.buffer.add_image("head", self.now, data)
        self.buffer.add_joints("left_arm", self.now, [0.0])
        return self.frames.newest(self.now, 0)

    def reasons(self, data, count):
        found = [self.see(data) for _ in range(count)]
        return [one.reason if isinstance(one, Waiting) else None for one in found]


BLACK = encode(np.zeros((48, 64, 3), np.uint8))


def test_blind_pictures_are_never_used_and_named_after_half_a_second():
    source = Source()
    assert isinstance(source.see(JPEG), Frame)
    first = source.see(BLACK)
    assert first.reason == PolicyReason.SAME_OBSERVATION, "not used, and no news"
    reasons = source.reasons(BLACK, 12)
    assert PolicyReason.CAMERA_BLIND not in reasons[:6]
    assert set(reasons[7:]) == {PolicyReason.CAMERA_BLIND}
    assert source.buffer.streams["head"].rejected[PolicyReason.CAMERA_BLIND] >= 10
    assert isinstance(source.see(JPEG), Frame), "at once when it is over"


def test_what_is_black_is_called_blind_and_not_frozen():
    source = Source()
    for _ in range(20):
        source.see(BLACK)
        joints = {arm: np.full(6, source.now / NS) for arm in ROBOT.workspace.arms}
        source.watch.arrived("head", source.now, fingerprint(BLACK), joints)
    assert source.see(BLACK).reason == PolicyReason.CAMERA_BLIND


def test_what_is_black_is_called_blind_where_few_pictures_are_looked_at():
    """As on a busy machine: the bytes of all pictures are compared, and the pixels of some."""
    source, reasons = Source(), []
    for picture_number in range(60):
        source.now += PERIOD
        source.buffer.add_image("head", source.now, BLACK)
        source.buffer.add_joints("left_arm", source.now, [0.0])
        joints = {arm: np.full(6, source.now / NS) for arm in ROBOT.workspace.arms}
        source.watch.arrived("head", source.now, fingerprint(BLACK), joints)
        if picture_number % 12 == 0:
            reasons.append(source.frames.newest(source.now, 0).reason)
    assert reasons == [PolicyReason.SAME_OBSERVATION, *[PolicyReason.CAMERA_BLIND] * 4]


def test_dark_for_a_moment_is_no_fault():
    source = Source()
    for _ in range(5):
        assert PolicyReason.CAMERA_BLIND not in source.reasons(BLACK, 5)
        assert isinstance(source.see(JPEG), Frame)


def test_blind_cameras_can_be_left_unwatched():
    assert Source(blind=OFF).reasons(BLACK, 20) == [None] * 20


def test_a_fault_ends_the_policy():
    source = Source(blind=CameraReaction.FAULT)
    source.reasons(BLACK, 12)
    assert source.see(BLACK) == Waiting(PolicyReason.CAMERA_BLIND, "head, 0.8 s", ends=True)


@pytest.mark.parametrize("name", [name for name in DAMAGED if "JPEG" in name or name == "middle lost"])
def test_damaged_pictures_are_dropped_and_counted_and_the_next_is_used(name):
    source = Source()
    assert source.see(DAMAGED[name]).reason == PolicyReason.SAME_OBSERVATION, "not used, and no news"
    assert source.buffer.streams["head"].rejected == {PolicyReason.CORRUPT_IMAGE: 1}
    assert isinstance(source.see(JPEG), Frame)
    source.reasons(DAMAGED[name], 10)
    assert source.buffer.streams["head"].rejected == {PolicyReason.CORRUPT_IMAGE: 11}
    assert source.frames.newest(source.now, 0) == Waiting(PolicyReason.CORRUPT_IMAGE, "head")
