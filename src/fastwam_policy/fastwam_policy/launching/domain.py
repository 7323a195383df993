"""A private ROS domain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from domain_coordinator import domain_id

from fastwam_policy.common.middleware import leave_alone
from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN

_FIRST_DOMAIN, _DOMAINS = 60, 40  # robots use small domain ids; above 101 the ports may be taken by other programs
_FAST = "rmw_fastrtps"
_PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # of Jazzy, and later


@contextmanager
def private_domain() -> Iterator[int]:
    """A ROS domain that no other process of this machine uses, on this machine only, for all processes started."""
    before = dict(os.environ)
    with domain_id(iter(range(_FIRST_DOMAIN, _FIRST_DOMAIN + _DOMAINS)).__next__) as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), PRIVATE_DOMAIN: str(domain), "PYTHONUNBUFFERED": "1"}
        leave_alone()
        os.environ |= _this_machine_only()
        try:
            yield domain
        finally:  # another process may take the domain now
            os.environ.clear()
            os.environ |= before


def _this_machine_only() -> dict[str, str]:
    """What keeps the nodes to this machine.

    ROS 2's own setting only keeps Fast DDS from finding others: its sockets are open to all. A profile binds them to
    127.0.0.1, and ROS 2 must then leave the transports alone.
    """
    if os.environ.get("ROS_DISTRO") == "humble":
        return {"ROS_LOCALHOST_ONLY": "1"}
    file = str(Path(get_package_share_directory("fastwam_policy")) / "config" / "loopback.xml")
    fast = os.environ.get("RMW_IMPLEMENTATION", _FAST).startswith(_FAST)
    if not fast or any(os.environ.get(name, file) != file for name in _PROFILES):
        return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return dict.fromkeys(_PROFILES, file) | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT"}
