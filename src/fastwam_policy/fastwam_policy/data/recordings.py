"""Open rosbag2 recordings, unfinished and damaged ones too, with errors that say what is wrong.

Only the topics that somebody asks for are looked at: a recording of everything holds types that nobody knows here.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from rosbags.rosbag2.storage_mcap import zstd
from rosbags.typesys.store import Typestore

from fastwam_policy.common.files import refuse_pointer
from fastwam_policy.data.mcap_file import Channel, McapFile
from fastwam_policy.data.mcap_records import MAX_CHUNK, McapError
from fastwam_policy.data.message_types import JOINT_STATE, store_of
from fastwam_policy.data.recording_files import (
    inflated_file,
    is_latched,
    qualities_of_service,
    read_metadata,
    recording_files,
)
from fastwam_policy.data.sqlite_file import SqliteFile
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_FOREVER: Final = 2**63 - 1


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
            self.connections.append(Connection(topic, kind, count, known.encoding, known.definition, is_latched(qos)))
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
            self._stores[msgtype] = store_of(msgtype, about.encoding, about.definition)
        return self._stores[msgtype].deserialize_cdr(data, msgtype)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()


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
            about = read_metadata(path)
            qualities = qualities_of_service(about)
            mode = str(about.get("compression_mode") or "").lower()
            if mode == "file":
                folder = tempfile.TemporaryDirectory()
                recording = Recording(folder)
                files = [inflated_file(file, Path(folder.name)) for file in files]
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


def _inflated(data: bytes) -> bytes:
    raw: bytes = zstd.ZstdDecompressor().decompress(data, MAX_CHUNK)
    return raw


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
        f"{connection.topic} has type {connection.msgtype}, expected {known[connection.topic]}"
        for connection in reader.connections
        if connection.msgcount and known.get(connection.topic, connection.msgtype) != connection.msgtype
    ]
    missing = [topic for topic in images | joints if topic not in have]
    if not allow_missing:
        wrong += [f"{topic} is missing" for topic in missing if topic in needed or topic in joints]
    if wrong:
        has = ", ".join(sorted(have)) or "no messages at all"
        raise ConfigError(f"{path}: topics do not fit the robot's: {'; '.join(wrong)}. The recording has: {has}")
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
