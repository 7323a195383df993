"""The gate for compressed pictures: whole JPEGs and PNGs become RGB pixels, all else is refused with its reason.

OpenCV decodes what is left of a damaged JPEG, fills the rest with grey and hides libjpeg's warnings; simplejpeg in its
strict mode makes errors of them, and gives the same pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from fastwam_policy.policies.base import Pixels

_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_EXIF = b"Exif\0\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST = 4096  # pixels of a side: a file of few bytes may claim 65535, and decoding would fill the memory
_MOST_PARTS = 10_000  # segments of a JPEG and chunks of a PNG: a usual one has 10, and one of 8 MB of noise 1,000
_SAMPLED = 2**18  # bytes of a picture that are compared at most: a sensor's noise changes all of it


class ImageError(ValueError):
    """Image bytes that cannot be used."""


def decode_image(data: bytes, label: str = "") -> Pixels:
    """RGB [H, W, 3] from the bytes of a JPEG or PNG; `label` is what its sender called the format.

    The bytes count, not the label: some drivers write other things than `jpeg`. What follows the picture's end is
    ignored: some drivers pad their buffers. A picture that says in its EXIF data how the camera was held is turned
    upright, as viewers and OpenCV do.

    Raises:
        ImageError: not an image, one that was cut off or damaged, or larger than 4096 x 4096.
    """
    if data.startswith(_JPEG):
        return _decode_jpeg(data)
    if data.startswith(_PNG):
        return _decode_png(data)
    raise ImageError(f"{len(data)} bytes are not an image, neither a JPEG nor a PNG (format label: {label!r})")


def is_cut_off(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG but do not end as one. Costs little; decoding sees more kinds of damage."""
    return data.startswith(_JPEG) and not len(_scans(data))


def fingerprint(data: bytes | memoryview) -> int:
    """A number that two pictures share whose pixels are equal, and hardly any others; 0.1 ms for a large JPEG.

    Of a compressed picture only what its pixels are made of counts: neither a time in its header nor what follows its
    end. `data` may as well be an uncompressed picture.
    """
    head = bytes(data[: len(_PNG)])
    if head.startswith(_JPEG):
        data = _scans(data) or data
    elif head == _PNG:
        with suppress(ImageError):  # it will not be decoded either
            data = b"".join(data[chunk.crc : chunk.crc + 4] for chunk in _png_chunks(data) if chunk.kind == b"IDAT")
    if len(data) > _SAMPLED:
        words = np.frombuffer(data, np.uint64, len(data) // 8)
        data = words[:: 1 + len(data) // _SAMPLED].tobytes()
    return zlib.crc32(data)


def _decode_jpeg(data: bytes) -> Pixels:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        check_size(height, width)
        pixels = np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
    except ImageError:
        raise
    except ValueError as error:
        why = "is cut off" if is_cut_off(data) else f"is damaged: {error}"
        raise ImageError(f"JPEG of {len(data)} bytes {why}") from None
    if any(data.startswith(_EXIF, content) for _, content in _segments(data)):
        return _by_opencv(data)  # the same pixels, turned
    return pixels


def _decode_png(data: bytes) -> Pixels:
    for chunk in _png_chunks(data):
        crc = int.from_bytes(data[chunk.crc : chunk.crc + 4], "big")
        if zlib.crc32(data[chunk.content - 4 : chunk.crc]) != crc:
            raise ImageError(f"PNG of {len(data)} bytes is damaged: a checksum is wrong")
    width, height, bits = (int.from_bytes(data[a:b], "big") for a, b in ((16, 20), (20, 24), (24, 25)))  # of IHDR
    check_size(height, width)
    if bits > 8:
        raise ImageError(f"PNG has {bits} bits a channel, as depth pictures have: 8 are expected")
    return _by_opencv(data)


def _by_opencv(data: bytes) -> Pixels:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f"image of {len(data)} bytes is damaged")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def check_size(height: int, width: int) -> None:
    """ImageError where a picture has no pixels, or more than are read."""
    if not (0 < height <= _LARGEST and 0 < width <= _LARGEST):
        raise ImageError(f"image of {width} x {height} pixels: 1 to {_LARGEST} are read")


def _scans(data: bytes | memoryview) -> bytes | memoryview:
    """What the pixels of a JPEG are made of, from its first scan to its end marker; empty where one is missing."""
    for kind, content in _segments(data):
        if kind == _JPEG_SCAN:
            begin = content - 4
            return data[begin : max(bytes(data).rfind(_JPEG_END, begin), begin)]
    return b""


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Kind of each part of a JPEG up to its first scan, and where its content begins."""
    place, kind = len(_JPEG), 0
    for _ in range(_MOST_PARTS):
        if place + 4 > len(data) or data[place] != 0xFF or kind == _JPEG_SCAN:
            return
        kind = data[place + 1]
        if kind == 0xFF:  # a filler
            place += 1
        else:
            yield kind, place + 4
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


class _Chunk(NamedTuple):
    """Of a PNG: its kind, and where its content and its checksum begin."""

    kind: bytes
    content: int
    crc: int


def _png_chunks(data: bytes | memoryview) -> Iterator[_Chunk]:
    """All chunks to the last one; ImageError where one is missing."""
    place, expected = len(_PNG), b"IHDR"
    for _ in range(_MOST_PARTS):
        kind, content = bytes(data[place + 4 : place + 8]), place + 8
        crc = content + int.from_bytes(data[place : place + 4], "big")
        if crc + 4 > len(data) or expected not in (kind, b""):
            break
        yield _Chunk(kind, content, crc)
        if kind == b"IEND":
            return
        place, expected = crc + 4, b""
    raise ImageError(f"PNG of {len(data)} bytes is cut off")
