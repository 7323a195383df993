"""Observations, chunks and what a policy is, as bytes: NumPy archives (.npz, read without pickle) and JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import astuple, fields
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fastwam_policy.policies.base import ActionChunk, Observation, PolicyInfo, RunningPlan, Timing
from fastwam_policy.policies.remote.bounds import Bound, read_archive
from galaxea_r1lite_bridge.robot.joint_gate import places

INFO = TypeAdapter(PolicyInfo)
"""To and from JSON; ValidationError, a ValueError, where it is not one."""
MAX_INFO = 2**20
"""Bytes of a PolicyInfo as JSON."""
_IMAGE = "image."
_ROWS, _COLUMNS = 2160, 3840  # largest image
_JOINTS = 256
_LETTER = 4  # bytes in NumPy's texts
_NAME, _INSTRUCTION = 128 * _LETTER, 4096 * _LETTER
_INTEGER, _FLOAT, _TEXT, _BYTE = "iu", "f", "U", "u"


def observation_bounds(info: PolicyInfo) -> dict[str, Bound]:
    """What an observation for that policy may hold."""
    size, smallest = (_ROWS, _COLUMNS, 3), (1, 1, 3)
    images = {
        _IMAGE + camera.name: Bound(_BYTE, size, smallest, 1, required=camera.required) for camera in info.cameras
    }
    return images | {
        "stamp_ns": Bound(_INTEGER),
        "instruction": Bound(_TEXT, itemsize=_INSTRUCTION),
        "names": Bound(_TEXT, (_JOINTS,), itemsize=_NAME),
        "positions": Bound(_FLOAT + _INTEGER, (_JOINTS,)),
        "running": Bound(_FLOAT, (info.horizon + 1, len(info.action)), (1, len(info.action)), required=False),
        "committed": Bound(_INTEGER, required=False),
    }


def chunk_bounds(info: PolicyInfo) -> dict[str, Bound]:
    """What a chunk of that policy may hold."""
    columns, stages = len(info.action), len(fields(Timing))
    return {
        "stamp_ns": Bound(_INTEGER),
        "step_ns": Bound(_INTEGER),
        "names": Bound(_TEXT, (columns,), (columns,), _NAME),
        "actions": Bound(_FLOAT, (info.horizon, columns), (1, columns)),
        "timing": Bound(_FLOAT + _INTEGER, (stages,), (stages,)),
        "committed": Bound(_INTEGER),
    }


def encode_observation(observation: Observation, info: PolicyInfo) -> bytes:
    """As an archive, with the images that the policy looks at."""
    entries: dict[str, Any] = {
        "stamp_ns": observation.stamp_ns,
        "instruction": observation.instruction,
        "names": list(observation.joints),
        "positions": list(observation.joints.values()),
    }
    if observation.running is not None:
        entries |= {"running": observation.running.actions, "committed": observation.running.committed}
    seen = [camera.name for camera in info.cameras if camera.name in observation.images]
    return _pack(entries | {_IMAGE + name: observation.images[name] for name in seen})


def decode_observation(data: bytes, info: PolicyInfo) -> Observation:
    """From an archive; ValueError where it is none for that policy, with one line that says what is wrong."""
    entries = read_archive(data, observation_bounds(info))
    names, positions = entries["names"].tolist(), entries["positions"].tolist()
    if len(names) != len(positions) or not np.isfinite(positions).all():
        raise ValueError(f"positions: must be {len(names)} finite numbers, one for each of names")
    places(names, [channel.name for channel in info.state])
    joints = dict(zip(names, positions, strict=True))
    running = None
    if "running" in entries:
        actions, committed = entries["running"], int(entries.get("committed", -1))
        if not (0 <= committed <= len(actions) and np.isfinite(actions).all()):
            raise ValueError(f"running: must be finite, and committed 0 to {len(actions)}, got {committed}")
        running = RunningPlan(actions, committed)
    images = {name.removeprefix(_IMAGE): value for name, value in entries.items() if name.startswith(_IMAGE)}
    return Observation(int(entries["stamp_ns"]), images, joints, str(entries["instruction"]), running)


def encode_chunk(chunk: ActionChunk) -> bytes:
    """As an archive."""
    return _pack(
        {
            "stamp_ns": chunk.stamp_ns, "step_ns": chunk.step_ns, "names": chunk.names, "actions": chunk.actions,
            "timing": astuple(chunk.timing), "committed": chunk.committed,
        }
    )  # fmt: skip


def decode_chunk(data: bytes, info: PolicyInfo) -> ActionChunk:
    """From an archive, its columns in the order of `info.action`; ValueError where it is none of that policy."""
    entries, names = read_archive(data, chunk_bounds(info)), [channel.name for channel in info.action]
    actions = entries["actions"][:, places(entries["names"].tolist(), names)]
    return ActionChunk(
        int(entries["stamp_ns"]), int(entries["step_ns"]), names, actions,
        Timing(*entries["timing"].tolist()), int(entries["committed"]),
    )  # fmt: skip


def _pack(entries: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **entries)  # type: ignore[arg-type]
    return buffer.getvalue()
