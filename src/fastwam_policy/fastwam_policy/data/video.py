"""Write videos, and read pictures out of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import av
import numpy as np

from fastwam_policy.data.streamed import present
from fastwam_policy.policies.base import Pixels
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

CODEC, PIXEL_FORMAT = "libx264", "yuv420p"
_REORDERED: Final = 2.0  # s that a frame may be stored after one that is shown later
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


def read_frames(path: Path, stamps: Sequence[int]) -> list[Pixels]:
    """RGB images with these ascending stamps, in the video's own unit; fewer where one is not there.

    Raises:
        ConfigError: the video is missing or damaged.
    """
    found: list[Pixels] = []
    try:
        for stamp, image in _decoded(path, stamps[0]):
            if stamp == stamps[len(found)]:
                pixels = np.asarray(image.to_ndarray(format="rgb24"), np.uint8)
                if image.rotation:  # players turn it upright as well
                    pixels = np.ascontiguousarray(np.rot90(pixels, image.rotation // 90))
                while len(found) < len(stamps) and stamps[len(found)] == stamp:
                    found.append(pixels)
                if len(found) == len(stamps):
                    break
            elif stamp > stamps[len(found)]:
                break
    except (OSError, ValueError, av.FFmpegError) as error:
        raise ConfigError(f"{path}: cannot be decoded: {error}") from None
    return found


def _decoded(path: Path, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Stamp and image of each frame, from the one of stamp `first` or from before it.

    Raises:
        av.FFmpegError: one is damaged. FFmpeg would fill it with something.
    """
    try:
        yield from _decoded_from(path, first)
    except av.FFmpegError:  # frames may refer to others that seeking left out
        yield from _decoded_from(path, None)


def _decoded_from(path: Path, first: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
    """As :func:`_decoded`; all frames with None."""
    with av.open(str(present(path))) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        stream.codec_context.thread_count = 1  # with more, damage is passed over
        base, begin = stream.time_base, stream.start_time or 0
        assert base is not None
        early = round(_REORDERED / base) if stream.codec_context.has_b_frames else 0
        if first is not None and first - early > begin:
            container.seek(first - early, stream=stream)
            image = next(container.decode(stream), None)
            if image is not None and image.pts is not None and image.pts <= first:
                yield image.pts, image
            else:
                container.seek(begin, stream=stream)
        for image in container.decode(stream):
            if image.pts is not None:
                yield image.pts, image
