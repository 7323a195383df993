"""Observations, chunks and what a policy is, as bytes: NumPy archives (.npz, read without pickle) and JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from fastwam_policy.policies.base import ActionChunk, Observation, PolicyInfo, RunningPlan, Timing

INFO = TypeAdapter(PolicyInfo)
"""To and from JSON; ValidationError, a ValueError, where it is not one."""
_IMAGE = "image."


def encode_observation(observation: Observation) -> bytes:
    """As an archive."""
    entries: dict[str, Any] = {
        "stamp_ns": observation.stamp_ns,
        "instruction": observation.instruction,
        "names": list(observation.joints),
        "positions": list(observation.joints.values()),
    }
    if observation.running is not None:
        entries |= {"running": observation.running.actions, "committed": observation.running.committed}
    return _pack(entries | {_IMAGE + name: pixels for name, pixels in observation.images.items()})


def decode_observation(data: bytes) -> Observation:
    """From an archive; ValueError where it is none, KeyError where an entry is missing."""
    entries = _unpack(data)
    running = None
    if "running" in entries:
        running = RunningPlan(entries["running"], int(entries["committed"]))
    joints = dict(zip(entries["names"].tolist(), entries["positions"].tolist(), strict=True))
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


def decode_chunk(data: bytes) -> ActionChunk:
    """From an archive; ValueError where it is none, KeyError where an entry is missing."""
    entries = _unpack(data)
    return ActionChunk(
        int(entries["stamp_ns"]), int(entries["step_ns"]), entries["names"].tolist(), entries["actions"],
        Timing(*entries["timing"].tolist()), int(entries["committed"]),
    )  # fmt: skip


def _pack(entries: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **entries)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001  zipfile and numpy fail in many ways on damaged data
        raise ValueError(f"not an archive of NumPy arrays ({error})") from None
