"""Video files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import av

from fastwam_policy.policies.base import Pixels

CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
_KEYFRAMES, _QUALITY = 2, "21"  # keyframes close together: random access is fast


def write_video(path: Path, images: Iterable[Pixels], fps: int) -> None:
    """Write an mp4; it appears complete or not at all.

    Images, of which there is one at least, are encoded as they come, and must have the size of the first.
    """
    unfinished = path.with_suffix(".tmp")
    try:
        with av.open(str(unfinished), "w", format="mp4") as container:
            options = {"g": str(_KEYFRAMES), "crf": _QUALITY}
            stream = cast(av.VideoStream, container.add_stream(CODEC, fps, options=options))
            stream.pix_fmt = PIXEL_FORMAT
            for number, image in enumerate(images):
                if not number:
                    stream.height, stream.width = image.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.replace(path)
