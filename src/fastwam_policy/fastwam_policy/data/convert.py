"""`fastwam convert`: recordings of the robot as a LeRobot dataset, resampled to one rate."""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.files import alone_in
from fastwam_policy.common.parallel import in_processes
from fastwam_policy.common.progress import counted
from fastwam_policy.common.settings import Uncompared
from fastwam_policy.data.lerobot_layout import Version
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim
from fastwam_policy.data.recordings import check_topics, open_recording, positions, stamp_ns
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image, is_cut_off
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NS = 1_000_000_000
_SHORTEST = 2  # frames of an episode


@dataclass(frozen=True)
class ConvertSettings:
    """How recordings become episodes.

    Attributes:
        task: instruction of the episodes that are added.
        fps: frames a second.
        max_skew: s, largest distance of a message to its frame's time, as in the policy node.
        height: images are scaled to this height; 0 leaves them as they are.
        version: of the LeRobot format.
    """

    task: Uncompared[str]
    fps: int = 15
    max_skew: float = 0.05
    height: int = 0
    version: Version = "v2.1"


class _Stream:
    """Stamps of one topic's messages, and their numbers [N, width]; stamps that are 0 or not newer are left out."""

    def __init__(self, width: int = 0) -> None:
        self.stamps, self._values, self._width = array("q"), array("d"), width

    def add(self, stamp: int, values: Iterable[float] = ()) -> None:
        if stamp and (not self.stamps or stamp > self.stamps[-1]):
            self.stamps.append(stamp)
            self._values.extend(values)

    def nearest(self, times: Sequence[int]) -> list[int]:
        """Index of the message nearest to each time."""
        return [self._nearest(time) for time in times]

    def _nearest(self, time_ns: int) -> int:
        place = bisect.bisect(self.stamps, time_ns)
        around = range(max(0, place - 1), min(len(self.stamps), place + 1))
        return min(around, key=lambda index: abs(self.stamps[index] - time_ns))

    def last(self, times: Sequence[int]) -> list[int]:
        """Index of the message in force at each time: the last one before it, or the first."""
        return [max(0, bisect.bisect(self.stamps, time) - 1) for time in times]

    def rows(self, indices: Sequence[int]) -> NDArray[np.float64]:
        """Numbers of these messages, [len(indices), width]."""
        return np.array(self._values).reshape(-1, self._width)[indices]


def convert(
    recordings: Sequence[Path], folder: Path, settings: ConvertSettings, workers: int = 0, robot: Path | None = None
) -> dict[Path, str]:
    """Append each recording that is not in the dataset at `folder` yet, in order; return why others were skipped.

    `robot` is another robot file than the installed one.

    Raises:
        ConfigError: the dataset's folder holds something else, or was begun with another rate, height, skew or
            format; another command writes into it; or no recording gave an episode.
    """
    with alone_in(folder):
        claim(folder, "convert", settings)
        dataset = Dataset(folder, RobotConfig.load(robot), settings.fps, settings.version)
        done = dataset.sources()  # as after a kill: they are there already
        sources = {str(path.resolve()): path for path in recordings}
        missing = [path for source, path in sources.items() if source not in done]
        free = (index for index in itertools.count() if not dataset.has(index))
        work = [(path, index, folder, settings, robot) for path, index in zip(missing, free, strict=False)]
        failed: dict[Path, str] = {}
        with counted() as progress:
            task = progress.add_task("recordings", total=len(work))
            for path, reason in in_processes(_convert_one, work, 1 if len(work) == 1 else workers):
                failed |= {path: reason} if reason else {}
                progress.advance(task)
        skipped = {path: failed[path] for path in missing if path in failed}
        if len(skipped) == len(sources):
            raise ConfigError("no recording gave an episode:\n" + "\n".join(skipped.values()))
        dataset.close_gaps()
        dataset.finish()
    return skipped


def _convert_one(
    path: Path, index: int, folder: Path, settings: ConvertSettings, robot_file: Path | None
) -> tuple[Path, str]:
    """The recording, and why it was skipped."""
    robot = RobotConfig.load(robot_file)
    try:
        episode = read_episode(path, robot, settings)
        Dataset(folder, robot, settings.fps, settings.version).write(index, episode, str(path.resolve()))
    except ConfigError as error:
        return path, str(error)
    return path, ""


