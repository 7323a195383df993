"""Boxes and cylinders, their colours, and those that the URDF gives of each link."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.kinematics import origin

Color = tuple[float, float, float]
"""Red, green, blue in 0..1."""

_GREY = "0.5 0.5 0.5 1"


@dataclass(frozen=True)
class Shape:
    """One primitive.

    Attributes:
        half: m, half the edges [3] of a box, or radius and half the length [2] of a cylinder along z.
        place: pose [4, 4] in its link.
    """

    half: NDArray[np.float64]
    place: NDArray[np.float64]

    @property
    def kind(self) -> str:
        """Box or cylinder."""
        return "box" if len(self.half) == 3 else "cylinder"

    @property
    def thickness(self) -> float:
        """Half of it, m: a cylinder's radius, half of a box's shortest edge."""
        return float(self.half.min() if self.kind == "box" else self.half[0])


@dataclass(frozen=True)
class Visual(Shape):
    """One that is seen."""

    color: Color


def shaded(color: Color, by: float) -> Color:
    """A colour with each share multiplied."""
    return color[0] * by, color[1] * by, color[2] * by


def numbers(values: Iterable[float]) -> str:
    """As MJCF has them."""
    return " ".join(f"{value:.9g}" for value in values)


def link_visuals(urdf: ElementTree.Element) -> dict[str, list[Visual]]:
    """By link, of those that show anything."""
    colors = {m.attrib["name"]: m.find("color").attrib["rgba"] for m in urdf.findall("material")}  # type: ignore[union-attr]
    found = {link.attrib["name"]: [_visual(v, colors) for v in link.findall("visual")] for link in urdf.findall("link")}
    return {name: visuals for name, visuals in found.items() if visuals}


def link_collisions(urdf: ElementTree.Element) -> dict[str, list[Shape]]:
    """By link, what of it touches other things; empty for some."""
    return {link.attrib["name"]: [_shape(each) for each in link.findall("collision")] for link in urdf.findall("link")}


def _visual(visual: ElementTree.Element, colors: dict[str, str]) -> Visual:
    shape, material = _shape(visual), visual.find("material")
    rgba = colors[material.attrib["name"]] if material is not None else _GREY
    red, green, blue = (float(v) for v in rgba.split()[:3])
    return Visual(shape.half, shape.place, (red, green, blue))


def _shape(element: ElementTree.Element) -> Shape:
    box, cylinder = element.find("geometry/box"), element.find("geometry/cylinder")
    if box is not None:
        half = np.array([float(v) for v in box.attrib["size"].split()]) / 2
    else:
        assert cylinder is not None
        half = np.array([float(cylinder.attrib["radius"]), float(cylinder.attrib["length"]) / 2])
    return Shape(half, origin(element.find("origin")))
