"""What a shell says of ROS 2's middleware. Without rclpy: importing that ends a process whose middleware is missing."""

from __future__ import annotations

import os
from pathlib import Path

_CHOICE = "RMW_IMPLEMENTATION"
_OTHER_MACHINES = ("ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS", "ROS_LOCALHOST_ONLY")


def missing() -> str:
    """The middleware that RMW_IMPLEMENTATION names and that is not installed; empty where all is well."""
    name = os.environ.get(_CHOICE, "")
    places = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    index = Path("share", "ament_index", "resource_index", "rmw_typesupport")
    return "" if any((Path(place) / index / name).exists() for place in places if place) else name


def leave_alone() -> None:
    """Forget, in this process and those that it starts, what leads to other machines, and a middleware that is missing.

    For nodes that are on their own: of the demo, the simulator and the tests.
    """
    if missing():
        del os.environ[_CHOICE]
    for name in _OTHER_MACHINES:
        os.environ.pop(name, None)
