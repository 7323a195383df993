"""`fastwam convert`: recordings of the robot as a LeRobot dataset, resampled to one rate."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from fastwam_policy.common.files import alone_in, require_space
from fastwam_policy.common.parallel import in_processes
from fastwam_policy.common.progress import counted
from fastwam_policy.common.settings import Uncompared
from fastwam_policy.data.known_recordings import Work, missing
from fastwam_policy.data.lerobot_layout import Version
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim
from fastwam_policy.data.picture_watch import Report, watched
from fastwam_policy.data.recordings import (
    check_topics,
    content_of,
    open_recording,
    stamp_ns,
    usable,
)
from fastwam_policy.data.streams import Stream
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError, decode_image, is_cut_off
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError
from galaxea_r1lite_bridge.robot.joint_units import check_units
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NS: Final = 1_000_000_000
_SHORTEST: Final = 2  # frames of an episode
_OLDEST: Final = 4  # times max_skew, 0.2 s by default: a picture that is older does not show what the robot saw
_JITTER: Final = 0.1  # of a period by which a picture may be stamped after its row's time
_LOST: Final = 0.01  # of a recording's messages that may be damaged
_SIZE: Final = 0.15  # of a recording's size that its episode has at least: to see early that a disk is too small


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


@dataclass
class Converted:
    """What became of recordings.

    Attributes:
        skipped: why, of those that gave no episode.
        notes: what was left out of the others, or is odd about them.
    """

    skipped: dict[Path, str] = field(default_factory=dict)
    notes: dict[Path, list[str]] = field(default_factory=dict)


def convert(
    recordings: Sequence[Path],
    folder: Path,
    settings: ConvertSettings,
    workers: int = 0,
    robot: Path | None = None,
    *,
    strict: bool = False,
) -> Converted:
    """Append each recording that is not in the dataset at `folder` yet, in order.

    A recording is known by its content: one that changed is converted again, a copy of one is not. `robot` is another
    robot file than the installed one. With `strict`, the first recording that gives no episode ends the work.

    Raises:
        ConfigError: the dataset's folder holds something else, or was begun with another rate, height, skew or
            format; another command writes into it; or no recording gave an episode.
        RunError: the disk is too small.
    """
    with alone_in(folder):
        claim(folder, "convert", settings)
        dataset = Dataset(folder, RobotConfig.load(robot), settings.fps, settings.version)
        result = Converted()
        paths = list({path.resolve(): path for path in recordings}.values())
        work, result.notes = missing(paths, dataset)
        require_space(folder, _SIZE * sum(each.size for each in work), "the episodes")
        failed: dict[Path, str] = {}
        with counted() as progress:
            task = progress.add_task("recordings", total=len(work))
            jobs = ((each, folder, settings, robot) for each in work)
            with closing(in_processes(_convert_one, jobs, 1 if len(work) == 1 else workers)) as done:
                for path, reason, notes in done:
                    progress.advance(task)
                    if reason:
                        failed[path] = reason
                        if strict:
                            break
                    elif notes:
                        result.notes.setdefault(path, []).extend(notes)
        result.skipped = {path: failed[path] for path in paths if path in failed}
        if len(result.skipped) == len(paths) or not dataset.sources():
            raise ConfigError("no recording gave an episode:\n" + "\n".join(result.skipped.values()))
        dataset.close_gaps()
        dataset.finish()
    return result


def _convert_one(
    work: Work, folder: Path, settings: ConvertSettings, robot_file: Path | None
) -> tuple[Path, str, list[str]]:
    """The recording, why it was skipped, and what is odd about it."""
    path, robot, notes = work.path, RobotConfig.load(robot_file), list[str]()
    dataset = Dataset(folder, robot, settings.fps, settings.version)
    try:
        episode = read_episode(path, robot, settings, notes)
        content = asdict(content_of(path, hashed=True))
        dataset.write(work.index, episode, str(path.resolve()), content)
    except ConfigError as error:
        return path, str(error), notes
    except OSError:  # a full disk, or a folder that cannot be written: the next recording would find the same
        raise
    except Exception as error:
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        return path, f"{path}: cannot be converted ({type(error).__name__}: {error})", notes
    if work.instead is not None:
        dataset.remove(work.instead)
    return path, "", notes


def read_episode(
    path: Path,
    robot: RobotConfig,
    settings: ConvertSettings,
    notes: list[str] | None = None,
    report: Report | None = None,
) -> Episode:
    """One recording at `fps`: for each frame the newest picture, the nearest joints, and the target in force.

    Where a camera has a gap, the longest part without one is the episode. Its images are read from the recording
    again, one after the other, when they are iterated. `notes` is added to, also then: what is left out or odd. What
    `report` is given, if there is one, is not in the notes: cameras that froze or saw nothing.

    Raises:
        ConfigError: topics are missing, nothing overlaps, joints have a gap, or too much is damaged; names stream and
            time. Iterating the images raises it where too many cannot be decoded.
    """
    notes = [] if notes is None else notes
    streams = _read_streams(path, robot, notes)
    begin = max(stream.stamps[0] for stream in streams.values())
    end = min(stream.stamps[-1] for stream in streams.values())
    count = max(0, (end - begin) * settings.fps // _NS + 1)
    times = [begin + k * _NS // settings.fps for k in range(count)]
    _note_ends(path, streams, settings, notes)
    times, pictures = _without_gaps(path, robot, streams, times, settings, notes)
    if len(times) < _SHORTEST:
        raise ConfigError(f"{path}: the streams have less than {_SHORTEST} frames in common")
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
    read = {c: _images(path, robot, c, times, pictures[c], settings, notes) for c in robot.cameras}
    images = {c: watched(each, state, robot, c, settings.fps, say) for c, each in read.items()}
    actions = {group: streams[f"action {group}"] for group in robot.commanded}
    action = {group: stream.rows(stream.last(times)) for group, stream in actions.items()}
    declared = {name for name, group in robot.groups.items() if group.messages.unit is not None}
    check_units(robot, state, action, str(path), "`messages` of its group in the robot file (--robot)", declared)
    return Episode(settings.task, images, state, action)


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


def _read_streams(path: Path, robot: RobotConfig, notes: list[str]) -> dict[str, Stream]:
    """Stamps of the cameras' usable images, and stamps and positions of `state GROUP` and `action GROUP`."""
    with closing(open_recording(path)) as reader:
        check_topics(reader, robot, path)
        cameras = {f"/{camera.topic}": name for name, camera in robot.cameras.items()}
        raw = [name for name in cameras.values() if not robot.cameras[name].type.endswith("CompressedImage")]
        if raw:
            raise ConfigError(f"cameras.{raw[0]}: only CompressedImage is converted")
        joints = {f"/{group.feedback}": (f"state {n}", robot.gates[n]) for n, group in robot.commanded.items()}
        joints |= {f"/{group.target}": (f"action {n}", robot.gates[n]) for n, group in robot.commanded.items()}
        streams = {name: Stream() for name in cameras.values()}
        streams |= {name: Stream(len(gate.names)) for name, gate in joints.values()}
        refused, why = Counter[str](), dict[str, str]()
        wanted = [connection for connection in reader.connections if connection.topic in cameras | joints]
        read = damaged = 0
        for connection, log, data in reader.messages(wanted):
            read += 1
            message = usable(reader, connection, data)
            if message is None:
                damaged += 1
            elif connection.topic in cameras:
                if is_cut_off(bytes(message.data)):  # the frame before it is taken, as in the policy node
                    damaged += 1
                else:
                    streams[cameras[connection.topic]].add(stamp_ns(message), log)
            else:
                name, gate = joints[connection.topic]
                try:
                    streams[name].add(stamp_ns(message), log, gate.positions(message.name, message.position))
                except JointsRefusedError as error:
                    refused[name] += 1
                    why.setdefault(name, str(error))
        _check_lost(path, damaged + reader.lost, read + reader.lost, "messages", notes)
    notes += [f"{path}: {count} messages of {name} are not used: {why[name]}" for name, count in refused.items()]
    empty = [f"{name} ({why[name]})" if name in why else name for name, s in streams.items() if not s.stamps]
    if empty:
        raise ConfigError(f"{path}: no usable messages of {', '.join(empty)}")
    for name, stream in streams.items():
        try:
            stream.settle()
        except ValueError as error:
            raise ConfigError(f"{path}: {name}: {error}: record it again, or cut the recording there") from None
        if stream.outliers:
            notes.append(f"{path}: {name} has {stream.outliers} stamps of another time: those messages are not used")
    return streams


