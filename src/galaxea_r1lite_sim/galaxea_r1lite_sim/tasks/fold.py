"""Fold a towel once, with both arms: the near corners onto the far ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.plan import minimum_jerk
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.expert import ABOVE, OPENED, STEP, Expert
from galaxea_r1lite_sim.shapes import Color, numbers, shaded
from galaxea_r1lite_sim.tasks.base import Cloth, Progress, Task

if TYPE_CHECKING:
    from galaxea_r1lite_sim.simulation import Simulation

_VERTICES = 11  # along each edge
_RADIUS, _MASS = 0.003, 0.08  # m, kg
_FOLDED = 0.04  # m, largest mean distance between the corners that should meet
_FOOTPRINT = (0.45, 0.65)  # share of the flat towel's area on the table
_CELL, _FINE = 0.005, 7  # m, and points along a square of the cloth, to measure its footprint
_CLOSED, _HOLDING = 0.0, 8.0  # mm of stroke; more than the latter: a gripper still closes, or opens already
_GRASP = 0.012  # m of the tool over the table
_NEAR, _FAR = 0.03, 0.15  # m from a corner: next to it, and so far that the way takes its full time
_SHORTEST = 0.3  # of a segment's full time
_ARC = 0.40  # height of the arc over its length
_ARC_TIME, _ARC_FULL = 2.2, 0.25  # s of the arc, and m from which on it takes its full time
_ARC_SHORTEST = 0.1  # of that time: a towel that is held over its place is put down at once

_TOWEL = """    <flexcomp name="towel" type="grid" dim="2" count="{n} {n} 1" spacing="{spacing} {spacing} {spacing}"
              pos="{x} {y} {z}" euler="0 0 {yaw}" mass="{mass}" radius="{radius}" rgba="{color} 1">
      <contact condim="3" friction="{friction}" solref="0.01 1" selfcollide="auto" contype="12" conaffinity="9"/>
      <elasticity young="2e4" poisson="0" damping="0.02" thickness="0.002" elastic2d="both"/>
    </flexcomp>
