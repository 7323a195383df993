import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from fastwam_policy.nodes.image_decoding import decode_compressed, image_decoder
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
    np.testing.assert_array_equal(image_decoder()(message), RED)


def test_uncompressed_images_that_lie_about_their_size():
    with pytest.raises(ImageError, match="rgb8 image of 64 x 48"):
        image_decoder()(Image(height=48, width=64, step=192, encoding="rgb8", data=b"123"))
