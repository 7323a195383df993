"""Which frame of a video belongs to which row of a table: the one at the row's time, never the one of its number.

A row and a frame belong together where their times differ by less than half a period. This is the only place that
says so: frames that an encoder lost, videos of another rate and offsets that drifted are found by it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.files import refuse_pointer
from fastwam_policy.data.streamed import is_streamed, present, times_file, touched
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

TOLERANCE: Final = 0.499  # of a period: at half a period two frames are equally near
MAX_PIXELS: Final = 2**25  # of a frame: 8K; more is a mistake or an attack
_VIDEOS_KEPT: Final = 64  # of which the times are remembered


@dataclass(frozen=True)
class FrameTimes:
    """All frames of a video in the order in which they are shown.

    Attributes:
        seconds: when each is shown, [N] s, ascending.
        stamps: the same in the video's own unit.
        size: height and width, pixels.
    """

    seconds: NDArray[np.float64]
    stamps: NDArray[np.int64]
    size: tuple[int, int] = (0, 0)

    def end(self, period: float) -> float:
        """When the last frame is over, s: it is shown as long as most are; a single one for `period`."""
        return float(self.seconds[-1] + (np.median(np.diff(self.seconds)) if len(self.seconds) > 1 else period))


def frame_times(path: Path) -> FrameTimes:
    """When each frame of a video is shown; read from its packets, nothing is decoded.

    Raises:
        ConfigError: missing, damaged, or no video.
    """
    refuse_pointer(path)
    try:
        about = touched(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be decoded: {error.strerror}") from None
    return _frame_times(path, about["size"], about["written"])


@lru_cache(_VIDEOS_KEPT)
def _frame_times(path: Path, _size: int, _written: int) -> FrameTimes:
    if not is_streamed(path):
        return _read_times(path)
    kept = times_file(path)
    if not kept.exists():
        found, unfinished = _read_times(present(path)), kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(unfinished, seconds=found.seconds, stamps=found.stamps, size=found.size)
        unfinished.replace(kept)
    with np.load(kept) as arrays:
        height, width = arrays["size"].tolist()
        return FrameTimes(arrays["seconds"], arrays["stamps"], (height, width))


def _read_times(path: Path) -> FrameTimes:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ConfigError(f"{path}: cannot be decoded: there is no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ConfigError(f"{path}: cannot be decoded: this build of FFmpeg has no decoder for it")
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                size = f"{stream.codec_context.width}x{stream.codec_context.height}"
                raise ConfigError(f"{path}: frames of {size} are more than {MAX_PIXELS} pixels")
            stamps = [
                packet.pts for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard
            ]
            base, shown = stream.time_base, (stream.codec_context.height, stream.codec_context.width)
    except (OSError, ValueError, av.FFmpegError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be decoded: {error}") from None
    if not stamps or base is None:
        raise ConfigError(f"{path}: cannot be decoded: no frame in it has a time")
    ordered = np.array(sorted(stamps), np.int64)
    return FrameTimes((ordered * float(base)).astype(np.float64), ordered, shown)


def frames_at(times: FrameTimes, wanted: NDArray[np.float64], period: float, place: str) -> NDArray[np.int64]:
    """Index of the frame that belongs to each of the `wanted` times, [T] s.

    Raises:
        ConfigError: one has none; begins with `place` and says the row and both times.
    """
    after = np.searchsorted(times.seconds, wanted).clip(max=len(times.seconds) - 1)
    before = (after - 1).clip(min=0)
    nearer = np.abs(times.seconds[before] - wanted) <= np.abs(times.seconds[after] - wanted)
    found = np.where(nearer, before, after)
    distant = np.abs(times.seconds[found] - wanted) > TOLERANCE * period
    if distant.any():
        row = int(distant.argmax())
        raise ConfigError(
            f"{place}: frame {row} is missing: the row is at {wanted[row]:.3f} s of the video, the nearest frame at "
            f"{times.seconds[found[row]]:.3f} s"
        )
    return found


def check_row_times(times: NDArray[np.float64], period: float, place: str) -> None:
    """ConfigError, which begins with `place`, where the rows [T] are not a period apart, the first of them at 0 s."""
    due = np.arange(len(times)) * period
    distant = ~(np.abs(times - due) <= TOLERANCE * period)  # also where one is not a number
    if distant.any():
        row = int(distant.argmax())
        raise ConfigError(
            f"{place}: row {row} has the timestamp {times[row]:.3f} s, at {1 / period:g} rows a second it is due at "
            f"{due[row]:.3f} s"
        )
