"""Declare a node's parameters from the YAML file in config/ that describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from galaxea_r1lite_bridge.robot.parameter_file import Parameter, ParameterFile
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def declare_parameters(node: Node, path: Path) -> dict[str, Any]:
    """Declare on `node` every parameter in the YAML file at `path` and return their values by name.

    Raises:
        ConfigError: a value is of another type, out of range or not among the choices; names the parameter.
    """
    values: dict[str, Any] = {}
    for name, parameter in ParameterFile.load(path).root.items():
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
        parameter.check(name, value)
        values[name] = list(value) if isinstance(parameter.default, list) else value
    return values


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
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
