"""Compares the settings that a folder was begun with and those given now, across versions of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter

T = TypeVar("T")
_UNCOMPARED = "uncompared"
_NOTHING = "nothing"
_FORMERLY = {"level": {"towel": "objects"}, "randomization": {"towel": "objects"}}  # values that were renamed, by key
_PLAIN = TypeAdapter(Any)

Uncompared = Annotated[T, _UNCOMPARED]
"""Type of a setting that changes no result: work begun with one value may be continued with another."""


def changes(before: object, now: object, key: str = "") -> Iterator[str]:
    """One line, `key: before -> now`, for each setting that would change the results.

    A setting that the older version did not know had its default, so a new setting's default must be what was done
    without it. Of plain mappings only what was written is compared.

    Args:
        before: plain data from a file; its values may all be text.
        now: a dataclass without default factories, a pydantic model, or plain data.
        key: of what is compared; empty for the whole.
    """
    settings = _settings(now)
    if isinstance(before, Mapping) and settings is not None:
        prefix = f"{key}." if key else ""
        for name, (default, value, compared) in settings.items():
            if compared:
                yield from changes(before.get(name, default), value, prefix + name)
        for name in before:
            if name not in settings:
                yield f"{prefix}{name}: {before[name]} -> unknown to this version"
    elif isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{key}[{index}]")
    else:
        old, new = (_PLAIN.dump_python(value, mode="json") for value in (before, now))
        if isinstance(old, str):
            old = _FORMERLY.get(key.rpartition(".")[2], {}).get(old, old)
        if old != new and str(old) != str(new):
            yield f"{key}: {old} -> {new}"


def _settings(now: Any) -> dict[str, tuple[Any, Any, bool]] | None:
    """Default, value and whether it is compared, by name; None for what has no names."""
    if isinstance(now, Mapping):
        return {name: (value, value, True) for name, value in now.items()}
    if isinstance(now, BaseModel):
        defaults = {
            name: _NOTHING if field.is_required() else field.get_default(call_default_factory=True)
            for name, field in type(now).model_fields.items()
        }
    elif dataclasses.is_dataclass(now):
        defaults = {
            field.name: _NOTHING if field.default is dataclasses.MISSING else field.default
            for field in dataclasses.fields(now)
        }
    else:
        return None
    types = get_type_hints(type(now), include_extras=True)
    return {
        name: (default, getattr(now, name), _UNCOMPARED not in getattr(types[name], "__metadata__", ()))
        for name, default in defaults.items()
    }
