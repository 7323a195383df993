"""Image messages to RGB arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, check_size, decode_image
from galaxea_r1lite_bridge.robot.config import RobotConfig

_ENCODINGS: Final[dict[str, tuple[int, int | None]]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
"""Bytes of a pixel, and how OpenCV makes RGB of them. Depth and 16 bits show no scene as the cameras' pictures do."""


def image_decoders(robot: RobotConfig) -> dict[str, Callable[[Any], Pixels]]:
    """Decoder of each camera's messages; all raise ImageError."""
    return {
        name: decode_compressed if camera.type.endswith("CompressedImage") else decode_raw
        for name, camera in robot.cameras.items()
    }


def decode_compressed(message: CompressedImage) -> Pixels:
    """RGB [H, W, 3] from a CompressedImage; raises ImageError as :func:`decode_image` does."""
    return decode_image(bytes(message.data), message.format)


def decode_raw(message: Image) -> Pixels:
    """RGB [H, W, 3] from an uncompressed image, whose rows may be padded.

    Raises:
        ImageError: another encoding, too few bytes for its size, or larger than 4096 x 4096.
    """
    encoding, height, width, step = message.encoding, message.height, message.width, message.step
    what = f"{encoding!r} image of {width} x {height}"
    if encoding not in _ENCODINGS:
        raise ImageError(f"{what}: only {', '.join(_ENCODINGS)} are read")
    check_size(height, width)
    size, conversion = _ENCODINGS[encoding]
    row = size * width
    if step < row or len(message.data) < height * step:
        raise ImageError(
            f"{what} has {len(message.data)} bytes in rows of {step}: {height} rows of at least {row} are expected"
        )
    rows = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).reshape(height, width, size)
    if conversion is None:
        return pixels
    try:
        return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)
    except cv2.error as error:  # odd sizes of formats that share colours between pixels
        raise ImageError(f"{what}: {error}") from None
