"""Where LIBERO's expert takes hold of things: whole ones across, bowls and mugs at the rim. From above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .libero_scene import Box, Scene, Vectors, clearance

_WIDEST = 0.072  # m between the open fingers, a little less than they have
_DEPTH = 0.035  # m below a thing's top, for fingers that hold it across
_LOWEST = 0.012  # m over what it stands on: the fingertips reach 9 mm below, and hold the hand fast where they touch
_BAND = 0.03  # m up and down from the fingers: what of a thing they could touch
_RIM_DEPTH = 0.03  # m below a rim: less, and it slips
_RIM = 0.008  # m: what of a bowl is its rim
_OPENED, _FINGER_HALF, _FINGER_ROOM = 0.05, 0.01, 0.01  # m from the middle, half its width, and room that it needs
_HAND, _HAND_ROOM = 0.10, 0.035  # m, half of the hand's length along the closing axis, and room around that line
_HAND_LOW, _HAND_HIGH = 0.08, 0.14  # m over the fingertips
_FREE = 0.06  # m: more room than this is not worth more
_REACH = 0.72  # m from the arm's base, over the table: farther out it stalls
_FORTH = np.array([-0.2, 0.0])  # where the arm's hand is at home, so that its own side of a rim is nearer


@dataclass(frozen=True)
class Grasp:
    """Where the fingertips are when they close: a point [3], and the direction in which they close, rad from x.

    With `is_there` they have closed already.
    """

    score: float
    point: Vectors
    yaw: float
    is_there: bool = False

    @property
    def axes(self) -> Vectors:
        """Axes [3, 3] of a gripper that looks down."""
        x = np.array([np.cos(self.yaw), np.sin(self.yaw), 0.0])
        z = np.array([0.0, 0.0, -1.0])
        return np.column_stack([x, np.cross(z, x), z])


def across(scene: Scene, name: str) -> list[Grasp]:
    """Ways to hold a thing between the fingers, best first: narrow, free of others, and with little turning."""
    points, boxes, now = scene.points(name), scene.obstacles(name), _yaw(scene)
    top, bottom = points[:, 2].max(), points[:, 2].min()
    middle = (points[:, :2].max(axis=0) + points[:, :2].min(axis=0)) / 2
    z = max(top - _DEPTH, bottom + _LOWEST)
    band = points[np.abs(points[:, 2] - z) < _BAND]
    band = (band if len(band) > 3 else points)[:, :2] - middle  # a thing of few points may have none there
    found = []
    for turn in np.deg2rad(np.arange(-90.0, 91.0, 7.5)):
        along = np.array([np.cos(now + turn), np.sin(now + turn)])
        side = np.array([-along[1], along[0]])
        (low, high), (left, right) = ((values.min(), values.max()) for values in (band @ along, band @ side))
        if high - low > _WIDEST:
            continue
        center, half = middle + along * (low + high) / 2 + side * (left + right) / 2, (right - left) / 2
        for shift in (0.0, -0.5, 0.5):  # along what is long
            if shift and half < 0.025:
                continue
            place = np.append(center + side * shift * max(0.0, half - 0.01), z)
            room = _room(boxes, place, along, hand=(_HAND_LOW, _HAND_HIGH))
            score = 10 * min(room, 0.015) - 2 * (high - low) - 0.03 * abs(turn) - 0.02 * abs(shift)
            found.append(Grasp(float(score), place, float(now + turn)))
    return _sorted(found)


def at_the_rim(scene: Scene, name: str, target: Vectors) -> list[Grasp]:
    """Ways to hold a bowl or mug at its rim, best first: free of others, and in reach here and at the target [3]."""
    points, boxes, now, base = scene.points(name), scene.obstacles(name), _yaw(scene), scene.base[:2]
    top = points[:, 2].max()
    rim = points[points[:, 2] > top - _RIM, :2]
    middle = (rim.max(axis=0) + rim.min(axis=0)) / 2
    radius = np.linalg.norm(rim - middle, axis=1).max() - 0.002
    found = []
    for angle in np.arange(24) * np.pi / 12:
        out = np.array([np.cos(angle), np.sin(angle)])
        turns = [(angle + half - now + np.pi) % (2 * np.pi) - np.pi for half in (0.0, np.pi)]
        turn = min(turns, key=abs)
        for inward in (0.0, 0.01, 0.02):
            place = np.append(middle + (radius - inward) * out, top - _RIM_DEPTH)
            room = _room(boxes, place, out, hand=(_HAND_LOW + 0.01,))
            beyond = [
                max(0.0, float(np.linalg.norm(spot - base)) - _REACH)
                for spot in (place[:2], target[:2] + (radius - inward) * out)
            ]
            score = (
                6 * min(room, 0.02) - 0.03 * abs(turn) - 0.5 * inward - 3 * sum(beyond)
                - 0.05 * float(np.linalg.norm(place[:2] - _FORTH))
            )  # fmt: skip
            found.append(Grasp(float(score), place, float(now + turn)))
    return _sorted(found)


def in_the_hand(scene: Scene) -> Grasp:
    """That of a thing which the fingers hold."""
    return Grasp(0.0, scene.tool, _yaw(scene), is_there=True)


def _room(boxes: list[Box], place: Vectors, along: NDArray[np.float64], hand: tuple[float, ...]) -> float:
    """How free open fingers and the hand above them are of others, m; below 0 they touch."""
    side = np.array([-along[1], along[0]])
    fingers = [
        np.append(place[:2] + opened * along + width * side, place[2] + height)
        for opened in (-_OPENED, _OPENED)
        for width in (-_FINGER_HALF, _FINGER_HALF)
        for height in (0.0, 0.03, 0.06)
    ]
    line = [
        np.append(place[:2] + reach * along, place[2] + height)
        for reach in np.linspace(-_HAND, _HAND, 5)
        for height in hand
    ]
    return min(
        clearance(boxes, np.array(fingers), _FREE) - _FINGER_ROOM,
        clearance(boxes, np.array(line), _HAND) - _HAND_ROOM,
    )


def _yaw(scene: Scene) -> float:
    x = scene.tool_axes[:, 0]
    return float(np.arctan2(x[1], x[0]))


def _sorted(grasps: list[Grasp]) -> list[Grasp]:
    return sorted(grasps, key=lambda grasp: -grasp.score)
