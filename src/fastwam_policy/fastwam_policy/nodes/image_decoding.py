"""Image messages to RGB arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from fastwam_policy.policy.images import Pixels
from fastwam_policy.runtime.inference_loop import ImageError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def decode_compressed(message: CompressedImage) -> Pixels:
    """RGB [H, W, 3] from a CompressedImage, by its bytes: some drivers write other things than `jpeg` as format.

    Raises:
        ImageError: not an image, or a JPEG that was cut off, which OpenCV would fill with grey.
    """
    data = np.frombuffer(message.data, np.uint8)
    if data[:2].tobytes() == _JPEG_START and not data[-64:].tobytes().rstrip(b"\x00").endswith(_JPEG_END):
        raise ImageError(f"JPEG of {len(data)} bytes is cut off")
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise ImageError(f"{len(data)} bytes are not an image (format label: {message.format!r})")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def image_decoder() -> Callable[[Image], Pixels]:
    """Decoder of uncompressed images: cv_bridge where it works with the installed NumPy, else rosbags-image."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
        bridge.imgmsg_to_cv2(Image(height=1, width=1, encoding="rgb8", step=3, data=[1, 2, 3]), "bgr8")
    except Exception:  # noqa: BLE001  cv_bridge compiled for another NumPy fails in many ways
        from rosbags.image import message_to_cvimage

        return _checked(lambda message: message_to_cvimage(message, "rgb8"))
    return _checked(lambda message: bridge.imgmsg_to_cv2(message, "rgb8"))


def _checked(convert: Callable[[Any], Any]) -> Callable[[Image], Pixels]:
    def decode(message: Image) -> Pixels:
        try:
            return np.asarray(convert(message), np.uint8)
        except Exception as error:
            raise ImageError(f"{message.encoding} image of {message.width} x {message.height}: {error}") from error

    return decode
