"""Whether recorded joints can be in the unit that is declared: told from where they are, and from how far they move."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping

import numpy as np

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_motion import BEYOND, Matrix, Sides, disagreement, extent, spans
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TURNS = 4 * math.pi  # rad: an encoder that is a turn off stays below, an arm in degrees goes beyond
_MOVES = 2e-3  # of a joint's range by which its targets differ in an episode in which something happens
_CLOSED, _RESTING = 0.1, 1e-3  # mm of a target that keeps a gripper closed, and that it varies by
_TINY, _TWITCH = (
    math.radians(2 * math.pi),
    math.radians(0.1),
)  # rad: what a turn, and a little, in radians become as degrees
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
        (np.ptp(action[name], axis=0) > _MOVES * spans(robot, name)).any() for name in robot.commanded if name in action
    )
    for name, group in robot.commanded.items():
        sides = {"measured": state[name], "commanded": action[name]}
        found, known = _outside(robot, name, sides)
        if units_only and not known:
            found = ""
        if not found and group.unit == "mm":
            found = _fraction(robot, name, sides, told=moving and name not in declared)
        if not units_only:
            found = found or (_tiny(robot, name, sides) if name in declared else "")
            found = found or disagreement(robot, name, sides)
        if found:
            yield found


def _outside(robot: RobotConfig, name: str, sides: Sides) -> tuple[str, bool]:
    """Values that no joint of this kind can have, and whether another unit explains them."""
    group, reach, slack = robot.groups[name], robot.reach[name], BEYOND * spans(robot, name)
    lower, upper = reach[:, 0] - slack, reach[:, 1] + slack
    for side, values in sides.items():
        excess = np.maximum(lower - values, values - upper).max(axis=0)
        if (excess <= 0).all():
            continue
        worst = int(excess.argmax())
        text = (
            f"{group.joints[worst]} is {side} at {extent(values[:, worst])} {group.unit}, outside its range of "
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
    group, factor = robot.groups[name], float(spans(robot, name)[0])
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
    metres = " or m, a factor of 1000 (unit: m)" if values.max() <= factor / 1000 * (1 + BEYOND) else ""
    return (
        f"{joint} is {side} at {extent(values)} only: it looks like 0 to 1, a factor of {factor:g} (range: [0, 1])"
        f"{metres}"
    )


def _tiny(robot: RobotConfig, name: str, sides: Sides) -> str:
    """An arm whose unit is declared, and that moves a little around its zero all the time."""
    group = robot.groups[name]
    largest = max(float(np.abs(values).max()) for values in sides.values())
    if group.unit == "mm" or largest > _TINY or np.ptp(sides["commanded"], axis=0).max() < _TWITCH:
        return ""
    return (
        f"{name} is measured and commanded within {largest:.2g} rad of 0 all the time: it looks like radians that were "
        f"taken for degrees, a factor of {180 / math.pi:.4g} (unit: rad)"
    )
