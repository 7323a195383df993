"""Between ROS messages and the plain types of the layers below."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time

from fastwam_msgs.msg import ActionChunk
from galaxea_r1lite_bridge.execution.plan import Chunk

_NS = 1_000_000_000


def nanoseconds(stamp: Time | Duration) -> int:
    """Whole nanoseconds of a stamp or duration."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def time_message(stamp_ns: int) -> Time:
    """Stamp from whole nanoseconds."""
    return Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def duration_message(duration_ns: int) -> Duration:
    """Duration from whole nanoseconds."""
    return Duration(sec=duration_ns // _NS, nanosec=duration_ns % _NS)


def message_class(kind: str) -> Any:
    """Class of a message type such as ``std_msgs/msg/Bool``; None where that type is not installed."""
    package, _, name = kind.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def chunk_from_message(message: ActionChunk) -> Chunk:
    """Plain form of a chunk. Rows of unequal length give an array of shape [0, 0], which no bridge admits."""
    rows = [point.positions for point in message.trajectory.points]
    ragged = len({len(row) for row in rows}) != 1
    return Chunk(
        chunk_id=message.chunk_id,
        epoch=message.epoch,
        stamp_ns=nanoseconds(message.header.stamp),
        step_ns=nanoseconds(message.step),
        names=list(message.trajectory.joint_names),
        positions=np.empty((0, 0)) if ragged else np.array(rows, np.float64),
        committed_steps=message.committed_steps,
        session=message.session,
    )
