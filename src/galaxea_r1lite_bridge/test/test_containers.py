"""The Dockerfiles, which cannot be built here: what they install against what the packages declare."""

import xml.etree.ElementTree as ElementTree
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
