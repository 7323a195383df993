"""Open rosbag2 recordings, unfinished and damaged ones too, with errors that say what is wrong.

Only the topics that somebody asks for are looked at: a recording of everything holds types that nobody knows here.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePath
from typing import Any, Final

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.rosbag2.storage_mcap import zstd
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fastwam_policy.common.files import require_space, sha256
from fastwam_policy.data.bounded import refuse_pointer
from fastwam_policy.data.mcap_file import MAX_CHUNK, Channel, McapError, McapFile
from fastwam_policy.data.sqlite_file import SqliteFile, left_by_a_kill
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import MAX_LENGTH, ConfigError, read_text, read_yaml

JOINT_STATE, COMPRESSED_IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage"
_FOREVER: Final = 2**63 - 1
_IDL_BEGIN: Final = "=" * 80 + "\n"
_UNPACKED: Final = 100  # times its size that a compressed file may have unpacked: joints have a tenth of it
_BLOCK: Final = 2**20  # bytes


@dataclass(frozen=True)
class Connection:
    """A topic of a recording.

    Attributes:
        topic, msgtype: names.
        msgcount: messages, as far as known.
        encoding, definition: of its type, as recorded; may be empty.
        latched: whether its publisher kept messages for subscribers that came later.
    """

    topic: str
    msgtype: str
    msgcount: int = 0
    encoding: str = ""
    definition: str = ""
    latched: bool = False


class Recording:
    """An open recording: one file, or several that follow each other. Made by :func:`open_recording`.

    Attributes:
        connections: its topics.
        start_time, end_time: log time of the first message, and after the last one, ns.
        finished: whether its recorder closed it.
    """

    def __init__(self, folder: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self._unpacked = folder
        self._files: list[McapFile | SqliteFile] = []
        self.packed_messages = False
        self.connections: list[Connection] = []
        self.start_time = self.end_time = 0
        self.finished = True
        self._damaged = 0
        self._stores: dict[str, Typestore] = {}

    def add(self, path: Path) -> None:
        """Open a file that continues this recording."""
        file = SqliteFile(path) if path.suffix == ".db3" else McapFile(path)
        self._files.append(file)
        self.finished &= file.finished

    def gather(self, qualities: dict[str, str]) -> None:
        """List what the files hold; `qualities` of service by topic, for what the files do not say."""
        found: dict[tuple[str, str], list[tuple[Channel, int]]] = {}
        for file in self._files:
            for number, channel in file.channels.items():
                found.setdefault((channel.topic, channel.kind), []).append((channel, file.counts[number]))
        for (topic, kind), channels in found.items():
            known = next((channel for channel, _ in channels if channel.definition), channels[0][0])
            qos = next((channel.qos for channel, _ in channels if channel.qos), qualities.get(topic, ""))
            count = sum(count for _, count in channels)
            self.connections.append(Connection(topic, kind, count, known.encoding, known.definition, _is_latched(qos)))
        times = [(file.start, file.end) for file in self._files if file.end]
        if times:
            self.start_time, self.end_time = min(begin for begin, _ in times), max(end for _, end in times) + 1

    @property
    def message_count(self) -> int:
        """Of all topics, as far as known."""
        return sum(connection.msgcount for connection in self.connections)

    @property
    def lost(self) -> int:
        """Messages that were wanted so far and could not be read, since bytes of the file are damaged."""
        return self._damaged + sum(file.lost for file in self._files)

    def messages(
        self, connections: Collection[Connection] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Topic, log time and bytes of each message of `connections` (None: all) from `start` to before `stop`."""
        wanted = {(c.topic, c.msgtype): c for c in (self.connections if connections is None else connections)}
        for file in self._files:
            chosen = {
                number: wanted[channel.topic, channel.kind]
                for number, channel in file.channels.items()
                if (channel.topic, channel.kind) in wanted
            }
            if not chosen:
                continue
            for number, log, data in file.messages(chosen, start or 0, _FOREVER if stop is None else stop):
                try:
                    yield chosen[number], log, _inflated(data) if self.packed_messages else data
                except zstd.ZstdError:
                    self._damaged += 1

    def deserialize(self, data: bytes, msgtype: str) -> Any:
        """The message in `data`; raises whatever rosbags and NumPy raise where it is none of its type."""
        if msgtype not in self._stores:
            about = next(c for c in self.connections if c.msgtype == msgtype)
            self._stores[msgtype] = _store(msgtype, about.encoding, about.definition)
        return self._stores[msgtype].deserialize_cdr(data, msgtype)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()