"""


@dataclass(frozen=True)
class FoldProgress(Progress):
    """`distance` is the mean horizontal one of the two near corners to the far corners they should lie on.

    Attributes:
        footprint: area that the towel covers, as a share of the flat towel.
    """

    footprint: float


@dataclass(frozen=True)
class Fold(Task):
    """See the module.

    Attributes:
        center: x, y of the towel in base_link, m.
        yaw: about z, rad.
        size: edge length, m.
        color: and that of its hem.
        stripes: width of stripes, m; 0: none.
    """

    instruction = "fold the towel"
    thing, done = "towel", "folded"
    hands = 2
    hold = "connect"

    center: tuple[float, float] = (0.50, 0.0)
    yaw: float = 0.0
    size: float = 0.28
    color: tuple[Color, Color] = ((0.85, 0.3, 0.25), (0.5, 0.15, 0.12))
    stripes: float = 0.0

    @classmethod
    def placed(cls, random: np.random.Generator) -> Fold:
        """By up to 5 cm and 15 degrees."""
        center = np.array(cls.center) + random.uniform(-0.05, 0.05, 2)
        return cls((float(center[0]), float(center[1])), float(np.deg2rad(random.uniform(-15, 15))))

    def varied(self, random: np.random.Generator, color: Color) -> Fold:
        """Of another size, and with stripes, perhaps."""
        size, stripes = random.uniform(0.26, 0.30), random.choice([0.0, 0.0, 0.028, 0.056])
        return replace(self, size=float(size), color=(color, shaded(color, 0.6)), stripes=float(stripes))

    def mjcf(self, table: float, friction: float) -> str:
        """See :class:`Task`."""
        return _TOWEL.format(
            n=_VERTICES, spacing=self.size / (_VERTICES - 1), x=self.center[0], y=self.center[1],
            z=table + 2 * _RADIUS, yaw=self.yaw, mass=_MASS, radius=_RADIUS, friction=friction,
            color=numbers(self.color[0]),
        )  # fmt: skip

    @property
    def bodies(self) -> Sequence[str]:
        """Its vertices."""
        return [f"towel_{k}" for k in range(_VERTICES**2)]

    @property
    def cloth(self) -> Cloth:
        """See :class:`Task`."""
        return Cloth(_VERTICES, self.size, self.color, self.stripes)

    def progress(self, simulation: Simulation) -> FoldProgress:
        """Folded once, and let go of."""
        towel = vertices(simulation)
        near, far = towel[0, [0, -1]], towel[-1, [0, -1]]
        distance = float(np.linalg.norm((near - far)[:, :2], axis=1).mean())
        footprint, held, grasps = _covered(towel, self.size), simulation.held, simulation.grasps
        success = distance < _FOLDED and _FOOTPRINT[0] < footprint < _FOOTPRINT[1] and not held
        grasped = sum(count > 0 for count in grasps.values())
        if grasped < len(grasps):
            failure = "one corner grasped" if grasped else "no corner grasped"
        else:
            failure = "not released" if held else "misplaced"
        return FoldProgress(success, distance, failure, held, grasps, footprint)

    def plan(self, simulation: Simulation) -> NDArray[np.float64] | None:
        """None with the towel in one gripper, or let go of, or with grippers in motion."""
        robot, grasps = simulation.robot, simulation.grasps
        held = len(simulation.held) == len(grasps) and bool((simulation.joints[~robot.is_arm] < _HOLDING).all())
        if any(grasps.values()) and not held:
            return None
        return FoldExpert(robot, simulation.joints, vertices(simulation), held=held).targets


class FoldExpert(Expert):
    """Plans the fold from the towel's corners."""

    def __init__(
        self, robot: RobotConfig, joints: NDArray[np.float64], towel: NDArray[np.float64], *, held: bool = False
    ) -> None:
        """`joints` [D] is where the robot stands, `towel` [n, n, 3] where the cloth lies.

        With `held` both arms hold their corners already: the plan begins with the arc.
        """
        super().__init__(robot, Fold.thing)
        self._held = held
        self._corners = {}
        for side, arm in enumerate(self._arms):
            # The left arm takes the corner on the left (larger y).
            column = int(np.argmax(towel[0, [0, -1], 1])) if side == 0 else int(np.argmin(towel[0, [0, -1], 1]))
            self._corners[arm] = (towel[0, -column], towel[-1, -column])
        self.targets = self._plan(joints)

    def _plan(self, joints: NDArray[np.float64]) -> NDArray[np.float64]:
        table = self._robot.workspace.table_height
        begin = joints.copy()
        for arm in self._arms:
            self._set_gripper(begin, arm, _CLOSED if self._held else OPENED)
        rows = [begin] if self._held else self._take(begin)
        rows += self._arc(rows[-1])
        rows += self._grip(rows[-1], self._arms, OPENED)
        goals = {arm: np.array([*far[:2], table + ABOVE]) for arm, (_, far) in self._corners.items()}
        rows += self._line(rows[-1], goals, 0.7)
        return np.array(rows + self._home(rows[-1]))

    def _take(self, begin: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Both arms over their near corners, down, and closed."""
        table = self._robot.workspace.table_height
        rows = [begin]
        above, share = {}, 0.0
        for arm, (near, _) in self._corners.items():
            tool = self._tool(arm, rows[0])
            away = float(np.linalg.norm(tool[:2] - near[:2]))
            # From next to the corner the arm continues as it would have, not up and down again.
            height = ABOVE if away > _NEAR else float(np.clip(tool[2] - table, _GRASP, ABOVE))
            above[arm] = np.array([*near[:2], table + height])
            share = max(share, float(np.linalg.norm(tool - above[arm])) / _FAR)
        rows += self._line(rows[-1], above, 1.4 * float(np.clip(share, _SHORTEST, 1.0)))
        down = max(float(goal[2]) - table - _GRASP for goal in above.values()) / (ABOVE - _GRASP)
        goals = {arm: np.array([*near[:2], table + _GRASP]) for arm, (near, _) in self._corners.items()}
        rows += self._line(rows[-1], goals, 0.7 * max(_SHORTEST, down))
        return rows + self._grip(rows[-1], self._arms, _CLOSED)

    def _arc(self, start: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """From where the near corners are held to the far ones, over the towel."""
        table = self._robot.workspace.table_height
        begins = {arm: self._tool(arm, start) for arm in self._corners}
        goals = {arm: np.array([*far[:2], table + _GRASP]) for arm, (_, far) in self._corners.items()}
        longest = max(float(np.linalg.norm(goals[arm] - begin)) for arm, begin in begins.items())
        steps = round(_ARC_TIME * float(np.clip(longest / _ARC_FULL, _ARC_SHORTEST, 1.0)) / STEP)
        share = minimum_jerk(np.zeros(1), np.ones(1), steps)[:, 0]
        paths = {}
        for arm, begin in begins.items():
            path = begin + share[:, None] * (goals[arm] - begin)
            path[:, 2] += 4 * share * (1 - share) * _ARC * np.linalg.norm((goals[arm] - begin)[:2])
            paths[arm] = path
        return self._follow(start, paths)


def vertices(simulation: Simulation) -> NDArray[np.float64]:
    """Of the towel, [11, 11, 3], m in base_link; the first index runs along its x."""
    return simulation.things.reshape(_VERTICES, _VERTICES, 3)


def _covered(towel: NDArray[np.float64], size: float) -> float:
    """Share of the flat towel's area that the towel covers seen from above, counted in cells of 5 mm."""
    u = np.linspace(0, 1, _FINE)[:, None, None, None, None]
    v = np.linspace(0, 1, _FINE)[None, :, None, None, None]
    flat = towel[..., :2]
    a, b, c, d = flat[:-1, :-1], flat[1:, :-1], flat[:-1, 1:], flat[1:, 1:]
    points = (1 - u) * (1 - v) * a + u * (1 - v) * b + (1 - u) * v * c + u * v * d
    cells = np.unique((points.reshape(-1, 2) // _CELL).astype(int), axis=0)
    return len(cells) * _CELL**2 / size**2
