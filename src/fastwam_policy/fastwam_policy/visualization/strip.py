"""What a model imagined above what then happened, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels

LABEL_HEIGHT = 18  # px
_FONT_SCALE = 0.36  # 30 letters on 192 px


def comparison_strip(
    imagined: NDArray[np.uint8], happened: NDArray[np.uint8], planned: Sequence[float], seen: Sequence[float]
) -> Pixels:
    """One column a frame, each frame with a line of text above it: RGB [2 (H + LABEL_HEIGHT), F W, 3].

    Errors are means of the absolute difference of all pixels, of 255. How much the picture has changed since frame 0
    is next to them: a model that imagines that nothing happens has that error.

    Args:
        imagined: RGB [F, H, W, 3]; frame 0 is the observation through the autoencoder, its error is that one's alone.
        happened: what the cameras saw, in the same form.
        planned: time of each imagined frame after the observation, s.
        seen: time of what the cameras saw, s.
    """
    columns = []
    for picture, truth, at, seen_at in zip(imagined, happened, planned, seen, strict=True):
        error, change = (_difference(truth, other) for other in (picture, happened[0]))
        columns.append(
            np.concatenate(
                [
                    _label(f"imagined {at:+.2f} s: error {error:.1f}", picture.shape[1]),
                    picture,
                    _label(f"happened {seen_at:+.2f} s: change {change:.1f}", picture.shape[1]),
                    truth,
                ]
            )
        )
    return np.concatenate(columns, axis=1)


def _difference(one: Pixels, other: Pixels) -> float:
    return float(cv2.absdiff(one, other).mean())


def _label(text: str, width: int) -> Pixels:
    bar = np.zeros((LABEL_HEIGHT, width, 3), np.uint8)
    cv2.putText(bar, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return bar