def typestore(kinds: Collection[str] = ()) -> Typestore:
    """ROS 2's own message types, ours, and those of the installed packages that `kinds` are in."""
    store = get_typestore(Stores.ROS2_JAZZY)
    known = {kind.split("/")[0] for kind in store.types}
    types = {}
    for package in {"fastwam_msgs", *(kind.split("/")[0] for kind in kinds)} - known:
        for path in sorted((Path(get_package_share_directory(package)) / "msg").glob("*.msg")):
            types.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"{package}/msg/{path.stem}"))
    store.register(types)
    return store


@lru_cache
def _store(kind: str, encoding: str, definition: str) -> Typestore:
    """A store that knows `kind`: as the recording defines it, or else as it is installed here."""
    if definition and len(definition) <= MAX_LENGTH:
        store = get_typestore(Stores.EMPTY)
        if encoding == "ros2msg":
            store.register(get_types_from_msg(definition, kind))
        else:
            parts = definition.split(_IDL_BEGIN)[1:] if definition.startswith(_IDL_BEGIN) else ["\n" + definition]
            for part in parts:
                store.register(get_types_from_idl(part.split("\n", 1)[1]))
        return store
    store = get_typestore(Stores.ROS2_JAZZY)
    try:
        return store if kind in store.types else typestore([kind])
    except PackageNotFoundError:
        return store


