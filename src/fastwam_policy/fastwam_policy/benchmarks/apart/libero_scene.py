"""What LIBERO's expert knows of the scene: where things are, which room they take, and where the gripper is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

_AROUND = 16  # points on a circle
_FAR = 0.5  # m: what is farther away than this is no obstacle
_SURFACES = ("table", "floor")  # parts of names: what things stand on
_ROBOT = ("robot0", "gripper0", "mount0")
_BASE, _TOOL = "robot0_link0", "gripper0_grip_site"
_FLAT = 0.05  # m, half of the side of a place that has no shape

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """An obstacle: a box from `low` [3] to `high` [3] in a frame at `origin` [3] with the axes `axes` [3, 3]."""

    origin: Vectors
    axes: Vectors
    low: Vectors
    high: Vectors


class Scene:
    """A view of a running environment; all in m, in the world's frame."""

    def __init__(self, env: Any) -> None:
        self._env = env.env
        self._model, self._data = env.sim.model._model, env.sim.data._data  # noqa: SLF001  mujoco's own, behind a wrapper
        self._tool = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, _TOOL)

    @property
    def tool(self) -> Vectors:
        """The point [3] between the fingertips."""
        return np.array(self._data.site_xpos[self._tool])

    @property
    def tool_axes(self) -> Vectors:
        """Its axes [3, 3]: the fingers close along x, z looks out of the hand."""
        return np.array(self._data.site_xmat[self._tool]).reshape(3, 3)

    @property
    def base(self) -> Vectors:
        """Where the arm stands."""
        return np.array(self._data.body(_BASE).xpos)

    def goals(self) -> list[list[str]]:
        """What is to be reached: words such as [on, bowl, plate]."""
        return [list(goal) for goal in self._env.parsed_problem["goal_state"]]

    def is_reached(self, goal: list[str]) -> bool:
        """Whether one of the goals is reached, as LIBERO's own test says."""
        return bool(self._env._eval_predicate(goal))  # noqa: SLF001  of which the public test is made

    def is_held(self, name: str) -> bool:
        """Whether both fingers touch a thing."""
        thing, robot = self._env.objects_dict.get(name), self._env.robots[0]
        return thing is not None and bool(self._env._check_grasp(robot.gripper, thing))  # noqa: SLF001  robosuite's own

    def position(self, name: str) -> Vectors:
        """Where a thing or a place is."""
        body = self._env.obj_body_id.get(name)
        return np.array(self._data.site(name).xpos if body is None else self._data.xpos[body])

    def points(self, name: str) -> Vectors:
        """Points [N, 3] that span what of a thing touches others; of a mere place, a square."""
        body = self._env.obj_body_id.get(name)
        if body is None:
            square = np.array([[x, y, 0.0] for x in (-_FLAT, _FLAT) for y in (-_FLAT, _FLAT)])
            return self.position(name) + square
        own = self._below(body)
        parts = [
            _points(self._model, geom) @ self._axes(geom).T + self._data.geom_xpos[geom]
            for geom in self._solid()
            if self._model.geom_bodyid[geom] in own
        ]
        return np.concatenate(parts)

    def obstacles(self, taken: str) -> list[Box]:
        """All that stands around, except the thing that is to be taken."""
        own = self._below(self._env.obj_body_id[taken])
        boxes = []
        for geom in self._solid():
            body = self._model.geom_bodyid[geom]
            name = self._model.body(body).name
            if body in own or body == 0 or name.startswith(_ROBOT) or any(word in name for word in _SURFACES):
                continue
            points = _points(self._model, geom)
            place = np.array(self._data.geom_xpos[geom])
            boxes.append(Box(place, self._axes(geom), points.min(axis=0), points.max(axis=0)))
        return boxes

    def _axes(self, geom: int) -> Vectors:
        return np.array(self._data.geom_xmat[geom]).reshape(3, 3)

    def _solid(self) -> list[int]:
        """Geoms that touch others."""
        model = self._model
        return [k for k in range(model.ngeom) if model.geom_contype[k] or model.geom_conaffinity[k]]

    def _below(self, body: int) -> set[int]:
        """A body and all that hangs on it."""
        found = {body}
        for child in range(body + 1, self._model.nbody):  # parents come first
            if self._model.body_parentid[child] in found:
                found.add(child)
        return found


def clearance(boxes: list[Box], points: Vectors, most: float) -> float:
    """Smallest distance from any of the points [N, 3] to any box, at most `most`."""
    nearest, middle = most, points.mean(axis=0)
    for box in boxes:
        if np.linalg.norm(box.origin - middle) > _FAR:
            continue
        inside = (points - box.origin) @ box.axes
        outside = np.maximum(0.0, np.maximum(box.low - inside, inside - box.high))
        nearest = min(nearest, float(np.linalg.norm(outside, axis=1).min()))
    return nearest


def rotation_vector(quaternion: Vectors) -> Vectors:
    """Axis times angle [3] of a quaternion (x, y, z, w), as LIBERO's policies have it: its angle goes up to 2 pi."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = math.sqrt(1.0 - w * w)
    if sine == 0.0:
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * (2.0 * math.acos(w) / sine)


def _points(model: Any, geom: int) -> Vectors:
    """Points [N, 3] that span a geom, in its own frame."""
    kind, size = model.geom_type[geom], np.array(model.geom_size[geom])
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        begin = model.mesh_vertadr[mesh]
        return np.array(model.mesh_vert[begin : begin + model.mesh_vertnum[mesh]], np.float64)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        turn = np.linspace(0.0, 2 * np.pi, _AROUND, endpoint=False)
        circle = size[0] * np.column_stack([np.cos(turn), np.sin(turn)])
        return np.concatenate([np.column_stack([circle, np.full(_AROUND, z)]) for z in (-size[1], size[1])])
    half = {
        mujoco.mjtGeom.mjGEOM_BOX: size,
        mujoco.mjtGeom.mjGEOM_ELLIPSOID: size,
        mujoco.mjtGeom.mjGEOM_SPHERE: size[[0, 0, 0]],
        mujoco.mjtGeom.mjGEOM_CAPSULE: size[[0, 0, 0]] + np.array([0.0, 0.0, size[1]]),
    }.get(kind)
    if half is None:  # a plane
        return np.zeros((1, 3))
    return half * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
