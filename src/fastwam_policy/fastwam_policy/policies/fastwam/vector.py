"""What each number of a bundle's state or action is, and what is done with it besides normalising."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fastwam_policy.policies.base import ActionKind, Channel, Unit
from fastwam_policy.policies.fastwam.normalizer import Normalization
from galaxea_r1lite_bridge.robot.yaml_model import StrictModel

Number = TypeVar("Number", np.float32, np.float64)
_NAMES = 1024  # most in a policy.yaml


class Vector(StrictModel):
    """Meaning of each number of the state or action, in the checkpoint's order."""

    names: list[str] = Field(min_length=1, max_length=_NAMES)
    units: list[Unit]
    normalization: Normalization
    stepwise: bool = False
    """Every step of a chunk has its own statistics."""
    relative: list[str] = Field(default=[])
    """Joints whose actions are counted from the position that was measured at the observation."""
    kind: ActionKind = "absolute"
    """`delta`: what the robot's own controller adds to where it is at each step, such as LIBERO's end effector."""
    toggled: list[str] = Field(default=[])
    """Grippers that the model gives from 0, closed, to 1, open, and the robot takes from 1, closed, to -1, open."""
    binarise: bool = True
    """Of those only the sign is sent."""

    @model_validator(mode="after")
    def _names_fit(self) -> Vector:
        if len(self.names) != len(self.units):
            raise ValueError(f"units: needs one for each of the {len(self.names)} names, got {len(self.units)}")
        for key, listed in (("relative", self.relative), ("toggled", self.toggled)):
            if unknown := set(listed) - set(self.names):
                raise ValueError(f"{key}: {', '.join(sorted(unknown))} not in names")
        if both := set(self.relative) & set(self.toggled):
            raise ValueError(f"{', '.join(sorted(both))} cannot be both relative and toggled")
        return self

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Name and unit of each number."""
        return tuple(Channel(name, unit) for name, unit in zip(self.names, self.units, strict=True))

    @property
    def is_plain(self) -> bool:
        """Whether it is absolute and nothing but normalised by one set of statistics, as a state must be."""
        return not (self.stepwise or self.relative or self.toggled) and self.kind == "absolute"

    def values(self, joints: Mapping[str, float]) -> NDArray[np.float64]:
        """Its numbers [D] of an observation; ValueError where some are missing."""
        return np.array(_measured(joints, self.names))

    def origin(self, joints: Mapping[str, float]) -> NDArray[np.float64]:
        """What actions are counted from, [D]: measured positions of the `relative` joints, 0 for the others."""
        origin = np.zeros(len(self.names))
        origin[self._places(self.relative)] = _measured(joints, self.relative)
        return origin

    def toggle(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Denormalised rows [steps, D] as the robot takes them, `-(2 g - 1)` for the toggled ones."""
        if not self.toggled:
            return rows
        places, rows = self._places(self.toggled), rows.copy()
        grippers = -(2 * rows[:, places] - 1)
        rows[:, places] = np.sign(grippers) if self.binarise else grippers
        return rows

    def untoggle(self, rows: NDArray[Number]) -> NDArray[Number]:
        """The way back, from what the robot takes [steps, D]."""
        if not self.toggled:
            return rows
        places, rows = self._places(self.toggled), rows.copy()
        rows[:, places] = (1 - rows[:, places]) / 2
        return rows

    def _places(self, names: list[str]) -> list[int]:
        return [self.names.index(name) for name in names]


def _measured(joints: Mapping[str, float], names: list[str]) -> list[float]:
    if missing := [name for name in names if name not in joints]:
        raise ValueError(f"the observation has no position of {', '.join(missing)}, which the policy needs")
    return [joints[name] for name in names]
