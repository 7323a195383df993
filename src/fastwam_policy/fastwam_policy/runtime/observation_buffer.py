"""Keeps the newest messages of every stream and picks those that belong together."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.images import ImageError
from fastwam_policy.runtime.reasons import PolicyReason
from galaxea_r1lite_bridge.execution.arrivals import Arrivals

_NS = 1_000_000_000
_FRAMES_KEPT = 8  # half a second of a 15 Hz camera
_JOINTS_KEPT = 256  # one second at 240 Hz: a frame may arrive later than the joints of its time
_FRAME_RATE, _JOINT_RATE = 60, 500  # Hz, the fastest streams of which `memory` is kept whole


@dataclass
class StreamState:
    """One stream: its newest messages and what was refused."""

    entries: deque[tuple[int, Any]]
    received: int = 0
    rejected: Counter[PolicyReason] = field(default_factory=Counter)
    skew_ns: int = 0
    """Stamp of the chosen message minus the observation's, in the last snapshot."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    refused: PolicyReason = PolicyReason.NONE
    """Why the newest message could not be used; NONE: it could."""

    def nearest(self, stamp_ns: int) -> tuple[int, Any]:
        """Entry whose stamp is nearest."""
        stamps = [entry[0] for entry in self.entries]
        place = bisect.bisect(stamps, stamp_ns)
        around = range(max(0, place - 1), min(len(stamps), place + 1))
        return self.entries[min(around, key=lambda index: abs(stamps[index] - stamp_ns))]


