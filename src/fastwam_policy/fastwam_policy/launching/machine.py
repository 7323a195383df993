"""What `fastwam doctor` finds out about this machine, without ROS 2: it may be what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fastwam_policy.common.middleware import missing
from galaxea_r1lite_bridge.nodes.real_time import HOW_TO_ALLOW

State = Literal["ok", "warning", "fault"]
_PYTHONS = ((3, 10), (3, 13))
_GB = 1e9
_DISK_LOW, _DISK_FULL = 20 * _GB, 1 * _GB  # bytes: recordings of an hour; nothing can be written
_MEMORY = 7 * _GB  # bytes: below it, a demo and a training do not fit beside a desktop
_RECEIVE_BUFFER = 2 * 2**20  # bytes: a JPEG of 200 kB is 140 packets, and several cameras send at once
_LAST_DOMAIN, _LAST_FREE_DOMAIN = 232, 101  # Linux gives out ports above those of 101 to other programs
_FIRST_PORT, _PORTS = 7400, 250
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    about: str
    state: State
    text: str
    cure: str = ""


def look(checks: Sequence[Callable[[], Iterator[Finding]]]) -> Iterator[Finding]:
    """What the checks find; one that fails is a finding as well."""
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  whatever is broken here, the other lines are wanted
            yield Finding(check.__name__, "fault", f"{type(error).__name__}: {error}", "report it, with --json")


def system() -> Iterator[Finding]:
    """Distribution, kernel, cores, memory."""
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{name}, Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores, {memory / _GB:.0f} GB"
    if memory < _MEMORY:
        yield Finding("system", "warning", text, "a demo needs 4 GB: close other programs")
    else:
        yield Finding("system", "ok", text)


def python() -> Iterator[Finding]:
    """Version and place of Python, and this package's version."""
    text = f"{platform.python_version()} in {sys.prefix}"
    first, last = _PYTHONS
    if first <= sys.version_info[:2] <= last:
        yield Finding("Python", "ok", text)
    else:
        yield Finding("Python", "fault", text, "3.10 to 3.13 is needed: make setup PYTHON=python3.12")


def ros() -> Iterator[Finding]:
    """ROS 2, its middleware, and the messages of this project."""
    if find_spec("rclpy") is None:
        yield Finding("ROS 2", "warning", "not here: policies can be trained, served and judged, and no robot driven",
                      "source scripts/env.sh, or ROS 2 itself")  # fmt: skip
        return
    distribution = os.environ.get("ROS_DISTRO", "")
    try:
        source = f"wheels, rclpy {version('ros-jazzy-rclpy')}"
    except PackageNotFoundError:
        source = str(Path(str(find_spec("rclpy").origin)).parents[4])  # type: ignore[union-attr]
    yield Finding("ROS 2", "ok", f"{distribution}, {source}")
    name = os.environ.get("RMW_IMPLEMENTATION", "")
    if missing():
        yield Finding("middleware", "fault", f"RMW_IMPLEMENTATION={name} is not installed", "install it, or unset that")
    elif name and "fastrtps" not in name:
        yield Finding("middleware", "warning", f"{name}: not tested here", "the robot's side must have the same")
    else:
        yield Finding("middleware", "ok", f"{name or 'rmw_fastrtps_cpp, by default'}")
    if find_spec("fastwam_msgs") is None:
        yield Finding("messages", "fault", "fastwam_msgs is not built", "make setup, and source scripts/env.sh")


