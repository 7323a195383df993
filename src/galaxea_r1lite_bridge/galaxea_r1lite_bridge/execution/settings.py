"""The bridge's parameters, typed. config/bridge_node.yaml is the only place of their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from galaxea_r1lite_bridge.execution.blending import Blending
from galaxea_r1lite_bridge.robot.config import share_directory
from galaxea_r1lite_bridge.robot.parameter_file import ParameterFile
from galaxea_r1lite_bridge.robot.yaml_model import StrictModel, validate

_LATE_TICK = 2.0  # control periods that a late tick counts as, at most: it must not become a jump


class Reaction(IntEnum):
    """What a watchdog does, the worse the higher."""

    SLOW = 1
    """The plan is followed at half speed."""
    HOLD = 2
    """Brake and hold until the condition is over, then continue."""
    FAULT = 3
    """Brake and hold until armed again."""


def _by_name(value: object) -> object:
    return Reaction[value.upper()] if isinstance(value, str) else value


class Watch(StrictModel):
    """Limit of one watchdog, and its reaction when that is passed."""

    limit: float
    reaction: Annotated[Reaction, BeforeValidator(_by_name)]


class WatchdogSettings(StrictModel):
    """All watchdogs; what each limit means and its unit are in config/bridge_node.yaml."""

    chunk_age: Watch
    feedback_age: Watch
    frozen_feedback: Watch
    feedback_jump: Watch
    feedback_unit: Watch
    tracking_error: Watch
    clock_jump: Watch
    overrun: Watch
    heartbeat: Watch


class BridgeSettings(StrictModel):
    """All parameters of the bridge; each is described in config/bridge_node.yaml.

    No field has a default: a parameter that is missing in that file, or only there, is an error.
    """

    robot_config: str
    arm_on_start: bool
    closed_loop: bool
    control_rate: float
    realtime_priority: int
    status_rate: float
    future_tolerance: float
    home_speed: float
    require_heartbeat: bool
    deadman_silence: float
    blending: Blending
    blend_window: float
    ensemble_decay: float
    gripper_hysteresis: float
    watchdog: WatchdogSettings

    @model_validator(mode="after")
    def _overrun_is_late(self) -> BridgeSettings:
        least = 1.5 / self.control_rate
        if self.watchdog.overrun.limit < least:
            raise ValueError(f"watchdog.overrun.limit: must be at least one and a half control periods, {least:.3g} s")
        return self

    @staticmethod
    def file() -> Path:
        """The installed config/bridge_node.yaml."""
        return share_directory() / "config" / "bridge_node.yaml"

    @classmethod
    def load(cls, changes: Mapping[str, object] | None = None) -> BridgeSettings:
        """The defaults, with `changes` by parameter name such as ``watchdog.chunk_age.limit``.

        Raises:
            ConfigError: a change of an unknown parameter, or out of its range.
        """
        return cls.from_parameters(_parameters().values(changes or {}))

    @classmethod
    def from_parameters(cls, values: Mapping[str, object]) -> BridgeSettings:
        """Typed form of a node's parameters by name, where dots separate the parts of a name."""
        nested: dict[str, Any] = {}
        for name, value in values.items():
            *folders, last = name.split(".")
            folder = nested
            for part in folders:
                folder = folder.setdefault(part, {})
            folder[last] = value
        return validate(nested, cls, cls.file().name)

    @property
    def max_dt(self) -> float:
        """Longest control period that the limits may use, s."""
        return _LATE_TICK / self.control_rate


@cache
def _parameters() -> ParameterFile:
    return ParameterFile.load(BridgeSettings.file())
