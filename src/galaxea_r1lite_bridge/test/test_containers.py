"""The Dockerfiles, which are not built here: what they install and copy, and how they ask for health."""

import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# What ros-base has: https://www.ros.org/reps/rep-2001.html
BASE = {
    "action_msgs", "ament_index_python", "builtin_interfaces", "fastwam_msgs", "launch", "launch_ros", "rcl_interfaces",
    "rclpy", "rosgraph_msgs", "std_msgs",
}  # fmt: skip
OTHER = {"python3-pydantic": "pydantic=="}


def dependencies(package):
    root = ElementTree.parse(ROOT / "src" / package / "package.xml").getroot()
    return {entry.text for tag in ("depend", "exec_depend") for entry in root.findall(tag)} - BASE


@pytest.mark.parametrize("package", ["fastwam_msgs", "galaxea_r1lite_bridge"])
def test_the_robots_image_installs_what_is_declared(package):
    text = (ROOT / "docker" / "robot.Dockerfile").read_text()
    for name in dependencies(package) - {"rosidl_default_runtime"}:
        found = OTHER.get(name) or (name if name.startswith("python3-") else f"ros-humble-{name.replace('_', '-')}")
        assert found in text, name


@pytest.mark.parametrize("name", ["robot", "workstation"])
def test_copied_files_exist(name):
    for line in (ROOT / "docker" / f"{name}.Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert (ROOT / line.split()[1]).exists(), line


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_of_a_container_is_that_of_its_policy(status, healthy):
    class Policy(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", "")
    python, *arguments = json.loads(re.search(r"HEALTHCHECK .*CMD (\[.*\])", text)[1])
    with HTTPServer(("127.0.0.1", 0), Policy) as server:
        threading.Thread(target=server.serve_forever).start()
        command = [sys.executable, *(word.replace("8000", str(server.server_port)) for word in arguments)]
        done = subprocess.run(command, capture_output=True)
        server.shutdown()
    assert python == "python3"
    assert (done.returncode == 0) == healthy, done.stderr
