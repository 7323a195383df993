"""A private ROS domain."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from domain_coordinator import domain_id

from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN

_FIRST_DOMAIN, _DOMAINS = 60, 40  # robots use small domain ids; above 101 the ports may be taken by other programs


@contextmanager
def private_domain() -> Iterator[int]:
    """A ROS domain that no other process of this machine uses, on this machine only, for all processes started."""
    before = dict(os.environ)
    with domain_id(iter(range(_FIRST_DOMAIN, _FIRST_DOMAIN + _DOMAINS)).__next__) as domain:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), PRIVATE_DOMAIN: str(domain), "PYTHONUNBUFFERED": "1"}
        if os.environ.get("ROS_DISTRO") == "humble":
            os.environ["ROS_LOCALHOST_ONLY"] = "1"
        else:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        try:
            yield domain
        finally:  # another process may take the domain now
            os.environ.clear()
            os.environ |= before
