"""Read files of others: JSON of a bounded size, and no way out of a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, Final

from fastwam_policy.common.files import refuse_pointer
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

MAX_JSON: Final = 2**24  # bytes of a JSON file, and of a line of JSON lines: those of LeRobot have a thousandth of it
MAX_LINES: Final = 10**6
_NUMBER_FORMAT: Final = re.compile(r"(0?\d)?d?")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with or without a byte-order mark.

    Raises:
        ConfigError: no such file, too long, or no JSON object; names the file.
    """
    with _readable(path) as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise ConfigError(f"{path}: longer than {MAX_JSON} bytes: not a file of LeRobot")
    return _object(text, str(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not blank. Only line feeds end a line: sentences may hold others.

    Raises:
        ConfigError: as :func:`read_json`; names file and line.
    """
    with _readable(path) as file:
        for number in range(1, MAX_LINES + 2):
            line = file.readline(MAX_JSON + 1)
            if not line:
                return
            if number > MAX_LINES or len(line) > MAX_JSON:
                raise ConfigError(f"{path} line {number}: too long: not a file of LeRobot")
            if line.strip():
                yield number, _object(line, f"{path} line {number}")


def _readable(path: Path) -> Any:
    refuse_pointer(path)
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _object(text: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except RecursionError:
        raise ConfigError(f"{place}: not JSON: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{place}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{place}: expected a JSON object, got {type(found).__name__}")
    return found


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
