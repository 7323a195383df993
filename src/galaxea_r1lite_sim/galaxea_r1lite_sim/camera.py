"""The robot's cameras without a GPU: a small rasteriser for the scene's primitives and a cloth.

It needs no OpenGL, so the images are the same on every machine. There are no shadows and no reflections; triangles
nearer than 2 cm are left out. A little noise, as of a sensor, depends on the time alone: no two pictures in a row are
equal, and equal simulations give equal pictures.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.kinematics import rpy_rotation
from galaxea_r1lite_sim.scene import TABLE_CENTER, TABLE_HALF, TIMESTEP
from galaxea_r1lite_sim.shapes import Visual, link_visuals
from galaxea_r1lite_sim.simulation import Simulation

Pixels = NDArray[np.uint8]

_BACKGROUND = (0.55, 0.57, 0.60)
_NEAR = 0.02  # m
_ROUND = 14  # sides of a cylinder
_CELL = 0.05  # m, of the table's mesh: a triangle that reaches behind a camera is left out whole
_THICKNESS = 0.03  # m of the table top
_NOISE = 1.5  # of 255, standard deviation
_SHIFTS = (61, 64)  # pixels, rows and columns by which one field of noise is moved from one time to another
_PLAIN, _CHECKED, _STRIPED = 0, 1, 2
_WORLD = ""  # where a body would be named: it stands still


@dataclass(frozen=True)
class Mesh:
    """Triangles of one body: `points` [N, 3], `faces` [M, 3], `color` [M, 3], texture coordinates [N, 2] in m."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]
    color: NDArray[np.float64]
    coordinates: NDArray[np.float64]


def jpeg(image: Pixels, quality: int) -> bytes:
    """An RGB image as a camera's driver sends it."""
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


