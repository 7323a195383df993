"""Image messages to RGB arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image
from galaxea_r1lite_bridge.robot.config import RobotConfig


def image_decoders(robot: RobotConfig) -> dict[str, Callable[[Any], Pixels]]:
    """Decoder of each camera's messages; all raise ImageError."""
    raw = image_decoder()
    return {
        name: decode_compressed if camera.type.endswith("CompressedImage") else raw
        for name, camera in robot.cameras.items()
    }


def decode_compressed(message: CompressedImage) -> Pixels:
    """RGB [H, W, 3] from a CompressedImage; raises ImageError as :func:`decode_image` does."""
    return decode_image(bytes(message.data), message.format)


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
