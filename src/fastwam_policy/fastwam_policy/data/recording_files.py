"""The files of a rosbag2 recording, what its metadata.yaml says of them, and what tells it from another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from rosbags.rosbag2.storage_mcap import zstd

from fastwam_policy.common.files import require_space, sha256
from fastwam_policy.data.sqlite_file import left_by_a_kill
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, read_text, read_yaml

_UNPACKED: Final = 100  # times its size that a compressed file may have unpacked: joints have a tenth of it
_BLOCK: Final = 2**20  # bytes


def recording_files(path: Path) -> list[Path]:
    """The files that hold a recording's messages, in order.

    Raises:
        ConfigError: a folder that is none of a recording.
    """
    if path.is_file():
        return [path]
    if (path / "metadata.yaml").exists():
        names = read_metadata(path).get("relative_file_paths")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path / 'metadata.yaml'}: relative_file_paths must name the recording's files")
        files = [path / PurePath(name).name for name in names]
        if missing := [file.name for file in files if not file.is_file()]:
            raise ConfigError(f"{path}: {missing[0]} is missing, which metadata.yaml names")
        return files
    files = sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    if len(files) != 1:
        hint = f"; try the file {files[0]}" if files else ""
        if (path / "meta" / "info.json").exists():
            hint = ": it is a LeRobot dataset"
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


def read_metadata(folder: Path) -> dict[str, Any]:
    """What a recording's metadata.yaml says; ConfigError where it is none."""
    path = folder / "metadata.yaml"
    data = read_yaml(read_text(path), str(path), aliases=False)
    about = data.get("rosbag2_bagfile_information") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise ConfigError(f"{path}: not that of a rosbag2 recording: rosbag2_bagfile_information is missing")
    return about


def qualities_of_service(about: dict[str, Any]) -> dict[str, str]:
    """Qualities of service by topic; empty where metadata.yaml says them in no way that is known."""
    found = {}
    for entry in about.get("topics_with_message_count") or []:
        topic = entry.get("topic_metadata") if isinstance(entry, dict) else None
        if isinstance(topic, dict):
            found[str(topic.get("name"))] = str(topic.get("offered_qos_profiles") or "")
    return found


def is_latched(qos: str) -> bool:
    """Whether offered_qos_profiles has a durability of transient local, in any of its three notations."""
    words = qos.replace("'", "").replace('"', "").split("durability:")[1:]
    return any(word.split() and word.split()[0].rstrip(",}]") in ("1", "transient_local") for word in words)


def inflated_file(path: Path, folder: Path) -> Path:
    """Unpack a compressed file into `folder`.

    Raises:
        ConfigError: it unpacks to more than a recording does. RunError: the disk is too small.
    """
    target, packed_size, size = folder / path.stem, path.stat().st_size, 0
    require_space(folder, 2 * packed_size, f"the content of {path}")
    with path.open("rb") as packed, zstd.open(packed, "rb") as source, target.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
            size += len(block)
            if size > _UNPACKED * packed_size + _BLOCK:
                raise ConfigError(f"{path}: unpacks to more than {_UNPACKED} times its size: not a recording")
    return target
