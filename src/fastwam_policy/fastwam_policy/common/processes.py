"""Which processes a mode consists of, from config/processes.yaml. The launch file and all commands use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import RootModel, model_validator

from galaxea_r1lite_bridge.robot.parameter_file import ParameterFile
from galaxea_r1lite_bridge.robot.share import share_directory
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

RunMode = Literal["real", "sim", "replay"]
MODES: tuple[RunMode, ...] = get_args(RunMode)
Argument = str | bool | int | float

ARGUMENTS: dict[str, tuple[Argument, str]] = {
    "bag": ("", "recording to replay, mode replay"),
    "policy": (
        "",
        "bundle's folder, address, package.module:Class or FILE.py:Class; empty: the shipped one, not in mode real",
    ),
    "mapping": ("", "mapping file of a policy of another project, such as config/policies/pi05_aloha.yaml"),
    "instruction": ("", "task; empty for the policy's default"),
    "arm": (False, "arm the bridge as soon as feedback comes; leave it false on a robot and call ~/arm"),
    "rviz": (False, "start RViz and what it needs; only with a full ROS 2 installation"),
    "imagine": (False, "show what the model imagines and what then happens: imagination_node, in the background"),
    "record": (False, "write chunks, commands, feedback and status to an mcap"),
    "record_images": (False, "with `record`, the camera images as well"),
    "seed": (0, "what the simulated scene is drawn from, mode sim"),
    "task": ("fold", "what is on the simulated table and to be done, mode sim: fold or cube"),
    "randomization": ("objects", "what the seed varies, mode sim: none, objects (places and the arms' start) or full"),
    "duration": (0.0, "simulated seconds, or success before, after which mode sim ends; 0 for never"),
    "robot_config": ("", "description of the robot for all nodes; empty for the installed config/r1lite.yaml"),
    "session": ("", "folder of that recording; empty for ~/fastwam_sessions/TIME"),
}
"""Default and meaning of each argument of the launch file."""


def shipped_bundle() -> Path:
    """The bundle that comes with this package. It was trained for the simulated towel only."""
    return share_directory("fastwam_policy") / "bundles" / "towel_small"


def sample_bag() -> Path:
    """The recording that comes with this package, of 6.5 s."""
    return share_directory("fastwam_policy") / "bags" / "towel_fold_sample"


def has_simulator() -> bool:
    """Whether MuJoCo is installed."""
    return find_spec("mujoco") is not None


def require_simulator() -> None:
    """ConfigError where MuJoCo is not installed."""
    if not has_simulator():
        raise ConfigError(
            "the simulator needs MuJoCo, which has no wheel for this Python: use Python 3.11 or newer "
            "(make setup PYTHON=python3.11)"
        )


def require_viewer() -> None:
    """ConfigError where Rerun is not installed."""
    if find_spec("rerun") is None:
        raise ConfigError(
            "the viewer needs rerun-sdk: .venv/bin/python -m pip install --no-deps -r requirements-view.txt"
        )


def parse_argument(name: str, text: str) -> Argument:
    """Value of an argument that was given as text; ConfigError where it is not of the default's type."""
    default = ARGUMENTS[name][0]
    if isinstance(default, bool):
        return text.lower() == "true"
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            raise ConfigError(f"argument {name} must be a number such as {default}, got {text!r}") from None
    return text


class _Entry(StrictModel):
    package: str
    modes: list[RunMode]
    arguments: dict[str, str]
    only_if: str | None = None

    @model_validator(mode="after")
    def _known(self) -> _Entry:
        for argument in (*self.arguments.values(), *([self.only_if] if self.only_if else [])):
            if argument not in ARGUMENTS:
                raise ValueError(f"{argument} is not an argument; known are {', '.join(ARGUMENTS)}")
        return self


class _Entries(RootModel[dict[str, _Entry]]):
    pass


def _entries(config: Path) -> dict[str, _Entry]:
    return load_yaml(config / "processes.yaml", _Entries).root


def node_command(
    package: str, executable: str, parameters: Mapping[str, object], options: Sequence[str] = ()
) -> list[str]:
    """Command line of an installed node, with parameters and other options of `--ros-args`."""
    from ament_index_python.packages import get_package_prefix

    words = [str(Path(get_package_prefix(package)) / "lib" / package / executable), "--ros-args", *options]
    for name, value in parameters.items():
        words += ["-p", f"{name}:={_as_yaml(value)}"]
    return words


def _as_yaml(value: object) -> str:
    """A parameter's value as rcl reads it: as YAML, which ends a text at ` #` and takes `yes` for no text."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, Path)):
        return str(value)
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{str(value)!r}: is not in UTF-8, and ROS 2 takes no other names: rename it") from None
    return str(yaml.dump(str(value), default_style='"', width=inf)).strip()


@dataclass(frozen=True)
class Process:
    """One node to start."""

    name: str
    package: str
    params_file: Path
    parameters: Mapping[str, Argument]

    @property
    def executable(self) -> str:
        """Name of the installed executable; the same as the node's."""
        return self.name

    def command(self, namespace: str = "") -> list[str]:
        """Command line that starts it, as `ros2 run` or a launch file would."""
        options = ["-r", f"__node:={self.name}"]
        if namespace:
            options += ["-r", f"__ns:=/{namespace.strip('/')}"]
        options += ["--params-file", str(self.params_file)]
        return node_command(self.package, self.executable, self.parameters, options)


def node_names() -> list[str]:
    """Every node that some mode starts."""
    return list(_entries(share_directory("fastwam_policy") / "config"))


def processes(mode: str, arguments: Mapping[str, Argument]) -> list[Process]:
    """The processes of `mode` with their parameters; `arguments` overrides the defaults of ARGUMENTS.

    Raises:
        ConfigError: unknown mode or argument, a value that the node would refuse, or a mode that cannot run here.
    """
    if mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "sim":
        require_simulator()
    if "bundle" in arguments:
        raise ConfigError(f"argument bundle is now called policy: policy:={arguments['bundle']}")
    unknown = sorted(set(arguments) - set(ARGUMENTS))
    if unknown:
        raise ConfigError(f"unknown argument {', '.join(unknown)}; known are {', '.join(ARGUMENTS)}")
    values = {name: default for name, (default, _) in ARGUMENTS.items()} | dict(arguments)
    if mode != "real":
        values["policy"] = values["policy"] or str(shipped_bundle())
    config = share_directory("fastwam_policy") / "config"
    result = []
    for name, entry in _entries(config).items():
        if mode not in entry.modes or (entry.only_if is not None and not values[entry.only_if]):
            continue
        # An empty argument leaves the parameter to its default and to the params file.
        given = {key: values[argument] for key, argument in entry.arguments.items() if values[argument] != ""}
        ParameterFile.load(share_directory(entry.package) / "config" / f"{name}.yaml").values(given)
        result.append(Process(name, entry.package, config / f"{mode}.yaml", given))
    return result
