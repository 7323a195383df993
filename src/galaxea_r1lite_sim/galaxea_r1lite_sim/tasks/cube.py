"""Pick a cube up and place it on a mat, with the arm on its side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.expert import ABOVE, OPENED, Expert, look_at
from galaxea_r1lite_sim.shapes import Color, Visual, numbers
from galaxea_r1lite_sim.tasks.base import Grip, Progress, Task

if TYPE_CHECKING:
    from galaxea_r1lite_sim.simulation import Simulation

_BODY = "cube"
_MAT = (0.06, 0.06, 0.001)  # m, half its edges; it is only seen
_DENSITY = 800  # kg/m^3: wood
_PLACED = 0.04  # m, largest distance of the centres
_LIES = 0.01  # m by which the cube may be higher than one that lies on the table
_SIDE, _YAW = (0.15, 0.30), 30  # m of the cube from the middle, and degrees by which it is turned at most
_EDGE = (0.030, 0.045)  # m
_PRESS = 10  # mm by which the gripper is closed further than the cube is wide
_NEARLY, _WIDER = 4, 12  # mm wider than the cube: it is taken hold of, and let go of
_REACH = 0.025  # m
_DROP = 0.002  # m over the table from which the cube is dropped
_INWARDS = np.deg2rad(20)  # of the gripper over the mat: an arm that reaches for the middle points there by itself
_PACE = 0.25  # m/s on the way to things
_SLOW, _DOWN = 0.4, 0.8  # s, of the shortest way, and of one down or up


@dataclass(frozen=True)
class Cube(Task):
    """See the module.

    Attributes:
        center: x, y of the cube in base_link, m.
        yaw: about z, rad.
        mat: x, y of the mat's centre, m.
        edge: of the cube, m.
        color: of the cube, and `mat_color` of the mat.
    """

    instruction = "put the cube on the mat"
    thing, done = "cube", "placed"
    hands = 1
    hold = "weld"

    center: tuple[float, float] = (0.50, 0.22)
    yaw: float = 0.0
    mat: tuple[float, float] = (0.55, 0.0)
    edge: float = 0.04
    color: Color = (0.15, 0.3, 0.8)
    mat_color: Color = (0.9, 0.9, 0.85)

    @classmethod
    def placed(cls, random: np.random.Generator) -> Cube:
        """The cube left or right of the mat, each anywhere within 15 cm by 15 cm, and 10 cm by 10 cm."""
        side = 1.0 if random.random() < 0.5 else -1.0
        x, y = random.uniform(0.42, 0.57), side * random.uniform(*_SIDE)
        yaw = np.deg2rad(random.uniform(-_YAW, _YAW))
        mat_x, mat_y = np.array(cls.mat) + random.uniform(-0.05, 0.05, 2)
        return cls((float(x), float(y)), float(yaw), (float(mat_x), float(mat_y)))

    def varied(self, random: np.random.Generator, color: Color) -> Cube:
        """Of another size, on a mat of another colour."""
        edge, (red, green, blue) = random.uniform(*_EDGE), random.uniform(0.25, 0.95, 3)
        return replace(self, edge=float(edge), color=color, mat_color=(float(red), float(green), float(blue)))

    def mjcf(self, table: float, friction: float) -> str:
        """A free box; the mat is only seen."""
        half = self.edge / 2
        return (
            f'    <body name="{_BODY}" pos="{numbers((*self.center, table + half))}" euler="0 0 {self.yaw:.9g}">'
            f'<freejoint/><geom type="box" size="{numbers((half, half, half))}" density="{_DENSITY}" condim="3" '
            f'friction="{friction:.9g}" rgba="{numbers(self.color)} 1" contype="4" conaffinity="4"/></body>\n'
            f'    <geom name="mat" type="box" size="{numbers(_MAT)}" '
            f'pos="{numbers((*self.mat, table))}" rgba="{numbers(self.mat_color)} 1" contype="0" conaffinity="0"/>\n'
        )

    @property
    def bodies(self) -> Sequence[str]:
        """The cube."""
        return [_BODY]

    @property
    def grip(self) -> Grip:
        """The fingers stop at the cube."""
        width = 1000 * self.edge
        return Grip(width + _NEARLY, width + _WIDER, _REACH, width)

    def solids(self, table: float) -> Sequence[tuple[str, Visual]]:
        """The mat and the cube."""
        place = np.eye(4)
        place[:3, 3] = (*self.mat, table)
        mat = Visual(np.array(_MAT), place, self.mat_color)
        return [("", mat), (_BODY, Visual(np.full(3, self.edge / 2), np.eye(4), self.color))]

    def progress(self, simulation: Simulation) -> Progress:
        """Lies on the mat, and let go of; `distance` is that of the centres."""
        cube, held, grasps = simulation.things[0], simulation.held, simulation.grasps
        distance = float(np.linalg.norm(cube[:2] - self.mat))
        lies = cube[2] < simulation.robot.workspace.table_height + self.edge / 2 + _LIES
        success = bool(distance < _PLACED and lies and not held)
        failure = "not released" if held else "misplaced" if any(grasps.values()) else "not grasped"
        return Progress(success, distance, failure, held, grasps)

    def plan(self, simulation: Simulation) -> NDArray[np.float64]:
        """From anywhere: with the cube in a gripper the plan begins on the way to the mat."""
        position, turn = simulation.pose(_BODY)
        quarter = np.pi / 2
        yaw = (np.arctan2(turn[1, 0], turn[0, 0]) + quarter / 2) % quarter - quarter / 2
        held = simulation.held[0] if simulation.held else ""
        return CubeExpert(simulation.robot, simulation.joints, self, position, float(yaw), held).targets


class CubeExpert(Expert):
    """Plans how one arm carries the cube, upright; the gripper takes it as it is turned."""

    def __init__(
        self, robot: RobotConfig, joints: NDArray[np.float64], task: Cube, cube: NDArray[np.float64], yaw: float,
        held: str,
    ) -> None:  # fmt: skip
        """`joints` [D] is where the robot stands, `cube` [3] and `yaw` where the cube lies; `held`: the arm with it."""
        super().__init__(robot, task.thing)
        beside = {arm: solver.beside for arm, solver in self._arms.items()}
        self._arm = arm = held or min(beside, key=lambda name: abs(beside[name] - cube[1]))
        self._task, self._table = task, robot.workspace.table_height
        # The same pitch from beginning to end, so that the cube is not tilted.
        self._look = look_at(np.array([*task.mat, self._table]), beside[arm])
        begin = joints.copy()
        self._set_gripper(begin, arm, self._closed if held else OPENED)
        rows = [begin] if held else self._take(begin, cube, yaw)
        self.targets = self._place(rows, cube - self._tool(arm, rows[-1]) if held else np.zeros(3))

    @property
    def _closed(self) -> float:
        return 1000 * self._task.edge - _PRESS

    def _take(self, begin: NDArray[np.float64], cube: NDArray[np.float64], yaw: float) -> list[NDArray[np.float64]]:
        """Over the cube, down, and closed."""
        rows = [begin]
        rows += self._to(rows[-1], np.array([*cube[:2], self._table + ABOVE]), yaw)
        rows += self._to(rows[-1], cube, yaw, _DOWN)
        return rows + self._grip(rows[-1], [self._arm], self._closed)

    def _place(self, rows: list[NDArray[np.float64]], offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """Up, over the mat, down, opened, up and home; the cube is at an `offset` [3] from the tool."""
        (tool,), (turn,) = self._arms[self._arm].forward(rows[-1][None, self._robot.slices[self._arm]])
        yaw = -_INWARDS * float(np.sign(self._arms[self._arm].beside))
        over = np.array([*(self._task.mat - offset[:2]), self._table + ABOVE])
        low = self._table + self._task.edge / 2 + _DROP - offset[2]
        if tool[2] < over[2]:
            as_it_is = float(np.arctan2(-turn[0, 1], turn[1, 1]))
            rows += self._to(rows[-1], np.array([*tool[:2], over[2]]), as_it_is, _DOWN)
        rows += self._to(rows[-1], over, yaw)
        rows += self._to(rows[-1], np.array([*over[:2], low]), yaw, _DOWN)
        rows += self._grip(rows[-1], [self._arm], OPENED)
        rows += self._to(rows[-1], over, yaw, _DOWN)
        return np.array(rows + self._home(rows[-1]))

    def _to(
        self, start: NDArray[np.float64], goal: NDArray[np.float64], yaw: float, seconds: float = 0.0
    ) -> list[NDArray[np.float64]]:
        """Straight to a goal [3], in so many seconds or at its pace, while the gripper turns to a yaw."""
        way = float(np.linalg.norm(goal - self._tool(self._arm, start)))
        c, s = np.cos(yaw), np.sin(yaw)
        facing = np.array([self._look, [0.0, 1.0, 0.0]]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return self._line(start, {self._arm: goal}, seconds or _SLOW + way / _PACE, facing)
