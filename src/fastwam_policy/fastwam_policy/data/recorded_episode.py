"""One recording of the robot as an episode: its topics, each with its own clock and rate, at the rows of one rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fastwam_policy.common.settings import Uncompared
from fastwam_policy.data.lerobot_layout import Version
from fastwam_policy.data.lerobot_writer import Episode
from fastwam_policy.data.picture_watch import Report, watched
from fastwam_policy.data.recorded_streams import TAKEOVER, check_lost, read_streams
from fastwam_policy.data.recordings import open_recording, stamp_ns, usable
from fastwam_policy.data.streams import Stream
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image, is_cut_off
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_motion import oddities
from galaxea_r1lite_bridge.robot.joint_units import check_units
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NS: Final = 1_000_000_000
_SHORTEST: Final = 2  # frames of an episode
_OLDEST: Final = 4  # times max_skew, 0.2 s by default: a picture that is older does not show what the robot saw
_JITTER: Final = 0.1  # of a period by which a picture may be stamped after its row's time


@dataclass(frozen=True)
class ConvertSettings:
    """How recordings become episodes.

    Attributes:
        task: instruction of the episodes that are added.
        fps: frames a second.
        max_skew: s, largest distance of a joint message to its frame's time; a picture may be four times as old.
        height: images are scaled to this height; 0 leaves them as they are.
        version: of the LeRobot format.
    """

    task: Uncompared[str]
    fps: int = 15
    max_skew: float = 0.05
    height: int = 0
    version: Version = "v2.1"

    @property
    def oldest(self) -> float:
        """S that a picture may be older than its frame."""
        return _OLDEST * self.max_skew


def read_episode(
    path: Path,
    robot: RobotConfig,
    settings: ConvertSettings,
    notes: list[str] | None = None,
    report: Report | None = None,
) -> Episode:
    """One recording at `fps`: for each frame the newest picture, the nearest joints, the target in force, and whose.

    Where a camera has a gap, the longest part without one is the episode. Its images are read from the recording
    again, one after the other, when they are iterated. `notes` is added to, also then: what is left out or odd. What
    `report` is given, if there is one, is not in the notes: cameras that froze or saw nothing.

    Raises:
        ConfigError: topics are missing, nothing overlaps, joints have a gap, or too much is damaged; names stream and
            time. Iterating the images raises it where too many cannot be decoded.
    """
    notes = [] if notes is None else notes
    streams = read_streams(path, robot, notes)
    takeover = streams.pop(TAKEOVER)
    begin = max(stream.stamps[0] for stream in streams.values())
    end = min(stream.stamps[-1] for stream in streams.values())
    count = max(0, (end - begin) * settings.fps // _NS + 1)
    times = [begin + k * _NS // settings.fps for k in range(count)]
    _note_ends(path, streams, settings, notes)
    times, pictures = _without_gaps(path, robot, streams, times, settings, notes)
    if len(times) < _SHORTEST:
        raise ConfigError(f"{path}: less than {_SHORTEST} frames to {settings.fps} a second: {_shortest(streams)}")
    state = {}
    for group in robot.commanded:
        stream = streams[f"state {group}"]
        nearest = stream.nearest(times)
        for time_ns, index in zip(times, nearest, strict=True):
            skew = abs(stream.stamps[index] - time_ns) / _NS
            if skew > settings.max_skew:
                at = (time_ns - begin) / _NS
                raise ConfigError(
                    f"{path}: state {group} has a gap of {skew:.2f} s at {at:.2f} s (max_skew {settings.max_skew:g} s)"
                )
        state[group] = stream.rows(nearest)
    say = report or (lambda kind, text, _: notes.append(f"{path}: {kind} camera: {text}"))
    images = {}
    for camera in robot.cameras:
        own = streams[camera].shifted_ns
        due = [(time - own, stamp - own) for time, stamp in zip(times, pictures[camera], strict=True)]
        read = _images(path, robot, camera, due, settings, notes)
        images[camera] = watched(read, state, robot, camera, settings.fps, say)
    actions = {group: streams[f"action {group}"] for group in robot.commanded}
    action = {group: stream.rows(stream.last(times)) for group, stream in actions.items()}
    declared = {name for name, group in robot.groups.items() if group.messages.unit is not None}
    check_units(robot, state, action, str(path), "`messages` of its group in the robot file (--robot)", declared)
    notes += [f"{path}: {odd}" for odd in oddities(robot, state, action)]
    return Episode(settings.task, images, state, action, _taken_over(takeover, times))


def _taken_over(takeover: Stream, times: Sequence[int]) -> NDArray[np.bool_]:
    """Which rows, [T], a person commanded: those whose newest status of the bridge says so."""
    if not takeover.stamps:
        return np.zeros(len(times), bool)
    said = takeover.rows(takeover.last(times))[:, 0] > 0
    return said & (np.array(times) >= takeover.stamps[0])


def _note_ends(path: Path, streams: Mapping[str, Stream], settings: ConvertSettings, notes: list[str]) -> None:
    """Note the stream that begins last, and that which ends first, where others have much more."""
    late, early = max(streams, key=lambda n: streams[n].stamps[0]), min(streams, key=lambda n: streams[n].stamps[-1])
    waited = (streams[late].stamps[0] - min(stream.stamps[0] for stream in streams.values())) / _NS
    left = (max(stream.stamps[-1] for stream in streams.values()) - streams[early].stamps[-1]) / _NS
    if waited > settings.oldest:
        notes.append(f"{path}: {late} begins {waited:.2f} s after the first stream: the episode begins there")
    if left > settings.oldest:
        notes.append(f"{path}: {early} ends {left:.2f} s before the last stream: the episode ends there")


def _without_gaps(
    path: Path,
    robot: RobotConfig,
    streams: Mapping[str, Stream],
    times: Sequence[int],
    settings: ConvertSettings,
    notes: list[str],
) -> tuple[list[int], dict[str, list[int]]]:
    """The longest part of the rows whose pictures are all new enough: times, and the pictures' stamps by camera."""
    margin = round(_JITTER * _NS / settings.fps)
    pictures = {}
    for camera in robot.cameras:
        stream = streams[camera]
        pictures[camera] = [stream.stamps[index] for index in stream.last([time + margin for time in times])]
    ages = {camera: (np.array(times) - np.array(stamps)) / _NS for camera, stamps in pictures.items()}
    old = np.logical_or.reduce([age > settings.oldest for age in ages.values()])
    if not old.any():
        return list(times), pictures
    edges = np.flatnonzero(np.diff(np.concatenate([[True], old, [True]]).astype(np.int8)))
    parts = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    first, end = max(parts, key=lambda part: part[1] - part[0], default=(0, 0))
    camera = max(ages, key=lambda name: float(ages[name].max()))
    row = int(ages[camera].argmax())
    gap = f"{path}: {camera} has a gap of {ages[camera][row]:.2f} s before {(times[row] - times[0]) / _NS:.2f} s"
    if end - first < _SHORTEST:
        raise ConfigError(f"{gap}, and no part is without one (longest {settings.oldest:g} s, four times --max-skew)")
    notes.append(f"{gap}: the episode is the longest part without one, {end - first} of {len(times)} frames")
    return list(times[first:end]), {camera: stamps[first:end] for camera, stamps in pictures.items()}