def _check_lost(path: Path, lost: int, count: int, what: str, notes: list[str]) -> None:
    """Note what is damaged; ConfigError where it is too much."""
    if lost > _LOST * count:
        raise ConfigError(f"{path}: {lost} of {count} {what} are damaged, more than {_LOST:.0%}")
    if lost:
        notes.append(f"{path}: {lost} of {count} {what} are damaged: those before them were used")


def _images(
    path: Path,
    robot: RobotConfig,
    camera: str,
    times: Sequence[int],
    stamps: Sequence[int],
    settings: ConvertSettings,
    notes: list[str],
) -> Iterator[Pixels]:
    """The camera's images of these ascending stamps, one for each time; one that is asked for twice is decoded once.

    Where one does not decode, that before it is taken, as long as it is not too old.
    """
    waiting = deque(zip(times, stamps, strict=True))
    pixels: Pixels | None = None
    shown = damaged = 0
    with closing(open_recording(path)) as reader:
        wanted = [c for c in reader.connections if c.topic == f"/{robot.cameras[camera].topic}"]
        for connection, _, data in reader.messages(wanted):
            message = usable(reader, connection, data)
            if not waiting or message is None or stamp_ns(message) != waiting[0][1] or is_cut_off(bytes(message.data)):
                continue
            stamp = waiting[0][1]
            try:
                whole = decode_image(bytes(message.data))
            except ImageError as error:
                damaged += 1
                if pixels is None or waiting[0][0] - shown > settings.oldest * _NS:
                    raise ConfigError(f"{path}: image of {camera}: {error}") from None
            else:
                pixels, shown = _fitted(whole, settings.height), stamp
                if whole.shape[0] % 2 or whole.shape[1] % 2:
                    _note_once(notes, _about_size(path, camera, whole, pixels))
            while waiting and waiting[0][1] == stamp:
                if waiting[0][0] - shown > settings.oldest * _NS:
                    raise ConfigError(f"{path}: {camera} has no image that can be decoded for {settings.oldest:g} s")
                waiting.popleft()
                yield pixels
    if damaged:
        _check_lost(path, damaged, len(set(stamps)), f"images of {camera}", notes)


def _note_once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _about_size(path: Path, camera: str, whole: Pixels, pixels: Pixels) -> str:
    (height, width), (high, wide) = whole.shape[:2], pixels.shape[:2]
    return f"{path}: images of {camera} are {width}x{height}: the codec wants even numbers, they are {wide}x{high} now"


def _fitted(image: Pixels, height: int) -> Pixels:
    """Scaled to a height, if one is given, and with an even number of rows and columns."""
    if height and image.shape[0] != height:
        width = max(2, 2 * round(image.shape[1] * height / image.shape[0] / 2))
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = (side % 2 for side in image.shape[:2])
    if rows or columns:
        return np.asarray(cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_REPLICATE), np.uint8)
    return image
