"""What a seed varies, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_sim.shapes import Color, shaded
from galaxea_r1lite_sim.tasks import TASKS, Task, TaskName
from galaxea_r1lite_sim.tasks.fold import Fold

Level = Literal["none", "objects", "full"]
LEVELS: tuple[Level, ...] = get_args(Level)
_FOLD = Fold()


@dataclass(frozen=True)
class Conditions:
    """One drawing: lengths in m, angles in rad, colours in 0..1.

    Attributes:
        task: what is to be done, with its things.
        table_color: two colours of its texture.
        table_texture: edge length of the texture's squares, 0: plain.
        light: direction the light comes from, and its share; the rest is ambient light.
        camera_shift: of each camera in its own frame, [3, 6] m and rad; a fourth camera has the first one's, and so on.
        friction: of the table and what lies on it.
        servo_lag: s, time constant of the joints' controller.
        start_noise: rad, added to the start pose of each arm joint, [12].
    """

    task: Task = _FOLD
    table_color: tuple[Color, Color] = ((0.72, 0.62, 0.48), (0.66, 0.56, 0.43))
    table_texture: float = 0.0
    light: tuple[Color, float] = ((0.3, 0.2, 0.93), 0.55)
    camera_shift: NDArray[np.float64] | None = None
    friction: float = 0.8
    servo_lag: float = 0.04
    start_noise: NDArray[np.float64] | None = None


def draw(seed: int, level: Level = "full", task: TaskName = "fold") -> Conditions:
    """The conditions of a seed.

    `none` varies nothing, `objects` their places and the arms' start, `full` also their look, the table's, light,
    cameras, friction and the servos. A seed's objects lie in the same places in `objects` and `full`.

    Raises:
        ValueError: there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"randomization must be one of {', '.join(LEVELS)}, got {level!r}")
    if level == "none":
        return Conditions(TASKS[task]())
    random = np.random.default_rng(seed)
    things = TASKS[task].placed(random)
    placed = Conditions(things, start_noise=random.normal(0, 0.02, 12).clip(-0.05, 0.05))
    if level == "objects":
        return placed
    color = _color(random, 0.25, 0.95)
    table = _color(random, 0.35, 0.8)
    elevation, azimuth = np.deg2rad(random.uniform(35, 85)), random.uniform(0, 2 * np.pi)
    direction = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    shift = random.normal(0, 1, (3, 6)) * [0.004, 0.004, 0.004, 0.01, 0.01, 0.01]
    return replace(
        placed,
        task=things.varied(random, color),
        table_color=(table, shaded(table, random.uniform(0.8, 1.0))),
        table_texture=float(random.choice([0.0, 0.03, 0.08])),
        light=((float(direction[0]), float(direction[1]), float(direction[2])), float(random.uniform(0.35, 0.65))),
        camera_shift=shift,
        friction=float(random.uniform(0.6, 1.0)),
        servo_lag=float(random.uniform(0.025, 0.06)),
    )


def _color(random: np.random.Generator, low: float, high: float) -> Color:
    red, green, blue = random.uniform(low, high, 3)
    return float(red), float(green), float(blue)
