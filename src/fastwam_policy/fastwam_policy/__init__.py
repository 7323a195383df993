"""Fast-WAM as a ROS 2 policy for the Galaxea R1 Lite.

The names below are the public interface. They load when they are first used, so that importing this package costs
nothing. What the folders are and which may import which: docs/concepts/architecture.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastwam_policy.policies.base import (
        ActionChunk,
        CameraInput,
        Channel,
        Frame,
        Identity,
        ImaginingPolicy,
        Observation,
        Policy,
        PolicyInfo,
        RunningPlan,
        StatefulPolicy,
        Timing,
    )
    from fastwam_policy.policies.loading import load_policy
    from fastwam_policy.policies.robot_check import check_robot

_PLACES = {"load_policy": "loading", "check_robot": "robot_check"}  # the others are in base

__all__ = [
    "ActionChunk", "CameraInput", "Channel", "Frame", "Identity", "ImaginingPolicy", "Observation", "Policy",
    "PolicyInfo", "RunningPlan", "StatefulPolicy", "Timing", "check_robot", "load_policy",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"fastwam_policy.policies.{_PLACES.get(name, 'base')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
