"""What keeps nodes of the simulator and of tests to this machine."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from fastwam_policy.launching.domain import private_domain


def udp_addresses(process):
    """Local IPv4 addresses of a process's UDP sockets, as the kernel writes them."""
    own = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if match := re.match(r"socket:\[(\d+)\]", os.readlink(link)):
                own.add(match[1])
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[9] in own}


@pytest.mark.skipif(os.environ.get("ROS_DISTRO") == "humble", reason="Humble's own setting is used there")
@pytest.mark.skipif("fastrtps" not in os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"), reason="of Fast DDS")
def test_no_socket_is_open_to_other_machines(ros):
    node = ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)
    ros.until(lambda: "emulator_node" in ros.node.get_node_names())
    assert udp_addresses(node) <= {"0100007F", "0100FFEF"}, "127.0.0.1, and the domain's multicast group on it"


def test_somebodys_own_profile_is_left_alone(monkeypatch):
    """Also where one domain is reserved within another."""
    name = "FASTRTPS_DEFAULT_PROFILES_FILE"
    with private_domain(), private_domain():
        assert os.environ[name].endswith("loopback.xml")
    monkeypatch.setenv(name, "/mine.xml")
    with private_domain():
        assert os.environ[name] == "/mine.xml"
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    monkeypatch.delenv(name)
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    with private_domain():
        assert name not in os.environ
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
