"""Declare a node's parameters from a YAML file in config/, the one place where they are described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import RootModel, model_validator
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

ParameterValue = bool | int | float | str | list[str]


class _Parameter(StrictModel):
    default: ParameterValue
    about: str
    unit: str = ""
    range: tuple[float, float] | None = None
    choices: list[str] | None = None

    @model_validator(mode="after")
    def _range_needs_a_number(self) -> _Parameter:
        if self.range is not None and (isinstance(self.default, bool) or not isinstance(self.default, (int, float))):
            raise ValueError("range: only for numbers")
        return self


class _ParameterFile(RootModel[dict[str, _Parameter]]):
    pass


def declare_parameters(node: Node, path: Path) -> dict[str, Any]:
    """Declare on `node` every parameter in the YAML file at `path` and return their values by name.

    Raises:
        ConfigError: a value is of another type, out of range or not among the choices; names the parameter.
    """
    values: dict[str, Any] = {}
    for name, parameter in load_yaml(path, _ParameterFile).root.items():
        if not node.has_parameter(name):
            try:
                node.declare_parameter(name, parameter.default, _descriptor(parameter))
            except InvalidParameterTypeException as error:
                raise ConfigError(
                    f"parameter {name} must be of type {type(parameter.default).__name__}, such as "
                    f"{parameter.default!r}: {error}"
                ) from None
            except InvalidParameterValueException as error:
                low, high = parameter.range or (None, None)
                raise ConfigError(f"parameter {name} must be {low} to {high} {parameter.unit}: {error}") from None
        value = node.get_parameter(name).value
        if parameter.choices is not None and value not in parameter.choices:
            raise ConfigError(f"parameter {name} must be one of {', '.join(parameter.choices)}; got {value!r}")
        values[name] = list(value) if isinstance(parameter.default, list) else value
    return values


def _descriptor(parameter: _Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=parameter.about + (f" [{parameter.unit}]" if parameter.unit else ""),
        additional_constraints=f"one of {', '.join(parameter.choices)}" if parameter.choices else "",
    )
    if parameter.range is not None:
        low, high = parameter.range
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor
