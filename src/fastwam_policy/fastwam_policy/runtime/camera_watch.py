"""Watchdogs of the cameras: pictures that stay the same while arms move, and pictures that show nothing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels
from fastwam_policy.runtime.reasons import PolicyReason
from galaxea_r1lite_bridge.robot.config import RobotConfig

Vector = NDArray[np.float64]

_SECOND = 1_000_000_000
_SAME = 5  # pictures: fewer may be a camera that sends one twice
_BUFFERS = 8  # pictures that a driver may send in turn, when all of them are old
_CARRIED, _SEEN = 0.05, 0.2  # rad that the arm with the camera, or any arm before one that stands, must have moved
_DARK, _DARK_SHARE = 8, 0.99  # of 255, and of the pixels
_LOOKED_AT = 64  # pixels of the shorter side, at least: what is dark is so at each scale


class CameraReaction(Enum):
    """What a camera's watchdog does."""

    OFF = "off"
    HOLD = "hold"
    """No chunks until the condition is over."""
    FAULT = "fault"
    """No chunks until the policy is started again; a task ends."""


@dataclass(frozen=True)
class CameraWatchdog:
    """Limit of one watchdog, s, and its reaction when that is passed."""

    limit: float
    reaction: CameraReaction


@dataclass(frozen=True)
class CameraFinding:
    """A limit that is passed now."""

    reason: PolicyReason
    reaction: CameraReaction
    detail: str


class CameraWatch:
    """Looks at the bytes of every picture that comes, and at the pixels of those that are used. Thread-safe.

    Args:
        robot: which arm carries which camera.
        frozen: its limit is the time for which pictures may stay the same.
        blind: its limit is the time for which pictures may show nothing.
    """

    def __init__(self, robot: RobotConfig, frozen: CameraWatchdog, blind: CameraWatchdog) -> None:
        self._frozen, self._blind = frozen, blind
        self._lock = threading.Lock()
        arms = tuple(robot.workspace.arms)
        self._pictures = {
            name: _Pictures((camera.moves_with,), _CARRIED) if camera.moves_with else _Pictures(arms, _SEEN)
            for name, camera in robot.cameras.items()
        }
        self._dark_ns: dict[str, tuple[int, int]] = {}  # stamps of the first and the last one in a row that is blind

    def arrived(self, camera: str, stamp_ns: int, likeness: int, joints: Mapping[str, Vector]) -> None:
        """A picture came.

        Args:
            camera: whose.
            stamp_ns: its stamp.
            likeness: its fingerprint.
            joints: newest positions by joint group, rad.
        """
        with self._lock:
            self._pictures[camera].add(stamp_ns, likeness, joints)

    def shows_something(self, camera: str, stamp_ns: int, pixels: Pixels) -> bool:
        """Whether a picture may be acted on, as far as its pixels say."""
        blind = self._blind.reaction != CameraReaction.OFF and is_blind(pixels)
        with self._lock:
            first, last = self._dark_ns.get(camera, (stamp_ns, stamp_ns))
            if blind:
                self._dark_ns[camera] = (min(first, stamp_ns), max(last, stamp_ns))
            elif stamp_ns > last:
                self._dark_ns.pop(camera, None)
        return not blind

    def finding(self) -> CameraFinding | None:
        """A limit that is passed now."""
        with self._lock:
            for camera, (first, last) in self._dark_ns.items():
                if (seconds := (last - first) / _SECOND) >= self._blind.limit:
                    return CameraFinding(PolicyReason.CAMERA_BLIND, self._blind.reaction, f"{camera}, {seconds:.1f} s")
            if self._frozen.reaction != CameraReaction.OFF:
                for camera, pictures in self._pictures.items():
                    if camera in self._dark_ns:  # it will be called blind
                        continue
                    if pictures.count >= _SAME and pictures.seconds >= self._frozen.limit and pictures.must_differ:
                        text = f"{camera}, for {pictures.seconds:.1f} s while an arm moved {pictures.moved:.2f} rad"
                        return CameraFinding(PolicyReason.CAMERA_FROZEN, self._frozen.reaction, text)
        return None

    def clear(self) -> None:
        """Forget which pictures were blind: the next one is of another time."""
        with self._lock:
            self._dark_ns.clear()


class _Pictures:
    """The pictures of one camera since the last one that was unlike those before it.

    Attributes:
        count: how many.
        moved: rad, the way of the joint that moved most meanwhile.
    """

    def __init__(self, arms: tuple[str, ...], least: float) -> None:
        self._arms, self._least = arms, least
        self._recent: deque[int] = deque(maxlen=_BUFFERS)
        self._first_ns = self._newest_ns = self.count = 0
        self._before: Vector | None = None
        self._span: Vector | None = None

    def add(self, stamp_ns: int, likeness: int, joints: Mapping[str, Vector]) -> None:
        # A picture shows where an arm was before it was taken and sent: what moved up to the picture before it counts.
        moved, self._before = self._before, np.concatenate([joints.get(arm, np.empty(0)) for arm in self._arms])
        if likeness not in self._recent or stamp_ns < self._newest_ns:
            self._first_ns, self.count, self._span = stamp_ns, 0, None
        elif moved is not None:
            span = self._span if self._span is not None and self._span.shape[1:] == moved.shape else [moved, moved]
            self._span = np.array([np.minimum(span[0], moved), np.maximum(span[1], moved)])
        self._recent.append(likeness)
        self._newest_ns = stamp_ns
        self.count += 1

    @property
    def seconds(self) -> float:
        return (self._newest_ns - self._first_ns) / _SECOND

    @property
    def moved(self) -> float:
        return 0.0 if self._span is None else float(np.max(self._span[1] - self._span[0], initial=0.0))

    @property
    def must_differ(self) -> bool:
        return self.moved > self._least


def is_blind(pixels: Pixels) -> bool:
    """Whether a picture [H, W, 3] shows nothing: 99 % of its pixels are below 8 of 255, or all are equal."""
    step = max(1, min(pixels.shape[:2]) // _LOOKED_AT)
    some = np.ascontiguousarray(pixels[::step, ::step])
    low = some < _DARK
    dark = low[..., 0] & low[..., 1] & low[..., 2]
    if np.count_nonzero(dark) >= _DARK_SHARE * dark.size:
        return True
    return all((part == part[0, 0]).all() for part in (some[::8, ::8], some, pixels))  # mostly the first says it
