import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from fastwam_policy.nodes.image_decoding import decode_compressed, decode_raw
from fastwam_policy.policies.images import ImageError

RED = np.zeros((48, 64, 3), np.uint8)
RED[..., 0] = 255
JPEG = cv2.imencode(".jpg", RED[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("label", ["jpeg", "rgb8; jpeg compressed bgr8", "", "png"])
def test_bytes_are_decoded_whatever_the_label_says(label):
    image = decode_compressed(CompressedImage(format=label, data=JPEG))
    assert image.shape == (48, 64, 3)
    assert image[20, 20, 0] > 200, "RGB, not BGR"
    assert image[20, 20, 2] < 50


def test_padding_after_the_jpeg_is_not_damage():
    assert decode_compressed(CompressedImage(data=JPEG + b"\0" * 8)).shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"nothing", JPEG[: len(JPEG) // 2], JPEG[:-2]])
def test_damaged_images_are_errors(data):
    with pytest.raises(ImageError):
        decode_compressed(CompressedImage(data=data))


@pytest.mark.parametrize(("encoding", "order"), [("rgb8", slice(None)), ("bgr8", slice(None, None, -1))])
def test_uncompressed_images(encoding, order):
    message = Image(height=48, width=64, step=192, encoding=encoding, data=RED[..., order].tobytes())
    np.testing.assert_array_equal(decode_raw(message), RED)


def test_rows_may_be_padded():
    rows = np.zeros((48, 224), np.uint8)
    rows[:, :192] = RED.reshape(48, 192)
    np.testing.assert_array_equal(
        decode_raw(Image(height=48, width=64, step=224, encoding="rgb8", data=rows.tobytes())), RED
    )


COLOUR = np.array([200, 100, 40], np.uint8)


def grid(red, green, blue):
    """A flat colour through a filter: where each of its 2 x 2 pixels lets red, green and blue through."""
    plane = np.zeros((48, 64), np.uint8)
    for (row, column), value in zip((red, *green, blue), COLOUR[[0, 1, 1, 2]], strict=True):
        plane[row::2, column::2] = value
    return plane


BT_601 = np.array([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])
Y, U, V = (BT_601 @ COLOUR + [16, 128, 128]).round().astype(int)
ENCODED = {
    "rgba8": np.full((48, 64, 4), [*COLOUR, 7], np.uint8),
    "bgra8": np.full((48, 64, 4), [*COLOUR[::-1], 7], np.uint8),
    "bayer_rggb8": grid((0, 0), ((0, 1), (1, 0)), (1, 1)),
    "bayer_bggr8": grid((1, 1), ((0, 1), (1, 0)), (0, 0)),
    "bayer_gbrg8": grid((1, 0), ((0, 0), (1, 1)), (0, 1)),
    "bayer_grbg8": grid((0, 1), ((0, 0), (1, 1)), (1, 0)),
    "yuv422": np.tile(np.array([U, Y, V, Y], np.uint8), (48, 32)),
    "yuyv": np.tile(np.array([Y, U, Y, V], np.uint8), (48, 32)),
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_colour_is_that_colour_in_every_encoding(encoding):
    data = ENCODED[encoding]
    message = Image(height=48, width=64, step=data.strides[0], encoding=encoding, data=data.tobytes())
    found = decode_raw(message)
    assert found.shape == (48, 64, 3)
    np.testing.assert_allclose(found[20, 20], COLOUR, atol=2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data": b"123"}, r"'rgb8' image of 64 x 48 has 3 bytes in rows of 192: 48 rows of at least 192"),
        ({"step": 64}, "in rows of 64: 48 rows of at least 192"),
        ({"step": 0}, "in rows of 0"),
        ({"width": 60_000, "height": 60_000, "step": 180_000}, "60000 x 60000 pixels"),
        ({"width": 0, "height": 0, "step": 0, "data": b""}, "0 x 0 pixels"),
        *(({"encoding": name}, "only rgb8, bgr8") for name in ("16UC1", "32FC1", "mono16", "8UC3", "nv12", "", "hsv8")),
        ({"encoding": "yuyv", "width": 63, "step": 192}, "'yuyv' image of 63 x 48"),
    ],
)
def test_uncompressed_images_that_are_not_what_they_say_are_refused_in_a_line(fields, says):
    message = Image(**{"height": 48, "width": 64, "step": 192, "encoding": "rgb8", "data": RED.tobytes()} | fields)
    with pytest.raises(ImageError, match=says):
        decode_raw(message)
