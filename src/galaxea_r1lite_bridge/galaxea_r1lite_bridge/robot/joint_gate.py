"""The gate for joints: what a message, recording, dataset or policy says of them, in the robot file's order and units.

Names decide which number is which joint's; without names the order is the robot file's. Whatever does not name each
joint exactly once is refused. Where others name or measure the joints differently, a :class:`JointMapping` says how.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from galaxea_r1lite_bridge.robot.yaml_model import StrictModel

Unit = Literal["rad", "mm"]
Vector = NDArray[np.float64]

_UNITS: dict[Unit, dict[str, float]] = {"rad": {"rad": 1.0, "deg": math.pi / 180}, "mm": {"mm": 1.0, "m": 1000.0}}
_SHOWN = 20  # names or numbers of a message that are shown
_LARGEST = 1e9  # rad or mm: no joint is there, and arithmetic with much more is not finite


class Flaw(Enum):
    """What is wrong with joints that are refused."""

    OTHER_JOINTS = "other joints"
    TOO_FEW = "too few numbers"
    NOT_FINITE = "not finite"


class JointsRefusedError(ValueError):
    """Names or numbers that cannot be used; the text says what was expected and what was found."""

    def __init__(self, flaw: Flaw, text: str) -> None:
        super().__init__(text)
        self.flaw = flaw


class JointMapping(StrictModel):
    """How others name and measure the joints of a group, where that is not as the robot file does.

    Attributes:
        names: theirs, in the order of the group's `joints`.
        unit: theirs, rad or deg, mm or m.
        range: what they say at the lower and at the upper end of a joint's hardware range, instead of a unit: [0, 1].
        sign: -1 where they count the other way, for all joints or for each.
    """

    names: list[str] | None = None
    unit: Literal["rad", "deg", "mm", "m"] | None = None
    range: tuple[float, float] | None = None
    sign: Literal[1, -1] | list[Literal[1, -1]] = 1

    @model_validator(mode="after")
    def _one_way(self) -> JointMapping:
        if self.range is not None and (self.unit is not None or self.sign != 1):
            raise ValueError("range: takes the place of unit and sign; [1, 0] counts the other way")
        if self.range is not None and self.range[0] == self.range[1]:
            raise ValueError(f"range: needs two different numbers, got {list(self.range)}")
        return self

    def check(self, unit: Unit, count: int) -> None:
        """ValueError where it does not fit a group of `count` joints in `unit`."""
        for key, values in (("names", self.names), ("sign", self.sign)):
            if isinstance(values, list) and len(values) != count:
                raise ValueError(f"{key}: needs one entry for each of the {count} joints, got {len(values)}")
        if self.names is not None and (twice := _twice(self.names)):
            raise ValueError(f"names: {', '.join(twice)} more than once")
        if self.unit is not None and self.unit not in _UNITS[unit]:
            raise ValueError(f"unit: joints in {unit} can come in {' or '.join(_UNITS[unit])}, got {self.unit}")


class JointGate:
    """Reads and writes the numbers of one joint group.

    What the names of the last message meant is kept: in the next one with the same names they are only compared.

    Args:
        joints: their names in the robot file.
        unit: theirs there.
        reach: hardware range of each joint in that unit, [joints, 2].
        mapping: how the others say it.

    Attributes:
        names: the joints as the others call them, in the robot file's order.
    """

    def __init__(self, joints: Sequence[str], unit: Unit, reach: NDArray[np.float64], mapping: JointMapping) -> None:
        self.names = list(mapping.names or joints)
        self._count = len(self.names)
        self._scale: Vector = np.ones(self._count) * mapping.sign * _UNITS[unit][mapping.unit or unit]
        self._offset: Vector = np.zeros(self._count)
        if mapping.range is not None:
            first, last = mapping.range
            self._scale = (reach[:, 1] - reach[:, 0]) / (last - first)
            self._offset = reach[:, 0] - self._scale * first
        self._same = bool((self._scale == 1).all() and not self._offset.any())
        self._known: tuple[list[str], NDArray[np.intp] | None, int] = (self.names, None, self._count)  # of the last one

    def positions(self, names: Sequence[str], values: Any) -> Vector:
        """Positions [joints] out of a message with these names, or none.

        Numbers beyond those of the joints are left alone: the vendor's arm messages may carry a 7th.

        Raises:
            JointsRefusedError: other or repeated names, too few numbers, or numbers that are not finite.
        """
        positions = self._ordered(names, values)
        return positions if self._same else self._finite(positions * self._scale + self._offset)

    def speeds(self, names: Sequence[str], values: Any) -> Vector:
        """As :meth:`positions`, of the largest speeds at which to follow them."""
        speeds = self._ordered(names, values)
        return speeds if self._same else self._finite(speeds * np.abs(self._scale))

    def write(self, positions: Vector) -> Vector:
        """Positions [joints] as the others want them, in the order of `names`."""
        return positions if self._same else (positions - self._offset) / self._scale

    def write_speeds(self, speeds: Vector) -> Vector:
        """Speeds, in the same way."""
        return speeds if self._same else speeds / np.abs(self._scale)

    def rows(self, values: Vector) -> Vector:
        """Numbers [T, joints] of the others, in the order of `names`, in the robot file's unit."""
        return values if self._same else values * self._scale + self._offset

    def _ordered(self, names: Sequence[str], values: Any) -> Vector:
        known, order, needed = self._known
        if not names:
            order, needed = None, self._count
        elif names != known:
            order, needed = self._learn(list(names))
        sent = np.asarray(values, np.float64)
        if len(sent) < needed:
            expected = f"expected {needed} numbers, of {_listed(names or self.names)}"
            raise JointsRefusedError(Flaw.TOO_FEW, f"{expected}; got {_listed(sent.tolist())}")
        return self._finite(sent[: self._count] if order is None else sent[order])

    def _finite(self, found: Vector) -> Vector:
        """Numbers that can be those of joints; neither what is not finite nor what is huge can."""
        if not all(abs(value) < _LARGEST for value in found.tolist()):
            expected = f"expected finite numbers of {_listed(self.names)}"
            raise JointsRefusedError(Flaw.NOT_FINITE, f"{expected}; got {_listed(found.tolist())}")
        return found

    def _learn(self, names: list[str]) -> tuple[NDArray[np.intp] | None, int]:
        """Places of the joints among these names, None: they come first and in order; and how many numbers belong."""
        named = any(names)  # some drivers make room for names and leave them empty
        order = np.array(places(names, self.names)) if named else None
        if order is not None and (order == np.arange(self._count)).all():
            order = None
        needed = len(names) if named else self._count
        self._known = (names, order, needed)
        return order, needed


def places(names: Sequence[str], joints: Sequence[str]) -> list[int]:
    """Place of each of `joints` in `names`, which may hold others besides.

    Raises:
        JointsRefusedError: one is missing, or a name is there more than once; the text has both lists.
    """
    where = {name: place for place, name in enumerate(names)}
    missing = [joint for joint in joints if joint not in where]
    twice = _twice(names) if len(where) < len(names) else []
    if not missing and not twice:
        return [where[joint] for joint in joints]
    text = f"expected the joints {_listed(joints)}; got {_listed(names)}"
    if len(missing) < len(joints):  # else nothing is as expected: the two lists say all
        foreign = [name for name in where if name not in joints]
        problems = {"missing": missing, "not expected": foreign, "more than once": twice}
        text += f" ({'; '.join(f'{kind}: {_listed(found)}' for kind, found in problems.items() if found)})"
    raise JointsRefusedError(Flaw.OTHER_JOINTS, text)


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1 and name]


def _listed(values: Sequence[object]) -> str:
    text = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value)[:64] for value in values[:_SHOWN])
    return f"{text}, ... ({len(values)})" if len(values) > _SHOWN else text or "none"