def _shortest(streams: Mapping[str, Stream]) -> str:
    """What the stream with the fewest messages has, and how long all streams go on together."""
    name = min(streams, key=lambda n: len(streams[n].stamps))
    begin, end = max(s.stamps[0] for s in streams.values()), min(s.stamps[-1] for s in streams.values())
    count, repeated = len(streams[name].stamps), streams[name].repeated
    more = f" ({repeated} more repeat a stamp)" if repeated else ""
    return f"of {name} there are {count}{more}, all streams overlap by {max(0, end - begin) / _NS:.2f} s"


def _images(
    path: Path,
    robot: RobotConfig,
    camera: str,
    due: Sequence[tuple[int, int]],
    settings: ConvertSettings,
    notes: list[str],
) -> Iterator[Pixels]:
    """The camera's images, one for each time and stamp, ascending; one that is asked for twice is decoded once.

    Where one does not decode, that before it is taken, as long as it is not too old.
    """
    waiting = deque(due)
    pixels: Pixels | None = None
    shown, damaged, why = 0, 0, ""
    with closing(open_recording(path)) as reader:
        wanted = [c for c in reader.connections if c.topic == f"/{robot.cameras[camera].topic}"]
        for connection, _, data in reader.messages(wanted):
            message = usable(reader, connection, data)
            if not waiting or message is None or stamp_ns(message) != waiting[0][1] or is_cut_off(bytes(message.data)):
                continue
            stamp = waiting[0][1]
            try:
                whole = decode_image(bytes(message.data), message.format)
                fitted = _fitted(whole, settings.height, pixels)
            except ImageError as error:
                damaged, why = damaged + 1, str(error)
                if pixels is None:
                    raise ConfigError(f"{path}: image of {camera}: {error}") from None
            else:
                pixels, shown = fitted, stamp
                if whole.shape[0] % 2 or whole.shape[1] % 2:
                    _note_once(notes, _about_size(path, camera, whole, pixels))
            while waiting and waiting[0][1] == stamp:
                if waiting[0][0] - shown > settings.oldest * _NS:
                    raise ConfigError(f"{path}: {camera} has no usable image for {settings.oldest:g} s: {why}")
                waiting.popleft()
                yield pixels
    if damaged:
        check_lost(path, damaged, len({stamp for _, stamp in due}), f"images of {camera}", notes)


def _note_once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _about_size(path: Path, camera: str, whole: Pixels, pixels: Pixels) -> str:
    return f"{path}: images of {camera} are {_size(whole)}: the codec wants even numbers, they are {_size(pixels)} now"


def _size(pixels: Pixels) -> str:
    height, width = pixels.shape[:2]
    return f"{width}x{height}"


def _fitted(image: Pixels, height: int, before: Pixels | None) -> Pixels:
    """Scaled to a height, if one is given, and with an even number of rows and columns.

    Raises:
        ImageError: that gives another size than `before`.
    """
    fitted = _even(image, height)
    if before is not None and fitted.shape != before.shape:
        raise ImageError(f"{_size(fitted)} pixels, those before {_size(before)} (convert --height scales)")
    return fitted


def _even(image: Pixels, height: int) -> Pixels:
    if height and image.shape[0] != height:
        width = max(2, 2 * round(image.shape[1] * height / image.shape[0] / 2))
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = (side % 2 for side in image.shape[:2])
    if rows or columns:
        return np.asarray(cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_REPLICATE), np.uint8)
    return image
