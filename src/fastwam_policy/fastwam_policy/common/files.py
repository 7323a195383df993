"""Atomic writes, folders that one command at a time writes into, and files that are not what they should be."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastwam_policy.common.failure import RunError
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BLOCK = 2**20  # bytes read at once
_POINTER = b"version https://git-lfs.github.com/spec/"
_FULL = 2**24  # bytes: with less free space than this, an error while writing is reported as a full disk


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: after a power cut, too, it is complete or not there."""
    if path.exists() and not path.is_file():  # a device or a pipe, which must not be replaced
        path.write_text(text, encoding="utf-8")
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:  # such as a full disk: what is left of it would be in the way of the next try
        unfinished.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """As :func:`write_text`."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def sha256(*paths: Path) -> str:
    """Hash of the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def settle(path: Path) -> None:
    """Return once all of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def settled_checksum(path: Path) -> str:
    """Length and CRC-32 of a file, once all of it is on the disk."""
    settle(path)
    length = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            length, checksum = length + len(block), zlib.crc32(block, checksum)
    return f"{length} bytes, {checksum:08x}"


def refuse_pointer(path: Path) -> None:
    """ConfigError where git left a pointer in the place of a large file."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError:
        return  # whoever reads it says why
    if head == _POINTER:
        raise ConfigError(f"{path}: is a git-lfs pointer, not the file itself; run git lfs pull")


def require_space(folder: Path, size: float, what: str) -> None:
    """RunError where the disk of a folder, which may not be there yet, has less than about `size` bytes free."""
    existing = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), Path("/"))
    if (free := shutil.disk_usage(existing).free) < size:
        raise RunError(
            f"{folder}: {what} need about {size / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free: make room, or "
            "name another place"
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created if needed; the lock ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(
            f"{folder}: another command writes into it: wait for its end, or name another folder"
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Raise OSError with ENOSPC where the disk is full: the errors of torch, safetensors and numpy do not say so."""
    try:
        yield
    except Exception as error:
        if shutil.disk_usage(folder).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise
