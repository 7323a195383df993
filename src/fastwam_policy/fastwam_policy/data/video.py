"""Video files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import av

from fastwam_policy.policies.base import Pixels

CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
_KEYFRAMES, _QUALITY = 2, "21"  # keyframes close together: random access is fast


def write_video(path: Path, images: Sequence[Pixels], fps: int) -> None:
    """Write an mp4; it appears complete or not at all."""
    height, width = images[0].shape[:2]
    unfinished = path.with_suffix(".tmp")
    with av.open(str(unfinished), "w", format="mp4") as container:
        options = {"g": str(_KEYFRAMES), "crf": _QUALITY}
        stream = cast(av.VideoStream, container.add_stream(CODEC, fps, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)
