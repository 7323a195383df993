"""A YAML file that describes the parameters of a node: the one place of their defaults, meanings and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import RootModel, model_validator

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

ParameterValue = bool | int | float | str | list[str]


class Parameter(StrictModel):
    """One parameter."""

    default: ParameterValue
    about: str
    unit: str = ""
    range: tuple[float, float] | None = None
    choices: list[str] | None = None

    @model_validator(mode="after")
    def _range_needs_a_number(self) -> Parameter:
        if self.range is not None and (isinstance(self.default, bool) or not isinstance(self.default, (int, float))):
            raise ValueError("range: only for numbers")
        return self

    def check(self, name: str, value: object) -> None:
        """ConfigError where `value` is out of range or not among the choices."""
        if self.choices is not None and value not in self.choices:
            raise ConfigError(f"parameter {name} must be one of {', '.join(self.choices)}; got {value!r}")
        if self.range is not None and not (isinstance(value, (int, float)) and self.range[0] <= value <= self.range[1]):
            low, high = (f"{bound:.12g}" for bound in self.range)
            raise ConfigError(f"parameter {name} must be {low} to {high}{self.unit and ' ' + self.unit}; got {value!r}")


class ParameterFile(RootModel[dict[str, Parameter]]):
    """All parameters of a node, by name."""

    @classmethod
    def load(cls, path: Path) -> ParameterFile:
        """Read the file at `path`.

        Raises:
            ConfigError: with one line for each wrong key.
        """
        return load_yaml(path, cls)

    def values(self, changes: Mapping[str, object]) -> dict[str, Any]:
        """Defaults with `changes` by name, as a node has them that is started with those.

        Raises:
            ConfigError: a change of an unknown parameter, or out of its range or choices.
        """
        for name, value in changes.items():
            if name not in self.root:
                raise ConfigError(f"no parameter is named {name}; there are {', '.join(self.root)}")
            self.root[name].check(name, value)
        return {name: parameter.default for name, parameter in self.root.items()} | dict(changes)