class Cameras:
    """Renders one simulation. Images are RGB uint8 [height, width, 3]."""

    def __init__(self, simulation: Simulation, height: int = 180, width: int = 320) -> None:
        self._simulation, self._size = simulation, (height, width)
        self._mounts = simulation.robot.mounts
        self.names = list(self._mounts)
        """Of the cameras that can be rendered."""
        conditions, table = simulation.conditions, simulation.robot.workspace.table_height
        self._cloth_seen = seen = conditions.task.cloth
        meshes, solids = _robot_meshes(simulation.robot), conditions.task.solids(table)
        self._bodies = [*meshes, _WORLD, *(body for body, _ in solids)]
        top = len(meshes)
        rigid = [*meshes.values(), _table(table, conditions.table_color[0]), *(_mesh(visual) for _, visual in solids)]
        self._points = np.concatenate([mesh.points for mesh in rigid])
        self._body = np.repeat(np.arange(len(rigid)), [len(mesh.points) for mesh in rigid])
        starts = np.cumsum([0, *(len(mesh.points) for mesh in rigid)])
        cloth = _cloth_faces(seen.vertices) + starts[-1]
        self._faces = np.concatenate([*(m.faces + s for m, s in zip(rigid, starts, strict=False)), cloth])
        ends = np.cumsum([len(mesh.faces) for mesh in rigid])
        count = len(self._faces)
        self._cloth = slice(ends[-1], count)
        self._texture = np.zeros(count, np.int64)
        self._texture[ends[top - 1] : ends[top]] = _CHECKED if conditions.table_texture else _PLAIN
        self._texture[self._cloth] = _STRIPED
        self._color = np.concatenate([*(mesh.color for mesh in rigid), np.tile(seen.color[0], (len(cloth), 1))])
        self._second = np.tile(np.array(conditions.table_color[1]), (count, 1))
        self._second[self._cloth] = seen.color[1]
        flat = np.stack(np.meshgrid(*[np.linspace(0, seen.size, seen.vertices)] * 2, indexing="ij"), axis=-1)
        self._coordinates = np.concatenate([*(mesh.coordinates for mesh in rigid), flat.reshape(-1, 2)])
        direction, share = conditions.light
        field = (height + _SHIFTS[0], width + _SHIFTS[1], 3)
        self._noise = np.random.default_rng(0).normal(0.0, _NOISE, field).astype(np.float32)
        self._light, self._share = np.array(direction) / np.linalg.norm(direction), share

    def render(self, camera: str) -> Pixels:
        """Image of one of the :attr:`names` as the scene is now."""
        world = self._world()
        points = world[self._faces]
        normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        position, turn = self._pose(camera)
        facing = np.einsum("ij,ij->i", normals, position - points[:, 0])
        normals[self._cloth] *= np.where(facing[self._cloth] < 0, -1.0, 1.0)[:, None]  # seen from both sides
        shade = (1 - self._share) + self._share * np.clip(normals @ self._light, 0, 1)
        seen = (world - position) @ turn  # optical frame: x right, y down, z ahead
        height, width = self._size
        focal = height / 2 / np.tan(np.deg2rad(self._mounts[camera].field_of_view) / 2)
        inverse = 1 / np.maximum(seen[:, 2], 1e-6)
        inside = seen[:, 2] > _NEAR
        drawn = inside[self._faces].all(axis=1)
        drawn &= facing > 0
        drawn[self._cloth] = inside[self._faces[self._cloth]].all(axis=1)
        image = np.empty((height, width, 3))
        image[:] = _BACKGROUND
        conditions = self._simulation.conditions
        _rasterise(
            width / 2 + focal * seen[:, 0] * inverse, height / 2 + focal * seen[:, 1] * inverse, inverse,
            self._coordinates, self._faces[drawn], self._color[drawn] * shade[drawn, None],
            self._second[drawn] * shade[drawn, None], self._texture[drawn],
            max(conditions.table_texture, 1e-3), self._cloth_seen.stripes, self._cloth_seen.size, image,
        )  # fmt: skip
        step = round(self._simulation.time / TIMESTEP)
        down, right = (step * 37 + self.names.index(camera)) % _SHIFTS[0], step * 29 % _SHIFTS[1]
        noise = self._noise[down : down + height, right : right + width]
        return (255 * image + noise).clip(0, 255).astype(np.uint8)

    def _world(self) -> NDArray[np.float64]:
        still = np.zeros(3), np.eye(3)
        poses = [still if body == _WORLD else self._simulation.pose(body) for body in self._bodies]
        positions, turns = (np.array(values) for values in zip(*poses, strict=True))
        rigid = np.einsum("nij,nj->ni", turns[self._body], self._points) + positions[self._body]
        return np.concatenate([rigid, self._simulation.things[: self._cloth_seen.vertices**2]])

    def _pose(self, camera: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        position, turn = self._simulation.pose(self._mounts[camera].link)
        shift = self._simulation.conditions.camera_shift
        if shift is not None:
            own = shift[self.names.index(camera) % len(shift)]
            position, turn = position + turn @ own[:3], turn @ rpy_rotation(own[3:])
        return position, turn


def not_rendered(robot: RobotConfig, cameras: Iterable[str]) -> list[str]:
    """A line for each of these cameras that the simulator cannot render."""
    return [
        f"the simulator cannot render camera {name}: add cameras.{name}.mount (link, field_of_view) to the robot's YAML"
        for name in cameras
        if name not in robot.mounts
    ]


def _robot_meshes(robot: RobotConfig) -> dict[str, Mesh]:
    """What the URDF shows of each link."""
    meshes = {}
    cameras = {mount.link for mount in robot.mounts.values()}
    for link, visuals in link_visuals(ElementTree.parse(robot.urdf_path).getroot()).items():
        if link in cameras:
            continue  # a camera does not see the box that stands for itself
        parts = [_mesh(visual) for visual in visuals]
        starts = np.cumsum([0, *(len(part.points) for part in parts)])
        meshes[link] = Mesh(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.color for part in parts]),
            np.concatenate([part.coordinates for part in parts]),
        )
    return meshes


def _mesh(visual: Visual) -> Mesh:
    points, faces = _box(visual.half) if len(visual.half) == 3 else _cylinder(*visual.half)
    color = np.tile(visual.color, (len(faces), 1))
    return Mesh(points @ visual.place[:3, :3].T + visual.place[:3, 3], faces, color, np.zeros((len(points), 2)))


