"""What can go wrong with the emulated robot's joint feedback and cameras."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time

_JUMP = 0.5  # rad
_BY_HAND = 0.05  # rad/s at which a torso joint is moved
_CLOCK_STEP = 5  # s by which the robot's clock is set forward

Spoil = Callable[[Any, float], Any]
"""From a JointState, and the s since the fault began, what is published instead; None: nothing."""


def _moved(message: Any, offset: float) -> Any:
    message.position[0] += offset
    return message


def _put(**fields: Any) -> Spoil:
    def spoil(message: Any, _: float) -> Any:
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return spoil


def _named(message: Any, order: Sequence[int]) -> Any:
    message.name = [f"left_arm_joint{place + 1}" for place in order]
    message.position = [message.position[place] for place in order]
    return message


def _stamped(change: Callable[[Time], Time]) -> Spoil:
    def spoil(message: Any, _: float) -> Any:
        message.header.stamp = change(message.header.stamp)
        return message

    return spoil


FAULTS: dict[str, tuple[str, Spoil]] = {
    "jump": ("left_arm", lambda message, _: _moved(message, _JUMP)),
    "turn": ("left_arm", lambda message, _: _moved(message, 2 * math.pi)),
    "nan": ("left_arm", lambda message, _: _moved(message, math.nan)),
    "infinite": ("left_arm", lambda message, _: _moved(message, math.inf)),
    "huge": ("left_arm", lambda message, _: _moved(message, 1e9)),
    "short": ("left_arm", _put(position=[0.0, 0.0])),
    "empty": ("left_arm", _put(position=[])),
    "names": ("left_arm", _put(name=[f"right_arm_joint{number}" for number in range(1, 7)])),
    "permuted": ("left_arm", lambda message, _: _named(message, (3, 1, 2, 0, 5, 4))),
    "fraction": ("left_gripper", lambda message, _: _put(position=[message.position[0] / 100])(message, _)),
    "silent": ("left_arm", lambda *_: None),
    "no_gripper": ("right_gripper", lambda *_: None),
    "no_torso": ("torso", lambda *_: None),
    "torso": ("torso", lambda message, seconds: _moved(message, min(_BY_HAND * seconds, 0.1))),
    "unstamped": ("left_arm", _stamped(lambda _: Time())),
    "one_stamp": ("left_arm", _stamped(lambda _: Time(sec=1))),
    "stepped": ("left_arm", _stamped(lambda stamp: Time(sec=stamp.sec + _CLOCK_STEP, nanosec=stamp.nanosec))),
    "ahead": ("left_arm", _stamped(lambda stamp: Time(sec=2**31 - 1, nanosec=stamp.nanosec))),
}
"""The group that a fault concerns, and what it makes of its messages."""


@cache
def _black() -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((360, 640, 3), np.uint8))[1])


PICTURE_FAULTS: dict[str, tuple[str, Callable[[bytes, bytes], bytes | None]]] = {
    "camera": ("head", lambda *_: None),
    "cut": ("head", lambda data, _: data[: len(data) // 2]),
    "black": ("head", lambda *_: _black()),
    "still": ("wrist_left", lambda _, first: first),
}
"""The camera that a fault concerns, and what is sent instead of its picture, given that and its first one; or None."""
