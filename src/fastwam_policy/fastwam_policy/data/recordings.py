"""Open rosbag2 recordings through rosbags, unfinished ones too, with errors that say what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fastwam_policy.data.unfinished_mcap import UnfinishedMcap, is_finished
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

JOINT_STATE, COMPRESSED_IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/CompressedImage"


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


def open_recording(path: Path) -> AnyReader:
    """Open a rosbag2 folder, or a .mcap or .db3 file; already open; the caller closes it.

    An mcap that was never closed, because the recorder was killed or is still running, is read up to its cut.

    Raises:
        ConfigError: missing, not a recording, or without any complete message.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such recording")
    if path.is_file() and path.suffix not in (".mcap", ".db3"):
        raise ConfigError(f"{path}: not a recording: expected a rosbag2 folder, or a .mcap or .db3 file")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
        if len(files) != 1:
            hint = f"; try the file {files[0]}" if files else ""
            raise ConfigError(f"{path}: not a rosbag2 folder: metadata.yaml is missing{hint}")
        path = files[0]
    reader = AnyReader([path], default_typestore=typestore())
    try:
        if path.suffix == ".mcap" and path.is_file() and not is_finished(path):
            _warn_unfinished(path)
            (rosbag2,) = reader.readers
            assert isinstance(rosbag2, Reader)
            rosbag2.storage = UnfinishedMcap(path)
        reader.open()
    except Exception as error:  # noqa: BLE001  a damaged file fails anywhere in the storage plugin
        raise ConfigError(
            f"{path}: cannot be read, it is truncated or not a rosbag2 recording ({type(error).__name__}: {error}). "
            "Of a truncated .mcap, name the file itself instead of its folder: it is read up to the cut"
        ) from None
    return reader


@cache  # a report opens its recording several times
def _warn_unfinished(path: Path) -> None:
    logging.getLogger(__name__).warning("%s was never closed by its recorder: read up to the cut", path)


def check_topics(
    reader: AnyReader,
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


def usable(reader: AnyReader, connection: Connection, data: bytes) -> Any:
    """The message in `data`, None where it is none of its type: a broken or foreign publisher was recorded."""
    try:
        return reader.deserialize(data, connection.msgtype)
    except Exception:  # noqa: BLE001  rosbags and NumPy fail in many ways on such bytes
        return None


def stamp_ns(message: object) -> int:
    """Header stamp of a rosbags message in ns."""
    stamp = message.header.stamp  # type: ignore[attr-defined]
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def positions(message: object, count: int) -> np.ndarray:
    """First `count` positions of a rosbags JointState."""
    return np.asarray(message.position, np.float64)[:count]  # type: ignore[attr-defined]
