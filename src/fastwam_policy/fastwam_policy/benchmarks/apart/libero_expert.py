"""A scripted expert for LIBERO's tasks of picking and placing, which knows where everything is.

It follows straight lines with a proportional controller, watches the thing in its hand rather than the plan, and tries
again where it has lost it. Drawers, knobs, doors, pushing and stacking on racks it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import mujoco
import numpy as np

from .libero_grasps import Grasp, across, at_the_rim, in_the_hand
from .libero_scene import Scene, Vectors

_METRES, _RADIANS = 0.05, 0.5  # motion of a step that 1 asks for (OSC_POSE)
_GAIN = 1.5
_OPEN, _CLOSED = -1.0, 1.0
_CLOSING, _OPENING = 14, 12  # steps
_ATTEMPTS = 3
_LIFTED = 0.04  # m: a thing that rose by less is not in the hand
_SLIPPED = 0.03  # m that a thing may move away from the fingers
_ABOVE, _ABOVE_TURN = 0.015, 0.12  # m and rad: the hand is over a grasp, and goes straight down
_BETWEEN = 0.006  # m that it may be off where a finger could stand on the thing already
_CLEAR = 0.015  # m over a thing's top, from where fingers touch nothing yet
_STUCK, _STUCK_STEPS, _STUCK_NEAR = 0.002, 4, 0.025  # m, steps: a hand that moves no more so near to a grasp closes
_CARRYING = 0.75  # of the speed, with a bowl in the hand
_HELD_AT_THE_RIM = ("bowl", "mug")
_INSIDE = "_contain_region"

Motion = Generator[Vectors, None, bool]
"""Actions [7]; returns whether it got there."""


class CannotError(Exception):
    """A goal that the expert has no skill for."""


class Expert:
    """See the module. It may also continue where somebody else has begun, with the thing in the hand or without.

    Attributes:
        retries: how often it had to try again so far.
    """

    def __init__(self, env: Any) -> None:
        self._scene, self.retries = Scene(env), 0

    def actions(self) -> Iterator[Vectors]:
        """What to do, step by step; each is to be executed before the next is asked for.

        Raises:
            CannotError: see there; before anything is done.
        """
        goals = [(self._goal(words), words) for words in self._scene.goals()]
        for (thing, target), words in goals:
            yield from self._place(thing, target, words)

    def _goal(self, words: list[str]) -> tuple[str, str]:
        """The thing and its target of a goal such as [in, milk_1, basket_1_contain_region]."""
        if len(words) != 3 or words[0] not in ("on", "in"):
            raise CannotError(f"the expert cannot: {' '.join(words)}")
        return words[1], words[2].removesuffix(_INSIDE)

    def _place(self, thing: str, target: str, words: list[str]) -> Iterator[Vectors]:
        scene, rim = self._scene, any(word in thing for word in _HELD_AT_THE_RIM)
        for attempt in range(_ATTEMPTS):
            if not attempt and scene.is_held(thing):
                grasp = in_the_hand(scene)
            else:
                grasps = at_the_rim(scene, thing, scene.position(target)) if rim else across(scene, thing)
                if not grasps:
                    raise CannotError(f"the expert cannot hold {thing}: it is too wide")
                if attempt:
                    self.retries += 1
                    yield from self._retreat()
                grasp = grasps[min(len(grasps) - 1, (4 if rim else 3) * attempt)]
                yield from self._take(thing, grasp)
            carried = self._carry_bowl if rim else self._carry
            if (yield from carried(thing, target, grasp)):
                yield from self._let_go(low=rim)
                if self._scene.is_reached(words):
                    return

    def _retreat(self) -> Iterator[Vectors]:
        """Open the fingers on the way up, to try again."""
        up = self._scene.tool + np.array([0.0, 0.0, 0.08])
        yield from self._to(lambda: up, self._scene.tool_axes, _OPEN, 0.02, np.inf, 15)

    def _take(self, thing: str, grasp: Grasp) -> Iterator[Vectors]:
        """Go there from above and close the fingers."""
        scene = self._scene
        top = scene.points(thing)[:, 2].max()
        above = np.append(grasp.point[:2], max(top + 0.07, grasp.point[2] + 0.08))
        if not self._is_above(grasp, top, above[2]):
            yield from self._to(lambda: above, grasp.axes, _OPEN, 0.02, 0.12, 80)
        yield from self._until_stuck(grasp, self._to(lambda: grasp.point, grasp.axes, _OPEN, 0.007, 0.06, 45))
        for _ in range(_CLOSING):
            yield self._step(grasp.point, grasp.axes, _CLOSED)

    def _until_stuck(self, grasp: Grasp, motion: Iterator[Vectors]) -> Iterator[Vectors]:
        """A motion to a grasp, as long as it moves the hand; the thing between the fingers may hold it."""
        places: list[Vectors] = []
        for action in motion:
            places.append(self._scene.tool)
            near = np.linalg.norm(places[-1] - grasp.point) < _STUCK_NEAR
            if near and len(places) > _STUCK_STEPS and np.ptp(places[-_STUCK_STEPS:], axis=0).max() < _STUCK:
                return
            yield action

    def _lift(self, thing: str, grasp: Grasp, height: float) -> Motion:
        """Straight up; False where the thing stays, if it was not in the hand already."""
        before = self._scene.position(thing)[2]
        up = np.append(grasp.point[:2], height)
        yield from self._to(lambda: up, grasp.axes, _CLOSED, 0.03, 0.06, 40)
        return grasp.is_there or bool(self._scene.position(thing)[2] > before + _LIFTED)

    def _is_above(self, grasp: Grasp, top: float, height: float) -> bool:
        """Whether the hand is over a grasp already, no higher than that, and no finger stands on the thing."""
        off, turn = self._scene.tool - grasp.point, _turn(grasp.axes, self._scene.tool_axes)
        near = np.linalg.norm(off[:2]) < _ABOVE and np.linalg.norm(turn) < _ABOVE_TURN
        between = abs(off @ grasp.axes[:, 0]) < _BETWEEN or self._scene.tool[2] > top + _CLEAR
        return bool(near and between and -_ABOVE < off[2] < height - grasp.point[2])

    def _carry(self, thing: str, target: str, grasp: Grasp) -> Motion:
        """Over the middle of a container and down to its edge."""
        scene = self._scene
        below = grasp.point[2] - scene.points(thing)[:, 2].min()  # from the fingertips down to its lowest point
        container = scene.points(target)
        edge, middle = container[:, 2].max(), (container[:, :2].max(axis=0) + container[:, :2].min(axis=0)) / 2
        high = edge + 0.05 + below
        if not (yield from self._lift(thing, grasp, high)):
            return False

        def over(z: float) -> Callable[[], Vectors]:
            return lambda: np.append(scene.tool[:2] + middle - scene.position(thing)[:2], z)

        return (yield from self._hold(thing, over(high), grasp, 0.02, 0.06, 80)) and (
            yield from self._hold(thing, over(max(edge + below - 0.02, 0.05 + below)), grasp, 0.015, 0.06, 30)
        )

    def _carry_bowl(self, thing: str, target: str, grasp: Grasp) -> Motion:
        """High over what stands around, and down onto the middle of the target."""
        scene = self._scene
        high = max(scene.tool[2] + 0.14, scene.points(target)[:, 2].max() + 0.20)
        if not (yield from self._lift(thing, grasp, high)):
            return False

        def onto(room: float) -> Callable[[], Vectors]:
            def place() -> Vectors:
                off = scene.position(target) - scene.position(thing)
                far = np.linalg.norm(off[:2]) > 0.06 and room > 0.03
                return scene.tool + np.append(off[:2], high - scene.tool[2] if far else off[2] + room)

            return place

        return (yield from self._hold(thing, onto(0.06), grasp, 0.015, 0.2, 80, _CARRYING)) and (
            yield from self._hold(thing, onto(0.01), grasp, 0.010, 0.3, 40, _CARRYING)
        )

    def _let_go(self, *, low: bool) -> Iterator[Vectors]:
        here, axes = self._scene.tool, self._scene.tool_axes
        down = here - np.array([0.0, 0.0, 0.005 if low else 0.0])
        for _ in range(_OPENING):
            yield self._step(down, axes, _OPEN)
        yield from self._to(lambda: here + np.array([0.0, 0.0, 0.1]), axes, _OPEN, 0.008, 0.06, 20)

    def _hold(
        self, thing: str, place: Callable[[], Vectors], grasp: Grasp, near: float, turned: float, steps: int,
        speed: float = 1.0,
    ) -> Motion:  # fmt: skip
        """As `_to` with closed fingers; False as soon as the thing is lost."""
        scene = self._scene
        apart = float(np.linalg.norm(scene.position(thing) - scene.tool)) + _SLIPPED
        for action in self._to(place, grasp.axes, _CLOSED, near, turned, steps, speed):
            if np.linalg.norm(scene.position(thing) - scene.tool) > apart:
                return False
            yield action
        return True

    def _to(
        self, place: Callable[[], Vectors], axes: Vectors, fingers: float, near: float, turned: float, steps: int,
        speed: float = 1.0,
    ) -> Iterator[Vectors]:  # fmt: skip
        """Straight to a place, which may move, until it is so near (m, rad), for so many steps at most."""
        scene = self._scene
        for _ in range(steps):
            goal = place()
            if np.linalg.norm(goal - scene.tool) < near and np.linalg.norm(_turn(axes, scene.tool_axes)) < turned:
                return
            yield self._step(goal, axes, fingers, speed)

    def _step(self, place: Vectors, axes: Vectors, fingers: float, speed: float = 1.0) -> Vectors:
        """An action [7] towards a place and axes."""
        move = _GAIN * (place - self._scene.tool) / _METRES
        move *= min(1.0, speed / max(1e-9, np.abs(move).max()))
        turn = np.clip(_GAIN * _turn(axes, self._scene.tool_axes) / _RADIANS, -speed, speed)
        return np.concatenate([move, turn, [fingers]])


def _turn(to: Vectors, now: Vectors) -> Vectors:
    """Rotation vector [3] from one frame's axes to another's."""
    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(to @ now.T).ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