def open_recording(path: Path) -> Recording:
    """Open a rosbag2 folder, or a .mcap or .db3 file; the caller closes it.

    One that was never closed, because the recorder was killed or is still running, is read up to its cut.

    Raises:
        ConfigError: missing, not a recording, or without any complete message.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such recording")
    if path.is_file() and path.suffix not in (".mcap", ".db3"):
        raise ConfigError(f"{path}: not a recording: expected a rosbag2 folder, or a .mcap or .db3 file")
    recording = Recording()
    try:
        files, qualities = recording_files(path), dict[str, str]()
        if path.is_dir() and (path / "metadata.yaml").exists():
            about = _metadata(path)
            qualities = _qualities(about)
            mode = str(about.get("compression_mode") or "").lower()
            if mode == "file":
                folder = tempfile.TemporaryDirectory()
                recording = Recording(folder)
                files = [_inflated_file(file, Path(folder.name)) for file in files]
            recording.packed_messages = mode == "message"
        for file in files:
            refuse_pointer(file)
            recording.add(file)
        recording.gather(qualities)
    except (OSError, McapError, sqlite3.Error, zstd.ZstdError) as error:
        recording.close()
        raise ConfigError(
            f"{path}: cannot be read, it is truncated or not a rosbag2 recording ({type(error).__name__}: {error})"
        ) from None
    except BaseException:
        recording.close()
        raise
    if not recording.finished:
        _warn_unfinished(path)
    return recording


def recording_files(path: Path) -> list[Path]:
    """The files that hold a recording's messages, in order.

    Raises:
        ConfigError: a folder that is none of a recording.
    """
    if path.is_file():
        return [path]
    if (path / "metadata.yaml").exists():
        names = _metadata(path).get("relative_file_paths")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path / 'metadata.yaml'}: relative_file_paths must name the recording's files")
        files = [path / PurePath(name).name for name in names]
        if missing := [file.name for file in files if not file.is_file()]:
            raise ConfigError(f"{path}: {missing[0]} is missing, which metadata.yaml names")
        return files
    files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    if len(files) != 1:
        hint = f"; try the file {files[0]}" if files else ""
        raise ConfigError(f"{path}: not a rosbag2 folder: metadata.yaml is missing{hint}")
    return files


@dataclass(frozen=True)
class Content:
    """What tells one recording from another, wherever it lies.

    Attributes:
        size: bytes of its files.
        written: ns, when the newest of them was.
        sha256: of what is in them; empty where it was not asked for.
    """

    size: int
    written: int
    sha256: str = ""


def content_of(path: Path, *, hashed: bool) -> Content:
    """ConfigError where there is no recording."""
    if not path.exists():
        raise ConfigError(f"{path}: no such recording")
    files = [part for file in recording_files(path) for part in (file, *left_by_a_kill(file))]
    about = [file.stat() for file in files]
    size, written = sum(a.st_size for a in about), max(a.st_mtime_ns for a in about)
    return Content(size, written, sha256(*files) if hashed else "")


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / "metadata.yaml"
    data = read_yaml(read_text(path), str(path), aliases=False)
    about = data.get("rosbag2_bagfile_information") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise ConfigError(f"{path}: not that of a rosbag2 recording: rosbag2_bagfile_information is missing")
    return about


def _qualities(about: dict[str, Any]) -> dict[str, str]:
    """Qualities of service by topic; empty where metadata.yaml says them in no way that is known."""
    found = {}
    for entry in about.get("topics_with_message_count") or []:
        topic = entry.get("topic_metadata") if isinstance(entry, dict) else None
        if isinstance(topic, dict):
            found[str(topic.get("name"))] = str(topic.get("offered_qos_profiles") or "")
    return found


def _is_latched(qos: str) -> bool:
    """Whether offered_qos_profiles has a durability of transient local, in any of its three notations."""
    words = qos.replace("'", "").replace('"', "").split("durability:")[1:]
    return any(word.split() and word.split()[0].rstrip(",}]") in ("1", "transient_local") for word in words)


def _inflated(data: bytes) -> bytes:
    raw: bytes = zstd.ZstdDecompressor().decompress(data, MAX_CHUNK)
    return raw


def _inflated_file(path: Path, folder: Path) -> Path:
    target, packed_size, size = folder / path.stem, path.stat().st_size, 0
    require_space(folder, 2 * packed_size, f"the content of {path}")
    with path.open("rb") as packed, zstd.open(packed, "rb") as source, target.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
            size += len(block)
            if size > _UNPACKED * packed_size + _BLOCK:
                raise ConfigError(f"{path}: unpacks to more than {_UNPACKED} times its size: not a recording")
    return target


@cache  # a report opens its recording several times
def _warn_unfinished(path: Path) -> None:
    logging.getLogger(__name__).warning("%s was never closed by its recorder: read up to the cut", path)


def check_topics(
    reader: Recording,
    robot: RobotConfig,
    path: Path,
    *,
    cameras: Collection[str] | None = None,
    allow_missing: bool = False,
) -> list[str]:
    """Return the cameras' and joints' topics that the recording lacks or has no messages of.

    Raises:
        ConfigError: joints, or the `cameras` that are needed (None: all), are missing and `allow_missing` is false, or
            a topic has another type; all are listed.
    """
    have = {connection.topic: connection for connection in reader.connections if connection.msgcount}
    images = {f"/{camera.topic}": str(camera.type) for camera in robot.cameras.values()}
    joints = {f"/{group.feedback}": JOINT_STATE for group in robot.groups.values()}
    needed = {f"/{camera.topic}" for name, camera in robot.cameras.items() if cameras is None or name in cameras}
    known = images | joints | {f"/{group.target}": JOINT_STATE for group in robot.commanded.values()}
    wrong = [
        f"{topic} has type {have[topic].msgtype}, expected {kind}"
        for topic, kind in known.items()
        if topic in have and have[topic].msgtype != kind
    ]
    missing = [topic for topic in images | joints if topic not in have]
    if not allow_missing:
        wrong += [f"{topic} is missing" for topic in missing if topic in needed or topic in joints]
    if wrong:
        raise ConfigError(
            f"{path}: topics do not fit the robot's:\n  "
            + "\n  ".join(wrong)
            + f"\nThe recording has: {', '.join(sorted(have)) or 'no messages at all'}"
        )
    return missing


def usable(reader: Recording, connection: Connection, data: bytes) -> Any:
    """The message in `data`, None where it is none of its type: a broken or foreign publisher was recorded."""
    try:
        return reader.deserialize(data, connection.msgtype)
    except Exception:  # noqa: BLE001  rosbags and NumPy fail in many ways on such bytes
        return None


def stamp_ns(message: object) -> int:
    """Header stamp of a rosbags message in ns."""
    stamp = message.header.stamp  # type: ignore[attr-defined]
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
