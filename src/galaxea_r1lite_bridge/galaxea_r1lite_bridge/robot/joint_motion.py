"""Whether recorded arms did what they were commanded: told from where they are, and how they move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig

Matrix = NDArray[np.floating]
Sides = dict[str, Matrix]

BEYOND = 0.05  # of a joint's range by which an encoder may be off
_STILL = 0.02  # of what a joint is commanded: one that moves less does not follow
_APART = 0.5  # rad between measured and commanded for half of an episode: an arm that follows is nearer
_OPPOSITE = -0.8  # correlation of measured and commanded positions,
_TELLING = {"rad": 0.1, "mm": 10.0}  # where both move by this at least
_STOOD = 15  # rows: an encoder's last digit changes sooner
_LEAP = 0.4  # rad from one row to the next: 6 rad/s at 15 rows a second


def disagreement(robot: RobotConfig, name: str, sides: Sides) -> str:
    """Why a group's positions, measured and commanded [T, joints], cannot be those of one motion; empty: they can."""
    looks = (_not_followed, _elsewhere, _against)
    return next((text for look in looks if (text := look(robot, name, sides))), "")


def oddities(robot: RobotConfig, state: Mapping[str, Matrix], action: Mapping[str, Matrix]) -> Iterator[str]:
    """What is odd about the rows of an arm that can be used, a line each: leaps, and feedback that froze.

    Measured and commanded positions [T, joints] by group.
    """
    for name, group in robot.commanded.items():
        if group.unit != "mm" and len(state[name]) > 1:
            yield from _leaps(group.joints, state[name])
            yield from _frozen(robot, name, state[name], action[name])


def _leaps(joints: Sequence[str], measured: Matrix) -> Iterator[str]:
    steps = np.abs(np.diff(measured, axis=0))
    if steps.max() > _LEAP:
        row, place = divmod(int(steps.argmax()), len(joints))
        count = int((steps > _LEAP).any(axis=1).sum()) - 1
        more = f", and {count} time{'s' if count > 1 else ''} more" if count else ""
        yield (
            f"{joints[place]} leaps by {steps.max():.3g} rad before row {row + 1}{more}: an encoder's fault, or two "
            "publishers"
        )


def _frozen(robot: RobotConfig, name: str, measured: Matrix, commanded: Matrix) -> Iterator[str]:
    moves = (np.diff(measured, axis=0) != 0).any(axis=1)
    edges = np.flatnonzero(np.concatenate([[True], moves, [True]]))
    for first, end in pairwise(edges):
        way = np.ptp(commanded[first:end], axis=0)
        if end - first >= _STOOD and (way > BEYOND * spans(robot, name)).any():
            yield (
                f"{name} is measured at the same place to the last digit in rows {first} to {end - 1}, while it is "
                f"commanded {way.max():.3g} rad: its feedback froze"
            )
            return


def spans(robot: RobotConfig, name: str) -> NDArray[np.float64]:
    """Size of each joint's range, [joints]."""
    lower, upper = robot.reach[name].T
    return upper - lower


def _not_followed(robot: RobotConfig, name: str, sides: Sides) -> str:
    """Joints that hardly move although they are commanded to, or the reverse; a gripper may be held open by a load."""
    group = robot.groups[name]
    if group.unit == "mm":
        return ""
    moved, commanded = (np.ptp(values, axis=0) for values in sides.values())
    alone = (moved > BEYOND * spans(robot, name)) & (commanded < _STILL * moved)
    if alone.any():
        worst = int(np.where(alone, moved, 0.0).argmax())
        return (
            f"{group.joints[worst]} moved {moved[worst]:.3g} {group.unit} while it was commanded "
            f"{commanded[worst]:.3g} {group.unit}: these are not the commands that moved it"
        )
    still = (commanded > BEYOND * spans(robot, name)) & (moved < _STILL * commanded)
    if not still.any():
        return ""
    worst = int(np.where(still, commanded, 0.0).argmax())
    factor = f"a factor of {commanded[worst] / moved[worst]:.3g}" if moved[worst] > 0 else "it stands still"
    return (
        f"{group.joints[worst]} moved {moved[worst]:.3g} {group.unit} while it was commanded {commanded[worst]:.3g} "
        f"{group.unit}: {factor}"
    )


def _elsewhere(robot: RobotConfig, name: str, sides: Sides) -> str:
    """Joints that are never near where they are commanded to."""
    group = robot.groups[name]
    if group.unit == "mm":
        return ""
    measured, commanded = sides.values()
    distance = np.median(np.abs(measured - commanded), axis=0)
    worst = int(distance.argmax())
    if distance[worst] > _APART:
        return (
            f"{group.joints[worst]} is measured at {extent(measured[:, worst])} {group.unit} and commanded at "
            f"{extent(commanded[:, worst])} {group.unit}: they are of different joints, or the commands are no "
            "absolute targets"
        )
    return ""


def _against(robot: RobotConfig, name: str, sides: Sides) -> str:
    """Joints that move the other way."""
    group = robot.groups[name]
    declaration = "sign: -1" if group.unit == "rad" else "range: [100, 0]"
    for place, joint in enumerate(group.joints):
        one, other = (values[:, place].astype(np.float64) for values in sides.values())
        if min(np.ptp(one), np.ptp(other)) > _TELLING[group.unit] and np.corrcoef(one, other)[0, 1] < _OPPOSITE:
            return f"{joint} moves against what it is commanded: one of both counts the other way ({declaration})"
    return ""


def extent(values: Matrix) -> str:
    """From the least to the largest."""
    return f"{values.min():.4g} to {values.max():.4g}"
