"""What a seed varies, and by how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Level = Literal["none", "towel", "full"]
LEVELS: tuple[Level, ...] = get_args(Level)

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Conditions:
    """One drawing: lengths in m, angles in rad, colours in 0..1.

    Attributes:
        towel_center: x, y in base_link.
        towel_yaw: about z.
        towel_size: edge length.
        towel_color: and that of its hem.
        towel_stripes: width of stripes, 0: none.
        table_color: two colours of its texture.
        table_texture: edge length of the texture's squares, 0: plain.
        light: direction the light comes from, and its share; the rest is ambient light.
        camera_shift: of each camera in its own frame, [3, 6] m and rad; a fourth camera has the first one's, and so on.
        friction: of towel and table.
        servo_lag: s, time constant of the joints' controller.
        start_noise: rad, added to the start pose of each arm joint, [12].
    """

    towel_center: tuple[float, float] = (0.50, 0.0)
    towel_yaw: float = 0.0
    towel_size: float = 0.28
    towel_color: tuple[Color, Color] = ((0.85, 0.3, 0.25), (0.5, 0.15, 0.12))
    towel_stripes: float = 0.0
    table_color: tuple[Color, Color] = ((0.72, 0.62, 0.48), (0.66, 0.56, 0.43))
    table_texture: float = 0.0
    light: tuple[Color, float] = ((0.3, 0.2, 0.93), 0.55)
    camera_shift: NDArray[np.float64] | None = None
    friction: float = 0.8
    servo_lag: float = 0.04
    start_noise: NDArray[np.float64] | None = None


def draw(seed: int, level: Level = "full") -> Conditions:
    """The conditions of a seed.

    `none` varies nothing, `towel` its place and the arms' start, `full` also size, colours, texture, light, cameras,
    friction and the servos. A seed's towel lies in the same place in `towel` and `full`.
    """
    if level == "none":
        return Conditions()
    random = np.random.default_rng(seed)
    center = np.array([0.50, 0.0]) + random.uniform(-0.05, 0.05, 2)
    yaw = np.deg2rad(random.uniform(-15, 15))
    noise = random.normal(0, 0.02, 12).clip(-0.05, 0.05)
    placed = Conditions(towel_center=(float(center[0]), float(center[1])), towel_yaw=float(yaw), start_noise=noise)
    if level == "towel":
        return placed
    color = _color(random, 0.25, 0.95)
    table = _color(random, 0.35, 0.8)
    elevation, azimuth = np.deg2rad(random.uniform(35, 85)), random.uniform(0, 2 * np.pi)
    direction = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    shift = random.normal(0, 1, (3, 6)) * [0.004, 0.004, 0.004, 0.01, 0.01, 0.01]
    return replace(
        placed,
        towel_size=float(random.uniform(0.26, 0.30)),
        towel_color=(color, _scaled(color, 0.6)),
        towel_stripes=float(random.choice([0.0, 0.0, 0.028, 0.056])),
        table_color=(table, _scaled(table, random.uniform(0.8, 1.0))),
        table_texture=float(random.choice([0.0, 0.03, 0.08])),
        light=((float(direction[0]), float(direction[1]), float(direction[2])), float(random.uniform(0.35, 0.65))),
        camera_shift=shift,
        friction=float(random.uniform(0.6, 1.0)),
        servo_lag=float(random.uniform(0.025, 0.06)),
    )


def _color(random: np.random.Generator, low: float, high: float) -> Color:
    red, green, blue = random.uniform(low, high, 3)
    return float(red), float(green), float(blue)


def _scaled(color: Color, by: float) -> Color:
    return color[0] * by, color[1] * by, color[2] * by
