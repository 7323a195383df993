"""Read a YAML file into a pydantic model, with errors that name the file, the key and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A file or parameter given by the user is wrong; the text says where and how to fix it."""


class StrictModel(BaseModel):
    """Base of all configuration models: unknown keys, NaN and infinity are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=BaseModel)


def load_yaml(path: Path, model: type[ModelT]) -> ModelT:
    """Return `model` filled from the YAML file at `path`.

    Raises:
        ConfigError: missing file, YAML syntax, or one line for each key that does not fit the model.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
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
            got = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r}"
            lines.append(f"{source}: {key + ': ' if key else ''}{item['msg'].removeprefix('Value error, ')}{got}")
        raise ConfigError("\n".join(lines)) from None
