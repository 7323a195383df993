"""LeRobot datasets at an address, of which this disk holds no more videos than there is room for.

An address is any that fsspec opens: s3://, gs://, hf://datasets/, file://. Its dataset has a folder in the user's cache
with all of meta/ and data/. A video is fetched when it is read, and those that were not read for longest make room.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import fsspec

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import naming_a_full_disk, write_json
from fastwam_policy.data.bounded import inside
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

LIMIT: Final = "FASTWAM_VIDEO_CACHE_GB"  # in the environment: of the videos of each dataset
_USUAL_LIMIT: Final = "20"
_SOURCE: Final = "source.json"  # in a dataset's folder: its address, and what lies there
_KEPT, _STREAMED = ("meta/", "data/"), "videos/"
_IDENTITY: Final = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "mtime", "created")


def is_address(place: str | Path) -> bool:
    """Whether a dataset is not in a folder of this machine."""
    return "://" in str(place)


def local_folder(place: str | Path) -> Path:
    """The folder of a dataset: itself, or of an address that in the cache, where what has changed is fetched again.

    Raises:
        ConfigError: the address cannot be opened, or is empty.
    """
    if not is_address(place):
        return Path(place)
    address = str(place).rstrip("/")
    folder = _cache() / f"{address.rpartition('/')[2]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    with _naming(address):
        system, root = fsspec.url_to_fs(address)
        system.invalidate_cache()
        listed = {name[len(root) :].lstrip("/"): about for name, about in system.find(root, detail=True).items()}
    files = {name: _stamp(about) for name, about in listed.items() if name.startswith((*_KEPT, _STREAMED))}
    if not files:
        raise ConfigError(f"{address}: not a LeRobot dataset: there is no meta/, data/ or videos/")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        before = _source(folder)["files"] if (folder / _SOURCE).exists() else {}
        for name in before.keys() - {name for name in files if files[name] == before.get(name)}:
            for path in (folder / name, times_file(folder / name)):
                path.unlink(missing_ok=True)
        write_json(folder / _SOURCE, {"address": address, "files": files})
        for name in files:
            path = inside(folder, name, address)
            if name.startswith(_KEPT) and not path.exists():
                _fetch(address, name, path)
    return folder


def present(path: Path) -> Path:
    """The same path, of which the file is there now: one of a dataset at an address may take the place of others.

    Raises:
        ConfigError: it cannot be fetched.
        RunError: it is larger than all videos that are kept may be.
    """
    if (folder := _dataset_of(path)) is None or (name := path.relative_to(folder).as_posix()) not in _files(folder):
        return path
    with _alone(folder):
        if not path.exists():
            _make_room(folder, name)
            _fetch(_source(folder)["address"], name, path)
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    return path


def touched(path: Path) -> dict[str, int]:
    """Size and times of a file, by which a change of it shows; at its address, if it is of there.

    Raises:
        OSError: there is none.
    """
    folder = _dataset_of(path)
    if folder is not None and (stamp := _files(folder).get(path.relative_to(folder).as_posix())):
        return dict(stamp)
    about = path.stat()
    return {"size": about.st_size, "written": about.st_mtime_ns, "touched": about.st_ctime_ns}


def is_streamed(path: Path) -> bool:
    """Whether a file is of a dataset at an address, and may not be there."""
    return _dataset_of(path) is not None


def times_file(path: Path) -> Path:
    """Where the times of a video's frames are kept, so that they can be known without it."""
    return path.with_name(f"{path.name}.times.npz")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastwam" / "datasets"


def _dataset_of(path: Path) -> Path | None:
    cache = _cache()
    return cache / path.relative_to(cache).parts[0] if path.is_relative_to(cache) and path != cache else None


def _source(folder: Path) -> Mapping[str, Any]:
    path = folder / _SOURCE
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(8)
def _read(path: Path, _written: int) -> Mapping[str, Any]:
    source: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return source


def _files(folder: Path) -> Mapping[str, Mapping[str, int]]:
    files: Mapping[str, Mapping[str, int]] = _source(folder)["files"]
    return files


def _stamp(about: Mapping[str, Any]) -> dict[str, int]:
    """As :func:`touched`, of what a file system says of a file."""
    said = repr([(name, str(about[name])) for name in _IDENTITY if name in about])
    number = int(hashlib.sha256(said.encode()).hexdigest()[:12], 16)
    return {"size": int(about["size"]), "written": number, "touched": number}


def _make_room(folder: Path, name: str) -> None:
    """Delete what was not read for longest, until there is room for one more file."""
    files, limit = _files(folder), round(1e9 * float(os.environ.get(LIMIT) or _USUAL_LIMIT))
    if (size := files[name]["size"]) > limit:
        raise RunError(f"{name} has {size / 1e9:.2f} GB, more than may be kept: set {LIMIT}, which is {limit / 1e9:g}")
    here = [path for other in files if other.startswith(_STREAMED) and (path := folder / other).exists()]
    here.sort(key=lambda path: path.stat().st_atime_ns)
    used = sum(path.stat().st_size for path in here)
    while used + size > limit:
        used -= here[0].stat().st_size
        here.pop(0).unlink()


def _fetch(address: str, name: str, path: Path) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming_a_full_disk(path.parent), _naming(f"{address}/{name}"):
            system, root = fsspec.url_to_fs(address)
            system.get_file(f"{root.rstrip('/')}/{name}", str(unfinished))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _naming(address: str) -> Iterator[None]:
    """ConfigError in the place of what a file system raises: each has errors of its own."""
    try:
        yield
    except Exception as error:
        raise ConfigError(f"{address}: cannot be read: {error}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time changes a dataset's folder; the others wait."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
