"""JSON of others: of a bounded size, and a line that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fastwam_policy.common.files import refuse_pointer
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

MAX_JSON: Final = 2**24  # bytes of a file, or of a line: datasets and bundles need a thousandth of it
MAX_LINES: Final = 10**6


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with or without a byte-order mark.

    Raises:
        ConfigError: no such file, too long, or no JSON object; names the file.
    """
    with _readable(path) as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise ConfigError(f"{path}: longer than {MAX_JSON} bytes")
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
                raise ConfigError(f"{path} line {number}: too long")
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