@dataclass(frozen=True)
class Snapshot:
    """Messages that belong together.

    Attributes:
        stamp_ns: the observation's time: the oldest of the cameras' newest stamps.
        images: (stamp, undecoded image) by camera.
        joints: positions by joint group.
    """

    stamp_ns: int
    images: dict[str, tuple[int, Any]]
    joints: dict[str, NDArray[np.float64]]

    def positions(self, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
        """Position by joint name; `names` are those of each group."""
        return {
            name: float(value)
            for group, values in self.joints.items()
            for name, value in zip(names[group], values, strict=True)
        }


@dataclass(frozen=True)
class Waiting:
    """Why there is no snapshot; with `ends`, none is waited for either."""

    reason: PolicyReason
    detail: str
    ends: bool = False


class ObservationBuffer:
    """Thread-safe; callbacks add, the inference thread samples. Stamps and `now` are ns of the node's clock."""

    def __init__(
        self,
        cameras: Iterable[str],
        joints: Iterable[str],
        max_skew: float,
        max_age: float,
        optional_cameras: Iterable[str] = (),
        memory: float = 0.0,
    ) -> None:
        """Only `cameras` and `joints` are waited for.

        Args:
            cameras: without a frame of each there is no snapshot.
            joints: joint groups.
            max_skew: s between messages of one snapshot.
            max_age: s of the observation.
            optional_cameras: those whose frame is used where there is one in time.
            memory: s for which :meth:`at` looks back.
        """
        self._cameras = list(cameras)
        self._optional = list(optional_cameras)
        self._joints = list(joints)
        self._max_skew_ns = round(max_skew * _NS)
        self._max_age_ns = round(max_age * _NS)
        self._lock = threading.Lock()
        frames, positions = _FRAMES_KEPT + ceil(memory * _FRAME_RATE), _JOINTS_KEPT + ceil(memory * _JOINT_RATE)
        self.streams = {name: StreamState(deque(maxlen=frames)) for name in (*self._cameras, *self._optional)}
        self.streams |= {name: StreamState(deque(maxlen=positions)) for name in self._joints}

    def add_image(self, camera: str, stamp_ns: int, image: object) -> PolicyReason:
        """Store an undecoded image; return why it was refused, or NONE."""
        with self._lock:
            self.streams[camera].arrivals.add(time.monotonic())
            return self._add(camera, stamp_ns, image)

    def add_joints(self, group: str, stamp_ns: int, positions: NDArray[np.float64]) -> PolicyReason:
        """Store the positions of a joint message, out of the group's gate; return why it was refused, or NONE."""
        with self._lock:
            self.streams[group].arrivals.add(time.monotonic())
            reason = self._add(group, stamp_ns, positions)
            self.streams[group].refused = reason
            return reason

    def refuse(self, stream: str, reason: PolicyReason) -> None:
        """Count a message that cannot be used."""
        with self._lock:
            self.streams[stream].arrivals.add(time.monotonic())
            self._reject(stream, reason)

    def discard(self, camera: str, stamp_ns: int, reason: PolicyReason) -> None:
        """Forget an image that turned out to be of no use, and count it."""
        with self._lock:
            stream = self.streams[camera]
            kept = (entry for entry in stream.entries if entry[0] != stamp_ns)
            stream.entries = deque(kept, maxlen=stream.entries.maxlen)
            stream.rejected[reason] += 1

    def decode(self, snapshot: Snapshot, decoders: Mapping[str, Callable[[Any], Pixels]]) -> dict[str, Pixels] | None:
        """RGB image of each camera; None where one does not decode: it is discarded, so the next snapshot differs."""
        images = {}
        for camera, (stamp_ns, data) in snapshot.images.items():
            try:
                images[camera] = decoders[camera](data)
            except ImageError:
                self.discard(camera, stamp_ns, PolicyReason.CORRUPT_IMAGE)
                self.streams[camera].refused = PolicyReason.CORRUPT_IMAGE
                return None
            self.streams[camera].refused = PolicyReason.NONE
        return images

    def newest_joints(self) -> dict[str, NDArray[np.float64]]:
        """Newest positions of the joint groups that have any."""
        with self._lock:
            return {name: self.streams[name].entries[-1][1] for name in self._joints if self.streams[name].entries}

    def arrivals(self, name: str) -> tuple[float, float]:
        """How regularly a stream's messages arrive: rate in Hz and jitter in ms."""
        now = time.monotonic()
        with self._lock:
            return self.streams[name].arrivals.rate(now), self.streams[name].arrivals.jitter(now)

    def clear(self) -> None:
        """Forget all messages; counts stay."""
        with self._lock:
            for stream in self.streams.values():
                stream.entries.clear()

    def sample(self, now_ns: int, newer_than_ns: int = 0) -> Snapshot | Waiting:
        """The newest messages that belong together, or why there are none."""
        with self._lock:
            needed = [*self._cameras, *self._joints]
            missing = [name for name in needed if not self.streams[name].entries]
            if missing:
                return self._waiting(missing, PolicyReason.MISSING_STREAM, ", ".join(missing))
            newest = {name: self.streams[name].entries[-1][0] for name in needed}
            # The joints may not yet reach the newest frame, the newest frame may not yet have come from every camera.
            late = min(self._cameras or self._joints, key=newest.__getitem__)
            stamp = newest[late]
            if now_ns - stamp > self._max_age_ns:
                text = f"{late} is {(now_ns - stamp) / _NS:.3f} s old"
                return self._waiting([late], PolicyReason.STALE_OBSERVATION, text)
            if stamp <= newer_than_ns:
                return Waiting(PolicyReason.SAME_OBSERVATION, "")
            chosen = {name: self.streams[name].nearest(stamp) for name in needed}
            skew = {name: entry[0] - stamp for name, entry in chosen.items()}
            worst = max(skew, key=lambda name: abs(skew[name]))
            if abs(skew[worst]) > self._max_skew_ns:
                text = f"{worst} is {skew[worst] / _NS:+.3f} s off"
                return self._waiting([worst], PolicyReason.SKEWED_STREAMS, text)
            for name, value in skew.items():
                self.streams[name].skew_ns = value
            images = {name: chosen[name] for name in self._cameras} | self._optional_images(stamp)
            return Snapshot(stamp, images, {name: chosen[name][1] for name in self._joints})

    def at(self, stamp_ns: int) -> Snapshot | None:
        """The messages nearest to a time in the past, however far from it; None where a needed stream has none."""
        with self._lock:
            needed = [*self._cameras, *self._joints]
            if not all(self.streams[name].entries for name in needed):
                return None
            chosen = {name: self.streams[name].nearest(stamp_ns) for name in needed}
            images = {name: chosen[name] for name in self._cameras} | self._optional_images(stamp_ns)
            stamp = min(chosen[name][0] for name in self._cameras or self._joints)
            return Snapshot(stamp, images, {name: chosen[name][1] for name in self._joints})

    def _waiting(self, streams: Sequence[str], reason: PolicyReason, detail: str) -> Waiting:
        """What these streams are waited for; where their newest messages are of no use, that is why."""
        refused = [(self.streams[name].refused, name) for name in streams if self.streams[name].refused]
        return Waiting(*refused[0]) if refused else Waiting(reason, detail)

    def _optional_images(self, stamp_ns: int) -> dict[str, tuple[int, Any]]:
        found = {name: self.streams[name].nearest(stamp_ns) for name in self._optional if self.streams[name].entries}
        return {name: entry for name, entry in found.items() if abs(entry[0] - stamp_ns) <= self._max_skew_ns}

    def _add(self, name: str, stamp_ns: int, value: object) -> PolicyReason:
        stream = self.streams[name]
        if stamp_ns == 0:
            return self._reject(name, PolicyReason.ZERO_STAMP)
        if stream.entries and stamp_ns <= (newest := stream.entries[-1][0]):
            if newest - stamp_ns > self._max_age_ns:  # a clock went back, and the newest is from before
                stream.entries.clear()
            return self._reject(name, PolicyReason.STAMP_WENT_BACK)
        stream.received += 1
        stream.entries.append((stamp_ns, value))
        return PolicyReason.NONE

    def _reject(self, name: str, reason: PolicyReason) -> PolicyReason:
        self.streams[name].received += 1
        self.streams[name].rejected[reason] += 1
        self.streams[name].refused = reason
        return reason