def domain() -> Iterator[Finding]:
    """The ROS domain of this shell, and what keeps it from the robot."""
    text = os.environ.get("ROS_DOMAIN_ID", "") or "0"
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= _LAST_DOMAIN:
        yield Finding("domain", "fault", f"ROS_DOMAIN_ID={text}", f"it must be 0 to {_LAST_DOMAIN}: the robot's number")
        return
    first = _FIRST_PORT + _PORTS * number
    text = f"{number}, UDP ports {first} to {first + _PORTS - 1}"
    if number > _LAST_FREE_DOMAIN:
        yield Finding("domain", "warning", text, "other programs may have these ports: use 0 to 101")
    else:
        yield Finding("domain", "ok", text)
    alone = {"ROS_LOCALHOST_ONLY": ("1",), "ROS_AUTOMATIC_DISCOVERY_RANGE": ("LOCALHOST", "OFF")}
    for name, values in alone.items():
        if os.environ.get(name) in values:
            yield Finding("discovery", "warning", f"{name}={os.environ[name]}: on this machine only",
                          "unset it where the robot is another machine")  # fmt: skip
    for name in ("ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS"):
        if value := os.environ.get(name):
            yield Finding("discovery", "warning", f"{name}={value}", "the robot's side must have it, too")


def network() -> Iterator[Finding]:
    """Interfaces, receive buffers, proxies."""
    up = [
        place.name
        for place in sorted(Path("/sys/class/net").iterdir())
        if place.name != "lo" and (place / "operstate").read_text().strip() in ("up", "unknown")
    ]
    if up:
        yield Finding("network", "ok", ", ".join(up))
    else:
        yield Finding("network", "warning", "no interface is up", "connect the cable to the robot, where there is one")
    size = int(Path("/proc/sys/net/core/rmem_max").read_text())
    text = f"net.core.rmem_max {size / 2**20:.1f} MB"
    if size < _RECEIVE_BUFFER:
        yield Finding("receive buffers", "warning", f"{text}: pictures of several cameras may be lost",
                      "sudo sysctl -w net.core.rmem_max=8388608")  # fmt: skip
    else:
        yield Finding("receive buffers", "ok", text)
    if used := [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.upper())]:
        yield Finding("proxy", "ok", f"{', '.join(used)}: for downloads; policies are never reached through it")


def torch() -> Iterator[Finding]:
    """Torch, and the GPU."""
    if find_spec("torch") is None:
        yield Finding("torch", "fault", "not installed", "make setup")
        return
    import torch as module

    gpu = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if tuple(map(int, module.__version__.split(".")[:2])) < (2, 4):
        yield Finding("torch", "fault", module.__version__, "2.4 or newer is needed: make setup TORCH=torch==2.9.1")
    elif module.cuda.is_available():
        about = module.cuda.get_device_properties(0)
        yield Finding("torch", "ok", f"{module.__version__}, {about.name}, {about.total_memory / _GB:.0f} GB")
    elif gpu:
        yield Finding("torch", "warning", f"{module.__version__} does not use the GPU that is here",
                      "make setup TORCH=torch==… with a CUDA build that fits the driver (nvidia-smi)")  # fmt: skip
    else:
        yield Finding("torch", "ok", f"{module.__version__}, no GPU: CPU, {module.get_num_threads()} threads")


def priorities() -> Iterator[Finding]:
    """Whether this user may ask for real-time priority."""
    tried = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"
    if subprocess.run([sys.executable, "-c", tried], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        yield Finding("real-time priority", "ok", "allowed; bridge_node takes it in the modes sim and real")
    else:
        yield Finding("real-time priority", "warning", "not allowed: bridge_node does without it", HOW_TO_ALLOW)


def disk() -> Iterator[Finding]:
    """Room, and whether this folder can be written."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    text = f"{free / _GB:.0f} GB free in {here}"
    if not os.access(here, os.W_OK):
        yield Finding("disk", "warning", f"{here} may not be written to", "work in a folder of your own, or --output")
    elif free < _DISK_FULL:
        yield Finding("disk", "fault", text, "make room")
    elif free < _DISK_LOW:
        yield Finding("disk", "warning", text, "recordings with images are about 20 GB an hour: make room")
    else:
        yield Finding("disk", "ok", text)


CHECKS = (system, python, ros, domain, network, torch, priorities, disk)