def _box(half: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    points = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return points, np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])


def _cylinder(radius: float, half: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    angle = np.linspace(0, 2 * np.pi, _ROUND, endpoint=False)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    points = [np.c_[ring, np.full(_ROUND, z)] for z in (-half, half)] + [np.array([[0, 0, -half], [0, 0, half]])]
    faces = []
    for k in range(_ROUND):
        n = (k + 1) % _ROUND
        faces += [(k, n, _ROUND + n), (k, _ROUND + n, _ROUND + k)]
        faces += [(2 * _ROUND, n, k), (2 * _ROUND + 1, _ROUND + k, _ROUND + n)]
    return np.concatenate(points), np.array(faces)


def _table(height: float, color: tuple[float, float, float]) -> Mesh:
    """The top as a grid, and the front edge."""
    shape = [round(2 * half / _CELL) + 1 for half in TABLE_HALF]
    axes = [np.linspace(c - h, c + h, n) for c, h, n in zip(TABLE_CENTER, TABLE_HALF, shape, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    index = np.arange(len(grid)).reshape(shape)
    faces = _grid_faces(index)
    edge = np.array([[axes[0][0], y, z] for y in axes[1] for z in (height, height - _THICKNESS)])
    strip = np.arange(len(edge)).reshape(-1, 2) + len(grid)
    points = np.concatenate([np.c_[grid, np.full(len(grid), height)], edge])
    faces = np.concatenate([faces, _grid_faces(strip)])
    colors = np.tile(color, (len(faces), 1))
    colors[-2 * (len(strip) - 1) :] *= 0.7
    return Mesh(points, faces, colors, points[:, :2])


def _cloth_faces(vertices: int) -> NDArray[np.int64]:
    return _grid_faces(np.arange(vertices**2).reshape(vertices, vertices))


def _grid_faces(index: NDArray[np.int64]) -> NDArray[np.int64]:
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _rasterise(x, y, inverse, coordinates, faces, first, second, texture, square, stripe, size, image):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Draw `faces` [M, 3] over points at pixel (x, y) with 1/depth `inverse`, textures in perspective."""
    height, width = image.shape[:2]
    nearest = np.zeros((height, width))
    hem = 0.06 * size
    for f in range(len(faces)):
        a, b, c = faces[f]
        area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.ceil(min(x[a], x[b], x[c]) - 0.5)))
        right = min(width - 1, int(np.floor(max(x[a], x[b], x[c]) - 0.5)))
        top = max(0, int(np.ceil(min(y[a], y[b], y[c]) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y[a], y[b], y[c]) - 0.5)))
        for row in range(top, bottom + 1):
            py = row + 0.5
            for column in range(left, right + 1):
                px = column + 0.5
                wa = ((x[b] - px) * (y[c] - py) - (x[c] - px) * (y[b] - py)) / area
                wb = ((x[c] - px) * (y[a] - py) - (x[a] - px) * (y[c] - py)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                near = wa * inverse[a] + wb * inverse[b] + wc * inverse[c]
                if near <= nearest[row, column]:
                    continue
                nearest[row, column] = near
                other = False
                if texture[f] != 0:
                    ia, ib, ic = wa * inverse[a] / near, wb * inverse[b] / near, wc * inverse[c] / near
                    u = ia * coordinates[a, 0] + ib * coordinates[b, 0] + ic * coordinates[c, 0]
                    v = ia * coordinates[a, 1] + ib * coordinates[b, 1] + ic * coordinates[c, 1]
                    if texture[f] == 1:
                        other = (int(np.floor(u / square)) + int(np.floor(v / square))) % 2 == 1
                    else:
                        other = u < hem or v < hem or u > size - hem or v > size - hem
                        if stripe > 0.0 and int(np.floor(u / stripe)) % 2 == 1:
                            other = not other
                for channel in range(3):
                    image[row, column, channel] = second[f, channel] if other else first[f, channel]
