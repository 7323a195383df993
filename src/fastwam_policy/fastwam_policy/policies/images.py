"""Compressed camera images to RGB pixels."""

from __future__ import annotations

import cv2
import numpy as np

from fastwam_policy.policies.base import Pixels

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


class ImageError(ValueError):
    """Image bytes that do not decode."""


def is_cut_off(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG but do not end as one."""
    return data[:2] == _JPEG_START and not data[-64:].rstrip(b"\x00").endswith(_JPEG_END)


def decode_image(data: bytes, label: str = "") -> Pixels:
    """RGB [H, W, 3] from the bytes of a compressed image; `label` is what its sender called the format.

    The bytes count, not the label: some drivers write other things than `jpeg`.

    Raises:
        ImageError: not an image, or a JPEG that was cut off, which OpenCV would fill with grey.
    """
    if is_cut_off(data):
        raise ImageError(f"JPEG of {len(data)} bytes is cut off")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ImageError(f"{len(data)} bytes are not an image (format label: {label!r})")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
