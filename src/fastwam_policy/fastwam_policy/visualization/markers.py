"""Marker messages for RViz: predicted and executed paths, the arms at the end of a chunk, the nearest pair, text.

Every marker has a lifetime, so that nothing stays on the screen when its source falls silent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion, Vector3
from nav_msgs.msg import Path
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker

from fastwam_policy.visualization.scene import Bar
from galaxea_r1lite_bridge.execution.workspace import Nearest
from galaxea_r1lite_bridge.nodes.conversions import duration_message

_LIFETIME = duration_message(1_500_000_000)  # as long as a chunk is followed at most
_EARLY, _LATE = np.array([0.13, 0.75, 0.95]), np.array([0.95, 0.25, 0.55])  # colours of a chunk's first and last step
_EXECUTED, _REPLACED, _COMMITTED = (0.95, 0.8, 0.2, 1.0), (0.6, 0.6, 0.6, 0.6), (1.0, 1.0, 1.0, 1.0)
_ALARM = (1.0, 0.4, 0.3, 1.0)
_GHOST, _TABLE, _BOX = (0.4, 0.8, 1.0, 0.15), (0.6, 0.5, 0.4, 0.3), (0.5, 0.5, 0.5, 0.6)
_WIDTH, _THIN, _HAIR = 0.01, 0.004, 0.002  # m
_FINGERS = (0.006, 0.011, 0.016, 0.022)  # m, size of a step's dot from a closed gripper to an open one
_TEXT_SIZE, _TEXT_AT, _SMALL_TEXT = 0.06, (0.3, 0.0, 1.62), 0.03  # m
_SPACE = 0.5  # width of a space over the size of its text; without it RViz takes that of a text of 1 m
_ALIGNED = 1e-9  # m: a bar of no length, or along z


class MarkerFactory:
    """Makes markers in one frame with one stamp.

    Args:
        frame: frame of all points.
        stamp: time that the markers are of.
    """

    def __init__(self, frame: str, stamp: Time) -> None:
        self._header = Header(frame_id=frame, stamp=stamp)

    def predicted(self, arm: int, points: NDArray[np.float64], openness: NDArray[np.float64]) -> list[Marker]:
        """A chunk's tool path [H, 3], coloured by time; the dot of each step is the larger the more the gripper opens.

        `openness` is 0..1. A list of spheres has one size: there is one for each of `_FINGERS`.
        """
        share = np.linspace(0, 1, len(points))[:, None]
        colors = [_color((*rgb, 1.0)) for rgb in (1 - share) * _EARLY + share * _LATE]
        line = self._line("predicted", arm, points, _WIDTH)
        line.colors = colors
        sizes = np.rint(np.clip(openness, 0, 1) * (len(_FINGERS) - 1)).astype(int)
        dots = []
        for number, size in enumerate(_FINGERS):
            dot = self._marker("gripper", len(_FINGERS) * arm + number, Marker.SPHERE_LIST)
            steps = np.flatnonzero(sizes == number)
            if not len(steps):
                dot.action = Marker.DELETE
            dot.points, dot.colors = [line.points[k] for k in steps], [colors[k] for k in steps]
            dot.scale = _size([size] * 3)
            dots.append(dot)
        return [line, *dots]

    def executed(self, arm: int, points: NDArray[np.float64]) -> Marker:
        """Where the tool has been, [N, 3]."""
        return self._line("executed", arm, points, _WIDTH, _EXECUTED)

    def committed(self, arm: int, points: NDArray[np.float64]) -> Marker:
        """Leading steps [M, 3] of a chunk that were taken over from the plan before it."""
        return self._line("committed", arm, points, 2 * _WIDTH, _COMMITTED)

    def replaced(self, arm: int, points: NDArray[np.float64]) -> Marker:
        """The rest [M, 3] of the chunk before, which the newest one replaced."""
        return self._line("replaced", arm, points, _THIN, _REPLACED)

    def ghost(self, bars: Sequence[Bar]) -> list[Marker]:
        """Both arms at the end of a chunk."""
        markers = []
        for number, bar in enumerate(bars):
            marker = self._marker("ghost", number, Marker.CYLINDER)
            marker.pose.position, marker.pose.orientation = (
                _point((bar.begin + bar.end) / 2),
                _along(bar.end - bar.begin),
            )
            marker.scale = Vector3(x=2 * bar.radius, y=2 * bar.radius, z=float(np.linalg.norm(bar.end - bar.begin)))
            marker.color = _color(_GHOST)
            markers.append(marker)
        return markers

    def nearest(self, pair: Nearest) -> list[Marker]:
        """A line between the two bodies that are nearest to each other, and which they are; red inside the margin."""
        color = _ALARM if pair.clearance < 0 else _EXECUTED
        words = self._marker("nearest", 1, Marker.TEXT_VIEW_FACING)
        words.pose.position, words.text = _point(pair.points.mean(axis=0)), pair.text
        words.scale, words.color = _letters(_SMALL_TEXT), _color(color)
        return [self._line("nearest", 0, pair.points, _THIN, color), words]

    def workspace(self, box: NDArray[np.float64], table: float) -> list[Marker]:
        """The plane of the table at a height, and the edges of the box [2, 3] that no tool leaves, m."""
        low, high = box
        plane = self._marker("workspace", 0, Marker.CUBE)
        plane.pose.position = _point(np.array([*(low + high)[:2] / 2, table]))
        plane.scale, plane.color = _size([*(high - low)[:2], _HAIR]), _color(_TABLE)
        edges = self._marker("workspace", 1, Marker.LINE_LIST)
        corners = np.array(list(itertools.product(*box.T)))
        pairs = [(a, b) for a, b in itertools.combinations(corners, 2) if np.count_nonzero(a != b) == 1]
        edges.points, edges.color = [_point(corner) for pair in pairs for corner in pair], _color(_BOX)
        edges.scale.x = _HAIR
        return [plane, edges]

    def cleared(self) -> Marker:
        """Takes all markers away: those of a clock that stands still live on."""
        marker = self._marker("", 0, Marker.ARROW)
        marker.action = Marker.DELETEALL
        return marker

    def text(self, words: str, *, alarm: bool) -> Marker:
        """State, reason and latency above the robot."""
        marker = self._marker("status", 0, Marker.TEXT_VIEW_FACING)
        marker.pose.position, marker.text = _point(np.array(_TEXT_AT)), words
        marker.scale = _letters(_TEXT_SIZE)
        marker.color = _color(_ALARM if alarm else (1.0, 1.0, 1.0, 1.0))
        return marker

    def path(self, points: NDArray[np.float64], stamps: Sequence[Time]) -> Path:
        """A tool path [H, 3] with the time of each point."""
        poses = [PoseStamped(header=Header(frame_id=self._header.frame_id, stamp=stamp)) for stamp in stamps]
        for pose, point in zip(poses, points, strict=True):
            pose.pose.position = _point(point)
        return Path(header=self._header, poses=poses)

    def _line(
        self, namespace: str, number: int, points: NDArray[np.float64], width: float,
        color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    ) -> Marker:  # fmt: skip
        marker = self._marker(namespace, number, Marker.LINE_STRIP)
        if len(points) < 2:
            marker.action = Marker.DELETE
            return marker
        marker.points, marker.color = [_point(point) for point in points], _color(color)
        marker.scale.x = width
        return marker

    def _marker(self, namespace: str, number: int, kind: int) -> Marker:
        marker = Marker(header=self._header, ns=namespace, id=number, type=kind, action=Marker.ADD, lifetime=_LIFETIME)
        marker.pose.orientation.w = 1.0
        return marker


def _point(values: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)


def _letters(size: float) -> Vector3:
    return Vector3(x=_SPACE * size, z=size)


def _size(values: Sequence[float]) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)


def _color(rgba: Sequence[float]) -> ColorRGBA:
    r, g, b, a = (float(value) for value in rgba)
    return ColorRGBA(r=r, g=g, b=b, a=a)


def _along(direction: NDArray[np.float64]) -> Quaternion:
    """Rotation that turns z to a direction."""
    length = float(np.linalg.norm(direction))
    if length < _ALIGNED:
        return Quaternion(w=1.0)
    goal = direction / length
    axis = np.cross([0.0, 0.0, 1.0], goal)
    w = 1.0 + goal[2]
    if w < _ALIGNED:
        return Quaternion(x=1.0, w=0.0)
    x, y, z = (float(value) for value in axis / np.sqrt(float(axis @ axis) + w * w))
    return Quaternion(x=x, y=y, z=z, w=float(w / np.sqrt(float(axis @ axis) + w * w)))
