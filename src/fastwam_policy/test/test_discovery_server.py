"""Fast DDS's discovery server, which docs/how-to/secure-the-network.md names for where multicast is dropped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
import rclpy

from fastwam_msgs.msg import ActionChunk
from galaxea_r1lite_bridge.nodes.managed_node import see_everybody

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.skipif(os.environ.get("ROS_DISTRO") == "humble", reason="the profile is Jazzy's"),
    pytest.mark.skipif("fastrtps" not in os.environ.get("RMW_IMPLEMENTATION", "fastrtps"), reason="of Fast DDS"),
    pytest.mark.skipif(not shutil.which("fast-discovery-server"), reason="this ROS 2 has no discovery server"),
]
_SILENCE = 2.0  # s: with a server, processes hear each other within one
_TIMEOUT = 60.0  # s: two cores may be busy; nothing is measured against it
_SERVER = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>loopback</transport_id>
      <type>UDPv4</type>
      <interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>
    </transport_descriptor>
  </transport_descriptors>
  <participant profile_name="server" is_default_profile="true">
    <rtps>
      <userTransports><transport_id>loopback</transport_id></userTransports>
      <useBuiltinTransports>false</useBuiltinTransports>
      <builtin><discovery_config><discoveryProtocol>SERVER</discoveryProtocol></discovery_config></builtin>
    </rtps>
  </participant>
</profiles>
"""  # by itself it is open to all machines, whatever address it is given


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Command that starts a server; whatever else is started is told to use it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", f"127.0.0.1:{port}")
    (tmp_path / "server.xml").write_text(_SERVER)
    return ["fast-discovery-server", "-i", "0", "-l", "127.0.0.1", "-p", port, "-x", str(tmp_path / "server.xml")]


def test_processes_find_each_other_through_a_discovery_server_and_not_without(server, tmp_path):
    """And a node, such as the bridge, sees who else publishes what it publishes; other processes do not."""
    with ExitStack() as stack:
        publisher, listener, node = (
            stack.enter_context(started(tmp_path, *role)) for role in (("publish",), ("listen",), ("publish", "node"))
        )
        everybody = publisher, listener, node
        until(lambda: all("publishers" in said() for said in everybody))
        time.sleep(_SILENCE)
        assert "chunk" not in listener()
        stack.enter_context(started(tmp_path, *server))
        until(lambda: "chunk 7 of towel_small" in listener())
        until(lambda: "publishers 2" in node())
        time.sleep(_SILENCE)
        assert "publishers 2" not in publisher()


@contextmanager
def started(folder, *command):
    """What a process has said so far; a role of :func:`main`, or a program. It ends with the context."""
    program = command if len(command) > 2 else (sys.executable, "-u", __file__, *command)
    log = folder / f"{''.join(command[:2])}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(program, stdout=stream, stderr=subprocess.STDOUT)

    def said():
        assert process.poll() is None, log.read_text()
        return log.read_text()

    try:
        yield said
        said()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(condition):
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"not within {_TIMEOUT} s"
        time.sleep(0.05)


def main(role, *as_node):
    """One of the processes; it says how many publish the topic, as far as it sees."""
    if as_node:
        see_everybody()
    rclpy.init()
    node = rclpy.create_node(role)
    if role == "publish":
        publisher = node.create_publisher(ActionChunk, "chunk", 10)
        node.create_timer(0.1, lambda: publisher.publish(ActionChunk(chunk_id=7, policy_id="towel_small")))
    else:
        node.create_subscription(ActionChunk, "chunk", lambda c: print(f"chunk {c.chunk_id} of {c.policy_id}"), 10)
    before = None
    while True:
        if (count := node.count_publishers("chunk")) != before:
            print(f"publishers {count}")
            before = count
        rclpy.spin_once(node, timeout_sec=0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
