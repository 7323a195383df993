"""`fastwam convert`: recordings of the robot as a LeRobot dataset, resampled to one rate."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
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


@dataclass
class _Stream:
    """Messages of one topic by their stamps; those without one, or older than the last, are left out."""

    stamps: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, stamp: int, value: Any) -> None:
        if stamp and (not self.stamps or stamp > self.stamps[-1]):
            self.stamps.append(stamp)
            self.values.append(value)

    def nearest(self, time_ns: int) -> tuple[Any, int]:
        """Value nearest to a time, and its distance in ns."""
        place = bisect.bisect(self.stamps, time_ns)
        around = range(max(0, place - 1), min(len(self.stamps), place + 1))
        best = min(around, key=lambda index: abs(self.stamps[index] - time_ns))
        return self.values[best], abs(self.stamps[best] - time_ns)

    def last(self, time_ns: int) -> Any:
        """Value in force at a time: the last one before it, or the first."""
        return self.values[max(0, bisect.bisect(self.stamps, time_ns) - 1)]


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

    Raises:
        ConfigError: topics are missing, nothing overlaps, or a stream has a gap; names stream and time.
    """
    with closing(open_recording(path)) as reader:
        check_topics(reader, robot, path)
        cameras = {f"/{camera.topic}": (name, camera.type) for name, camera in robot.cameras.items()}
        raw = [name for name, kind in cameras.values() if not kind.endswith("CompressedImage")]
        if raw:
            raise ConfigError(f"cameras.{raw[0]}: only CompressedImage is converted")
        feedback = {f"/{group.feedback}": (f"state {n}", len(group.joints)) for n, group in robot.commanded.items()}
        targets = {f"/{group.target}": (f"action {n}", len(group.joints)) for n, group in robot.commanded.items()}
        streams = {name: _Stream() for name, _ in (*cameras.values(), *feedback.values(), *targets.values())}
        for connection, _, data in reader.messages():
            topic = connection.topic
            message: Any = None
            if topic in cameras:
                message = reader.deserialize(data, connection.msgtype)
                if not is_cut_off(image := bytes(message.data)):  # the frame before it is taken, as in the policy node
                    streams[cameras[topic][0]].add(stamp_ns(message), image)
            elif topic in feedback or topic in targets:
                name, count = (feedback | targets)[topic]
                message = reader.deserialize(data, connection.msgtype)
                values = positions(message, count)
                if len(values) == count and np.isfinite(values).all():
                    streams[name].add(stamp_ns(message), values)
    empty = [name for name, stream in streams.items() if not stream.stamps]
    if empty:
        raise ConfigError(f"{path}: no usable messages of {', '.join(empty)}")
    return _resample(path, robot, settings, streams)


def _resample(path: Path, robot: RobotConfig, settings: ConvertSettings, streams: dict[str, _Stream]) -> Episode:
    begin = max(stream.stamps[0] for stream in streams.values())
    end = min(stream.stamps[-1] for stream in streams.values())
    count = (end - begin) * settings.fps // _NS + 1
    if count < _SHORTEST:
        raise ConfigError(f"{path}: the streams have less than {_SHORTEST} frames in common")
    times = [begin + k * _NS // settings.fps for k in range(count)]
    images: dict[str, list[Pixels]] = {camera: [] for camera in robot.cameras}
    state: dict[str, list[NDArray[np.float64]]] = {group: [] for group in robot.commanded}

    def nearest(name: str, time_ns: int) -> Any:
        value, skew = streams[name].nearest(time_ns)
        if skew > settings.max_skew * _NS:
            raise ConfigError(
                f"{path}: {name} has a gap of {skew / _NS:.2f} s at {(time_ns - begin) / _NS:.2f} s (max_skew "
                f"{settings.max_skew:g} s)"
            )
        return value

    for time_ns in times:
        for camera, frames in images.items():
            frames.append(_decode(path, camera, nearest(camera, time_ns), settings.height))
        for group, rows in state.items():
            rows.append(nearest(f"state {group}", time_ns))
    action = {group: np.array([streams[f"action {group}"].last(t) for t in times]) for group in state}
    return Episode(settings.task, images, {group: np.array(rows) for group, rows in state.items()}, action)


def _decode(path: Path, camera: str, data: bytes, height: int) -> Pixels:
    try:
        image = decode_image(data)
    except ImageError as error:
        raise ConfigError(f"{path}: image of {camera}: {error}") from None
    if not height or image.shape[0] == height:
        return image
    width = 2 * round(image.shape[1] * height / image.shape[0] / 2)  # the codec wants even numbers
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
