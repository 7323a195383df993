"""Read a YAML file into a pydantic model, with errors that name the file, the key and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

MAX_LENGTH = 2**20  # letters of a text or file: none of ours has a tenth of it
_SHOWN = 200  # letters of a wrong value in an error


class ConfigError(ValueError):
    """A file or parameter given by the user is wrong; the text says where and how to fix it."""


class StrictModel(BaseModel):
    """Base of all configuration models: unknown keys, NaN and infinity are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=BaseModel)


class _PlainLoader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more data than there is memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken: write the value out", mark)
        return super().compose_node(parent, index)


def read_text(path: Path) -> str:
    """The text of a file, of one that is too long the beginning; ConfigError where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_LENGTH + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None


def read_yaml(text: str, source: str, *, aliases: bool = True) -> Any:
    """The data of a YAML text; ConfigError, which begins with `source`, where it is none or too long.

    Without `aliases` they are errors as well: for a text that may come from anybody.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{source}: longer than {MAX_LENGTH} letters: not a file of this project")
    try:
        return yaml.load(text, yaml.SafeLoader if aliases else _PlainLoader)
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}: cannot be read as YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates and numbers that are none
        raise ConfigError(f"{source}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{source}: cannot be read as YAML: nested too deeply") from None


def load_yaml(path: Path, model: type[ModelT], *, aliases: bool = True) -> ModelT:
    """Return `model` filled from the YAML file at `path`; for `aliases` see :func:`read_yaml`.

    Raises:
        ConfigError: missing file, YAML syntax, or one line for each key that does not fit the model.
    """
    data = read_yaml(read_text(path), str(path), aliases=aliases)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, got {type(data).__name__}")
    return validate(data, model, path.name)


def validate(data: object, model: type[ModelT], source: str) -> ModelT:
    """Return `model` filled from plain data; errors begin with `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
            got = "" if item["type"] in ("missing", "value_error") else f", got {_shown(item['input'])}"
            lines.append(f"{source}: {key + ': ' if key else ''}{item['msg'].removeprefix('Value error, ')}{got}")
        raise ConfigError("\n".join(lines)) from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
