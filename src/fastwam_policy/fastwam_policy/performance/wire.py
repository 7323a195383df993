"""`fastwam bench-wire`: what a served policy's wire adds to an inference, on this machine's loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from rich.progress import track
from rich.table import Table
from websockets.sync.client import connect

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.lifetime import with_parent
from fastwam_policy.policies.base import ActionChunk, CameraInput, Channel, Observation, PolicyInfo
from fastwam_policy.policies.remote.arrays import pack, unpack
from galaxea_r1lite_bridge.robot.config import RobotConfig

_ROWS, _COLUMNS = 180, 320
_QUALITY = 90  # of the JPEGs
_WARM_UP = 20  # requests that are not measured
_FORMS = ("raw", "JPEG")


class Idle:
    """A policy that takes no time, and looks at all cameras."""

    def __init__(self) -> None:
        robot = RobotConfig.load()
        joints = tuple(Channel(name, unit) for name, unit in zip(robot.joint_names, robot.units, strict=True))
        self.info = PolicyInfo("idle", tuple(map(CameraInput, robot.cameras)), joints, joints, 15.0, 32)
        self._actions = np.tile(robot.home, (self.info.horizon, 1))

    def prepare(self, instruction: str) -> None:
        """Any instruction will do."""

    def infer(self, observation: Observation) -> ActionChunk:
        """The start pose for every step."""
        names = [channel.name for channel in self.info.action]
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, self._actions)

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held open."""


def bench_wire(robot: RobotConfig, requests: int) -> list[dict[str, Any]]:
    """Times in ms from an observation to its chunk of a policy that takes none, for raw pictures and JPEGs in turn."""
    asked = {form: _request(robot, form) for form in _FORMS}
    times: dict[str, list[float]] = {form: [] for form in _FORMS}
    with _served() as address, connect(address, compression=None, max_size=None) as connection:
        connection.recv()  # the metadata
        for _ in track(range(requests + _WARM_UP), description="wire"):
            for form in _FORMS:
                begin = time.perf_counter()
                connection.send(pack(asked[form], "openpi"))
                reply = connection.recv()
                if isinstance(reply, str):
                    raise RunError(f"`fastwam serve` refuses what is measured: {reply}")
                unpack(reply, "openpi")
                times[form].append(1e3 * (time.perf_counter() - begin))
    return [_figures(form, asked[form], times[form][_WARM_UP:]) for form in _FORMS]


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """The figures for a terminal."""
    shown = Table(title=f"Latency added by the wire, pictures of {_COLUMNS} x {_ROWS}")
    for name in ("pictures", "message [kB]", "p50 [ms]", "p99 [ms]", "longest [ms]"):
        shown.add_column(name)
    for row in results:
        values = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "longest_ms")]
        shown.add_row(row["pictures"], f"{row['bytes'] / 1e3:.0f}", *values)
    return shown


def _figures(form: str, request: Mapping[str, Any], times: Sequence[float]) -> dict[str, Any]:
    middle, late = np.percentile(times, [50, 99]).tolist()
    return {
        "pictures": form, "cameras": len(request["images"]), "bytes": len(pack(request, "openpi")),
        "requests": len(times), "p50_ms": middle, "p99_ms": late, "longest_ms": max(times),
    }  # fmt: skip


def _request(robot: RobotConfig, form: str) -> dict[str, Any]:
    random = np.random.default_rng(0)
    slope = np.linspace(40, 200, _COLUMNS)[None, :, None] + np.linspace(0, 20, _ROWS)[:, None, None]
    images: dict[str, Any] = {}
    for name in robot.cameras:
        picture = (slope + random.normal(0, 3, (_ROWS, _COLUMNS, 3))).clip(0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
        images[name] = picture if form == "raw" else jpeg.tobytes()
    return {"images": images, "state": dict(zip(robot.joint_names, robot.home.tolist(), strict=True)), "stamp_ns": 1}


@contextmanager
def _served() -> Iterator[str]:
    """The address of a server in a process of its own, as it would be."""
    policy = f"{__name__}:{Idle.__name__}"
    command = with_parent([sys.executable, "-m", "fastwam_policy.cli", "serve", policy, "--port", "0"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            if not line:
                raise RunError("`fastwam serve` did not start; it has said why")
            yield line[-1]
        finally:
            process.terminate()
