"""Other versions of an episode's pictures: cropped, in another colour and light, blurred, and compressed.

A version is drawn once for each camera of an episode, so that all frames of a video agree. Latents of every version are
kept like those of the pictures themselves: to encode a picture takes several times as long as a training step takes for
it, and a fixed number of versions costs that once.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg

from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import decode_image

_CUT = 0.04  # share of width and height that is cut off at most
_SATURATION = (0.6, 1.4)
_GAIN = (0.75, 1.25)  # of all channels together
_CAST = (0.9, 1.1)  # of each channel besides
_OFFSET = 20.0  # of 255, up or down
_BLUR = (0.1, 1.5)  # pixels of deviation
_QUALITY = (70, 95)  # of JPEG


def augmented(pictures: Sequence[Pixels], random: np.random.Generator) -> list[Pixels]:
    """RGB pictures [H, W, 3] of one camera, all changed in the same way."""
    height, width = pictures[0].shape[:2]
    rows, columns = (round(size * (1 - random.uniform(0, _CUT))) for size in (height, width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    saturation = random.uniform(*_SATURATION)
    mixed = saturation * np.eye(3) + (1 - saturation) / 3
    colour = random.uniform(*_GAIN) * random.uniform(*_CAST, 3)[:, None] * mixed
    affine = np.column_stack([colour, np.full(3, random.uniform(-_OFFSET, _OFFSET))])
    deviation, quality = random.uniform(*_BLUR), int(random.integers(*_QUALITY, endpoint=True))

    def change(picture: Pixels) -> Pixels:
        part = cv2.resize(picture[top : top + rows, left : left + columns], (width, height))
        seen = np.asarray(cv2.transform(cv2.GaussianBlur(part, (0, 0), deviation), affine), np.uint8)
        return decode_image(simplejpeg.encode_jpeg(seen, quality, colorsubsampling="420"))

    return [change(picture) for picture in pictures]
