"""Whether recorded joints can be in the unit that is declared: told from where they are, and from how far they move."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Matrix = NDArray[np.floating]
Sides = dict[str, Matrix]

_BEYOND = 0.05  # of a joint's range by which an encoder may be off
_STILL = 0.02  # of what a joint is commanded: one that moves less does not follow
_TURNS = 4 * math.pi  # rad: an encoder that is a turn off stays below, an arm in degrees goes beyond
_MOVES = 2e-3  # of a joint's range by which its targets differ in an episode in which something happens
_CLOSED, _RESTING = 0.1, 1e-3  # mm of a target that keeps a gripper closed, and that it varies by
_FRACTION = (-0.02, 1.02)  # where a stroke lies that is sent as 0 to 1
_CODES = {
    "rad": (("degrees", 180 / math.pi, "unit: deg"), ("milliradians", 1000.0, "")),
    "mm": (("0 to 255", 2.55, "range: [0, 255]"), ("0 to 1000", 10.0, "range: [0, 1000]")),
}


def check_units(
    robot: RobotConfig,
    state: Mapping[str, Matrix],
    action: Mapping[str, Matrix],
    source: str,
    remedy: str,
    declared: Container[str],
    *,
    units_only: bool = False,
) -> None:
    """Refuse an episode whose numbers contradict the robot file.

    Args:
        robot: ranges and units.
        state: measured positions [T, joints] by group, rad and mm as declared.
        action: targets, in the same form.
        source: where they are from.
        remedy: where their real unit can be declared.
        declared: groups whose unit was, so that a gripper between 0 and 1 mm is closed.
        units_only: whether only those count that another unit explains.

    Raises:
        ConfigError: in one line, with the likely factor for each group.
    """
    if problems := list(contradictions(robot, state, action, declared, units_only=units_only)):
        raise ConfigError(f"{source}: {'; '.join(problems)}. Another unit is declared in {remedy}")


def contradictions(
    robot: RobotConfig,
    state: Mapping[str, Matrix],
    action: Mapping[str, Matrix],
    declared: Container[str] = (),
    *,
    units_only: bool = False,
) -> Iterator[str]:
    """What cannot be in the unit that is declared, a line for each group; see :func:`check_units`."""
    if not len(next(iter(action.values()))):
        return
    moving = any(
        (np.ptp(action[name], axis=0) > _MOVES * _spans(robot, name)).any()
        for name in robot.commanded
        if name in action
    )
    for name, group in robot.commanded.items():
        sides = {"measured": state[name], "commanded": action[name]}
        found, known = _outside(robot, name, sides)
        if units_only and not known:
            found = ""
        if not found and group.unit == "mm":
            found = _fraction(robot, name, sides, told=moving and name not in declared)
        if found or (not units_only and (found := _not_followed(robot, name, sides))):
            yield found


def _spans(robot: RobotConfig, name: str) -> NDArray[np.float64]:
    lower, upper = robot.reach[name].T
    return upper - lower


def _outside(robot: RobotConfig, name: str, sides: Sides) -> tuple[str, bool]:
    """Values that no joint of this kind can have, and whether another unit explains them."""
    group, reach, slack = robot.groups[name], robot.reach[name], _BEYOND * _spans(robot, name)
    lower, upper = reach[:, 0] - slack, reach[:, 1] + slack
    for side, values in sides.items():
        excess = np.maximum(lower - values, values - upper).max(axis=0)
        if (excess <= 0).all():
            continue
        worst = int(excess.argmax())
        text = (
            f"{group.joints[worst]} is {side} at {_extent(values[:, worst])} {group.unit}, outside its range of "
            f"{reach[worst, 0]:.4g} to {reach[worst, 1]:.4g} {group.unit}"
        )
        for what, factor, declaration in _CODES[group.unit]:
            scaled = values / factor
            fits = ((scaled >= lower) & (scaled <= upper)).all()
            if fits and (group.unit == "mm" or np.abs(values).max() > _TURNS):
                return f"{text}: it looks like {what}, a factor of {factor:.4g} ({declaration or 'convert it'})", True
        return text, False
    return "", False


def _fraction(robot: RobotConfig, name: str, sides: Sides, *, told: bool) -> str:
    """A gripper's stroke that is sent as 0 to 1, or in m; one on both sides is `told` by that alone."""
    group, factor = robot.groups[name], float(_spans(robot, name)[0])
    small = {side: _FRACTION[0] <= values.min() and values.max() <= _FRACTION[1] for side, values in sides.items()}
    measured, commanded = (values[:, 0].astype(np.float64) for values in sides.values())
    if small["measured"] != small["commanded"]:
        side = "measured" if small["measured"] else "commanded"
        scaled = factor * measured - commanded if side == "measured" else measured - factor * commanded
        if np.median(np.abs(scaled)) < np.median(np.abs(measured - commanded)):
            return f"{_fractions(group.joints[0], side, sides[side], factor)}, the other side says {group.unit}"
        return ""
    resting = np.ptp(commanded) <= _RESTING and commanded.max() <= _CLOSED
    if small["measured"] and told and not resting:
        both = np.concatenate([measured, commanded])
        return (
            f"{_fractions(group.joints[0], 'measured and commanded', both, factor)}; or in mm and closed all the time "
            "(unit: mm)"
        )
    return ""


def _fractions(joint: str, side: str, values: Matrix, factor: float) -> str:
    metres = " or m, a factor of 1000 (unit: m)" if values.max() <= factor / 1000 * (1 + _BEYOND) else ""
    return (
        f"{joint} is {side} at {_extent(values)} only: it looks like 0 to 1, a factor of {factor:g} (range: [0, 1])"
        f"{metres}"
    )


def _not_followed(robot: RobotConfig, name: str, sides: Sides) -> str:
    """Joints that hardly move although they are commanded to; a gripper may be held open by what it holds."""
    group = robot.groups[name]
    if group.unit == "mm":
        return ""
    moved, commanded = (np.ptp(values, axis=0) for values in sides.values())
    still = (commanded > _BEYOND * _spans(robot, name)) & (moved < _STILL * commanded)
    if not still.any():
        return ""
    worst = int(np.where(still, commanded, 0.0).argmax())
    factor = f"a factor of {commanded[worst] / moved[worst]:.3g}" if moved[worst] > 0 else "it stands still"
    return (
        f"{group.joints[worst]} moved {moved[worst]:.3g} {group.unit} while it was commanded {commanded[worst]:.3g} "
        f"{group.unit}: {factor}"
    )


def _extent(values: Matrix) -> str:
    return f"{values.min():.4g} to {values.max():.4g}"
