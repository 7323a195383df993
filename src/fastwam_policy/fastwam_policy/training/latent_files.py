"""Where latents are kept, and what they were made of: they are used for exactly those pictures and no others.

Beside each file of latents lies a note of size, time and hash of the videos and of the rows' times. The hash is
computed again only where the file system says that a video was touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastwam_policy.common.files import sha256, write_json
from fastwam_policy.data.lerobot_reader import Reader, RecordedEpisode
from fastwam_policy.data.streamed import present, touched

_TAIL = 2**20  # bytes


def latents_file(reader: Reader, episode: RecordedEpisode, name: str) -> Path:
    """Where the latents of an episode are; `name` stands for all that they depend on besides its pictures."""
    return reader.folder / "latents" / name / f"episode_{episode.index:06d}.npy"


def are_current(latents: Path, reader: Reader, episode: RecordedEpisode) -> bool:
    """Whether the latents are there and were made of the pictures that the dataset has now."""
    try:
        noted = json.loads(_note(latents).read_text(encoding="utf-8"))
        if (
            not latents.exists()
            or noted["rows"] != _rows(reader, episode)
            or noted["videos"].keys() != episode.videos.keys()
            or noted.get("latents", tail := _tail(latents)) != tail
        ):
            return False
        return all(_is(noted["videos"][camera], path) for camera, (path, _) in episode.videos.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or not one of ours
        return False


def forget_contents(latents: Path) -> None:
    """Before latents are written."""
    _note(latents).unlink(missing_ok=True)


def note_contents(latents: Path, reader: Reader, episode: RecordedEpisode) -> None:
    """After latents were written."""
    videos = {camera: touched(path) | {"sha256": _hash(path)} for camera, (path, _) in episode.videos.items()}
    write_json(_note(latents), {"rows": _rows(reader, episode), "videos": videos, "latents": _tail(latents)})


def _tail(latents: Path) -> str:
    """Length and CRC-32 of the end: what a power cut leaves is cut off, or zeros. To read all of it would take long."""
    with latents.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _TAIL))
        return f"{length} bytes, {zlib.crc32(file.read()):08x}"


def _note(latents: Path) -> Path:
    return latents.with_suffix(".json")


def _rows(reader: Reader, episode: RecordedEpisode) -> str:
    begins = [begin for _, begin in episode.videos.values()]
    return hashlib.sha256(reader.times(episode).tobytes() + repr(begins).encode()).hexdigest()


def _is(noted: dict[str, Any], path: Path) -> bool:
    now = touched(path)
    if any(noted[name] != now[name] for name in ("size", "written")):
        return False
    return noted["touched"] == now["touched"] or noted["sha256"] == _hash(path)


def _hash(path: Path) -> str:
    return _hash_of(present(path), *touched(path).values())


@lru_cache
def _hash_of(path: Path, *_touched: int) -> str:
    """Several episodes may lie in one file."""
    return sha256(path)
