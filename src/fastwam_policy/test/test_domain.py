"""What keeps nodes of the simulator and of tests to this machine."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.common.middleware import missing
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


def install(folder, monkeypatch, middleware):
    """As ROS 2 knows what is installed."""
    index = folder / "share/ament_index/resource_index/rmw_typesupport"
    index.mkdir(parents=True)
    (index / middleware).touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.environ["AMENT_PREFIX_PATH"] + f":{folder}")


def test_what_a_shell_says_of_other_machines_does_not_reach_a_private_domain(monkeypatch):
    said = {"ROS_DISCOVERY_SERVER": "127.0.0.1:11811", "ROS_STATIC_PEERS": "10.0.0.1", "RMW_IMPLEMENTATION": "rmw_none"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with private_domain():
        assert not said.keys() & os.environ.keys()
    assert {name: os.environ[name] for name in said} == said


def test_a_middleware_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_none")
    with pytest.raises(SystemExit) as ended:
        main(["operate"])
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err
        == "fastwam: RMW_IMPLEMENTATION=rmw_none: it is not installed here. Install it, or unset that\n"
    )
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    assert missing() == ""


def test_somebodys_own_profile_is_left_alone(monkeypatch, tmp_path):
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
    install(tmp_path, monkeypatch, "rmw_cyclonedds_cpp")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    with private_domain():
        assert name not in os.environ
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
