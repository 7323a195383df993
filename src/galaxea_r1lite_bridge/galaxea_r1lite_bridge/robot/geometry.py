"""The boxes, cylinders and spheres that a URDF says its links occupy, and capsules that cover them."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.kinematics import Transform, origin
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Points = NDArray[np.float64]

_LARGEST_ERROR = 0.025  # m that a capsule may stand out of a box before the box is covered by more of them
_RADII = np.linspace(1.0, 1.25, 26)  # of a capsule over the least one that holds its solid: a wider one is shorter


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` m of the line from `begin` [3] to `end` [3] in a link's frame."""

    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: float

    def distance(self, points: Points) -> NDArray[np.float64]:
        """Distance [N] of points [N, 3] to the surface, m, < 0 inside."""
        along = self.end - self.begin
        length = float(along @ along)
        share = ((points - self.begin) @ along / length).clip(0, 1) if length > 0 else np.zeros(len(points))
        return np.linalg.norm(points - self.begin - share[:, None] * along, axis=1) - self.radius


@dataclass(frozen=True)
class Solid:
    """A primitive of a URDF: `box`, `cylinder` along z, or `sphere`.

    Attributes:
        kind: which.
        half: m, half the edges [3] of the box around it.
        place: pose [4, 4] in its link.
    """

    kind: str
    half: NDArray[np.float64]
    place: Transform

    def edges(self) -> list[Capsule]:
        """The four longest edges of its box in the link's frame, as capsules without a radius."""
        axis = int(self.half.argmax())
        found = []
        for signs in itertools.product((-1.0, 1.0), repeat=2):
            ends = np.insert(np.array([signs, signs]), axis, (-1.0, 1.0), axis=1) * self.half
            begin, end = self._in_link(ends)
            found.append(Capsule(begin, end, 0.0))
        return found

    def surface(self, count: int = 12) -> Points:
        """Points [N, 3] of the surface in the link's frame, its edges and corners among them."""
        across = np.linspace(-1, 1, count)
        if self.kind == "box":
            grid = np.array(list(itertools.product(across, repeat=3)))
            return self._in_link(grid[np.abs(grid).max(axis=1) == 1.0] * self.half)
        turn = np.linspace(0, 2 * np.pi, 4 * count, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        if self.kind == "sphere":
            rings = [np.c_[ring * np.sqrt(1 - z**2), np.full(len(ring), z)] for z in across]
        else:
            rings = [np.c_[ring, np.full(len(ring), z)] for z in across]
            rings += [np.c_[ring * share, np.full(len(ring), z)] for z in (-1.0, 1.0) for share in np.abs(across)]
        return self._in_link(np.concatenate(rings) * self.half)

    def _in_link(self, points: Points) -> Points:
        return points @ self.place[:3, :3].T + self.place[:3, 3]


@dataclass(frozen=True)
class Fit:
    """Capsules that hold a link's solids.

    Attributes:
        capsules: every point of the solids is inside of one of them.
        error: m, furthest that their surface is from the solids'.
        outside: m that a point of the solids is outside of them; 0, but for rounding.
    """

    capsules: list[Capsule]
    error: float
    outside: float


def link_solids(urdf: Path) -> dict[str, list[Solid]]:
    """The collision geometry of each link that has one.

    Raises:
        ConfigError: it is a mesh.
    """
    root = ElementTree.parse(urdf).getroot()
    found: dict[str, list[Solid]] = {}
    for link in root.iterfind("link"):
        for element in link.iterfind("collision"):
            found.setdefault(link.attrib["name"], []).append(_solid(element, link.attrib["name"], urdf.name))
    return found


def fit(solids: list[Solid]) -> Fit:
    """The fewest capsules that hold these solids and stand out of a box by no more than 25 mm along its axis."""
    capsules = [capsule for solid in solids for capsule in _cover(solid)]
    surface = np.concatenate([solid.surface() for solid in solids])
    outside = np.min([capsule.distance(surface) for capsule in capsules], axis=0).max()
    error = max(_standing_out(capsule, solids) for capsule in capsules)
    return Fit(capsules, error, max(0.0, float(outside)))


def _solid(element: ElementTree.Element, link: str, source: str) -> Solid:
    place = origin(element.find("origin"))
    for kind in ("box", "cylinder", "sphere"):
        shape = element.find(f"geometry/{kind}")
        if shape is None:
            continue
        if kind == "box":
            half = np.array([float(edge) for edge in shape.attrib["size"].split()]) / 2
        else:
            radius = float(shape.attrib["radius"])
            half = np.array([radius, radius, float(shape.get("length", 2 * radius)) / 2])
        return Solid(kind, half, place)
    raise ConfigError(f"{source}: the collision geometry of {link} must be a box, a cylinder or a sphere")


def _cover(solid: Solid) -> list[Capsule]:
    """Capsules along the solid's axis; a box is cut along it into as many columns as needed."""
    if solid.kind == "sphere":
        return [Capsule(solid.place[:3, 3], solid.place[:3, 3], float(solid.half[0]))]
    if solid.kind == "cylinder":
        return [_capsule(solid, 2, np.zeros(3), float(solid.half[0]), float(solid.half[2]))]
    axis = int(solid.half.argmax())
    first, second = (k for k in range(3) if k != axis)
    parts = {first: 1, second: 1}
    while True:
        cell = {k: solid.half[k] / parts[k] for k in parts}
        radius = float(np.hypot(*cell.values()))
        widest = max(cell, key=cell.__getitem__)
        if radius - min(cell.values()) <= _LARGEST_ERROR:
            break
        parts[widest] += 1
    found = []
    for i, j in itertools.product(range(parts[first]), range(parts[second])):
        center = np.zeros(3)
        center[first] = (2 * i + 1) * cell[first] - solid.half[first]
        center[second] = (2 * j + 1) * cell[second] - solid.half[second]
        found.append(_capsule(solid, axis, center, radius, float(solid.half[axis])))
    return found


def _capsule(solid: Solid, axis: int, center: NDArray[np.float64], least: float, half: float) -> Capsule:
    """The capsule of the smallest volume that holds a column of radius `least` and half length `half`."""
    radii = least * _RADII
    lengths = np.maximum(half - np.sqrt(radii**2 - least**2), 0.0)
    holds = (half - lengths) ** 2 + least**2 <= radii**2 + 1e-12
    volumes = np.where(holds, 2 * lengths * radii**2 + 4 / 3 * radii**3, np.inf)
    best = int(volumes.argmin())
    along = np.zeros(3)
    along[axis] = lengths[best]
    ends = np.stack([center - along, center + along]) @ solid.place[:3, :3].T + solid.place[:3, 3]
    return Capsule(ends[0], ends[1], float(radii[best]))


def _standing_out(capsule: Capsule, solids: list[Solid]) -> float:
    """Furthest that a point of the capsule's surface is from the solids, m."""
    along = capsule.end - capsule.begin
    turn = np.array(list(itertools.product(np.linspace(0, 2 * np.pi, 24), np.linspace(-np.pi / 2, np.pi / 2, 13))))
    sphere = np.stack(
        [np.cos(turn[:, 0]) * np.cos(turn[:, 1]), np.sin(turn[:, 0]) * np.cos(turn[:, 1]), np.sin(turn[:, 1])], axis=1
    )
    points = np.concatenate([capsule.begin + share * along + capsule.radius * sphere for share in np.linspace(0, 1, 9)])
    points = points[capsule.distance(points) > -1e-9]
    return float(np.min([_distance(solid, points) for solid in solids], axis=0).max())


def _distance(solid: Solid, points: Points) -> NDArray[np.float64]:
    """Distance [N] of points [N, 3] in the link's frame to a solid, m, 0 inside."""
    own = (points - solid.place[:3, 3]) @ solid.place[:3, :3]
    if solid.kind == "box":
        return np.linalg.norm(np.maximum(np.abs(own) - solid.half, 0.0), axis=1)
    if solid.kind == "sphere":
        return np.maximum(np.linalg.norm(own, axis=1) - solid.half[0], 0.0)
    out = np.stack([np.hypot(own[:, 0], own[:, 1]) - solid.half[0], np.abs(own[:, 2]) - solid.half[2]], axis=1)
    return np.linalg.norm(np.maximum(out, 0.0), axis=1)