def read_episode(path: Path, robot: RobotConfig, settings: ConvertSettings) -> Episode:
    """One recording at `fps`: for each frame the nearest message of every stream, and the target in force.

    Its images are read from the recording again, one after the other, when they are iterated.

    Raises:
        ConfigError: topics are missing, nothing overlaps, or a stream has a gap; names stream and time. Iterating the
            images raises it where one cannot be decoded.
    """
    streams = _read_streams(path, robot)
    begin = max(stream.stamps[0] for stream in streams.values())
    end = min(stream.stamps[-1] for stream in streams.values())
    count = (end - begin) * settings.fps // _NS + 1
    if count < _SHORTEST:
        raise ConfigError(f"{path}: the streams have less than {_SHORTEST} frames in common")
    times = [begin + k * _NS // settings.fps for k in range(count)]
    nearest = {name: stream.nearest(times) for name, stream in streams.items() if not name.startswith("action ")}
    for name, indices in nearest.items():
        for time_ns, index in zip(times, indices, strict=True):
            skew = abs(streams[name].stamps[index] - time_ns)
            if skew > settings.max_skew * _NS:
                raise ConfigError(
                    f"{path}: {name} has a gap of {skew / _NS:.2f} s at {(time_ns - begin) / _NS:.2f} s (max_skew "
                    f"{settings.max_skew:g} s)"
                )
    images = {
        camera: _images(path, robot, camera, [streams[camera].stamps[index] for index in nearest[camera]], settings)
        for camera in robot.cameras
    }
    state = {group: streams[f"state {group}"].rows(nearest[f"state {group}"]) for group in robot.commanded}
    actions = {group: streams[f"action {group}"] for group in robot.commanded}
    return Episode(settings.task, images, state, {group: s.rows(s.last(times)) for group, s in actions.items()})


def _read_streams(path: Path, robot: RobotConfig) -> dict[str, _Stream]:
    """Stamps of the cameras' usable images, and stamps and positions of `state GROUP` and `action GROUP`."""
    with closing(open_recording(path)) as reader:
        check_topics(reader, robot, path)
        cameras = {f"/{camera.topic}": name for name, camera in robot.cameras.items()}
        raw = [name for name in cameras.values() if not robot.cameras[name].type.endswith("CompressedImage")]
        if raw:
            raise ConfigError(f"cameras.{raw[0]}: only CompressedImage is converted")
        feedback = {f"/{group.feedback}": (f"state {n}", len(group.joints)) for n, group in robot.commanded.items()}
        joints = feedback | {f"/{g.target}": (f"action {n}", len(g.joints)) for n, g in robot.commanded.items()}
        streams = {name: _Stream() for name in cameras.values()}
        streams |= {name: _Stream(count) for name, count in joints.values()}
        wanted = [connection for connection in reader.connections if connection.topic in cameras | joints]
        for connection, _, data in reader.messages(wanted):
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.topic in cameras:
                if not is_cut_off(bytes(message.data)):  # the frame before it is taken, as in the policy node
                    streams[cameras[connection.topic]].add(stamp_ns(message))
                continue
            name, count = joints[connection.topic]
            values = positions(message, count)
            if len(values) == count and np.isfinite(values).all():
                streams[name].add(stamp_ns(message), values)
    empty = [name for name, stream in streams.items() if not stream.stamps]
    if empty:
        raise ConfigError(f"{path}: no usable messages of {', '.join(empty)}")
    return streams


def _images(
    path: Path, robot: RobotConfig, camera: str, stamps: Sequence[int], settings: ConvertSettings
) -> Iterator[Pixels]:
    """The camera's images of these ascending stamps; one that is asked for twice is decoded once."""
    waiting = deque(stamps)
    with closing(open_recording(path)) as reader:
        wanted = [c for c in reader.connections if c.topic == f"/{robot.cameras[camera].topic}"]
        for connection, _, data in reader.messages(wanted):
            message: Any = reader.deserialize(data, connection.msgtype)
            stamp = stamp_ns(message)
            if not waiting or stamp != waiting[0] or is_cut_off(image := bytes(message.data)):
                continue
            pixels = _decode(path, camera, image, settings.height)
            while waiting and waiting[0] == stamp:
                waiting.popleft()
                yield pixels


def _decode(path: Path, camera: str, data: bytes, height: int) -> Pixels:
    try:
        image = decode_image(data)
    except ImageError as error:
        raise ConfigError(f"{path}: image of {camera}: {error}") from None
    if not height or image.shape[0] == height:
        return image
    width = 2 * round(image.shape[1] * height / image.shape[0] / 2)  # the codec wants even numbers
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
