"""What the files of others may say: whole numbers, patterns of paths, and no way out of a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Final

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NUMBER_FORMAT: Final = re.compile(r"(0?\d)?d?")


def whole(value: object, place: str, *, below: int = 10**9) -> int:
    """A number of a file as a whole one, 0 or more; ConfigError, which begins with `place`, where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below:
        return value
    raise ConfigError(f"{place}: must be a whole number from 0 on, got {str(value)[:100]!r}")


def check_pattern(pattern: object, fields: Mapping[str, type], place: str) -> str:
    """`pattern` itself, where it is a relative path whose {fields} are known; ConfigError where it is none.

    A field of type int may have a width, as in {episode_index:06d}: nothing else of Python's format language is taken.
    """
    shown = f"{place}: {str(pattern)[:200]!r}"
    if not isinstance(pattern, str):
        raise ConfigError(f"{shown} is not a path")
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise ConfigError(f"{shown} is not a pattern: {error}") from None
    for _, name, width, conversion in parts:
        if name is None:
            continue
        formatted = conversion or (width and not (fields.get(name) is int and _NUMBER_FORMAT.fullmatch(width)))
        if name not in fields or formatted:
            raise ConfigError(f"{shown} has a field {name!r} that is not known; known are {', '.join(fields)}")
    inside(Path(), pattern, place)
    return pattern


def inside(folder: Path, name: str, place: str) -> Path:
    """`folder / name`; ConfigError where the name leads out of the folder. Links may: hub caches are made of them."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name) or not path.parts:
        raise ConfigError(f"{place}: {name[:200]!r} leads out of the dataset's folder: write a path inside it")
    return folder / name
