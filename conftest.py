"""Shared by the tests of all packages: a private ROS domain, real node processes, and something to talk to them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from fastwam_policy.common.middleware import leave_alone

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers and the nodes they start share the cores. Set before any of them imports torch or numba.
    os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

# A shell's background job ignores SIGINT and SIGQUIT, nohup SIGHUP, and so would all that the tests start.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

leave_alone()  # before a test imports rclpy

TIMEOUT = 60.0  # s: generous, since two cores may be busy; nothing is measured against it
_ANSWER = 10.0  # s for a service's answer, until it is asked again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"ros", "shared_ros"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("nodes")


@pytest.fixture(scope="session", autouse=True)
def _ros_domain() -> Iterator[None]:
    """A ROS domain of this test session's own, or of this xdist worker's, on this machine only."""
    from fastwam_policy.launching.domain import private_domain

    with private_domain():
        yield


@pytest.fixture(scope="session")
def sample_bag() -> Path:
    return Path(get_package_share_directory("fastwam_policy")) / "bags" / "towel_fold_sample"


@pytest.fixture(scope="session")
def short_bag(sample_bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 3 s of the shipped sample."""
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    path = tmp_path_factory.mktemp("bags") / "short"
    with (
        AnyReader([sample_bag], default_typestore=store) as reader,
        Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        outputs = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in reader.connections}
        for connection, stamp, data in reader.messages(stop=reader.start_time + 3_000_000_000):
            writer.write(outputs[connection.topic], stamp, bytes(data))
    return path


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    folder = tmp_path_factory.mktemp("bundles") / "random_tiny"
    write_random_bundle(folder, RobotConfig.load(), "fold the towel")
    return folder


class Fork:
    """A node's process that :class:`Forks` started, with what tests use of subprocess.Popen."""

    def __init__(self, pid: int, args: list[str]) -> None:
        self.pid, self.args, self.returncode = pid, args, None
        self._over = threading.Event()

    def ended(self, status: int) -> None:
        self.returncode = status
        self._over.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._over.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts nodes as forks of one process that has imported what they need: a start costs a tenth."""

    def __init__(self) -> None:
        program = Path(__file__).parent / "scripts" / "fork_nodes.py"
        self._parent = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._started: queue.Queue[int] = queue.Queue()
        self._statuses: dict[int, int] = {}
        self._forks: dict[int, Fork] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._hear, daemon=True).start()

    def start(self, command: list[str], log: Path) -> Fork:
        wanted = {"program": command[0], "arguments": command[1:], "environment": dict(os.environ)}
        print(json.dumps(wanted | {"folder": os.getcwd(), "log": str(log)}), file=self._parent.stdin)
        fork = Fork(self._started.get(timeout=TIMEOUT), command)
        with self._lock:
            self._forks[fork.pid] = fork
            if fork.pid in self._statuses:
                fork.ended(self._statuses.pop(fork.pid))
        return fork

    def _hear(self) -> None:
        for line in self._parent.stdout:
            message = json.loads(line)
            if "started" in message:
                self._started.put(message["started"])
                continue
            with self._lock:
                if fork := self._forks.pop(message["ended"], None):
                    fork.ended(message["status"])
                else:
                    self._statuses[message["ended"]] = message["status"]

    def close(self) -> None:
        self._parent.stdin.close()
        self._parent.wait()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


class Ros:
    """A node of the test's own, spinning in the background, and the processes under test."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self._rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("test", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._closing = threading.Event()
        self._thread.start()
        self._folder, self._forks = folder, forks
        self.processes: list[subprocess.Popen[bytes] | Fork] = []
        self._logs: list[Path] = []

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    @staticmethod
    def program(package: str, executable: str) -> str:
        return str(Path(get_package_prefix(package)) / "lib" / package / executable)

    def start(self, package: str, executable: str, *arguments: str, **parameters: object) -> Fork:
        """Start a node; its program is what a user starts, but for the imports (see Forks)."""
        command = [self.program(package, executable), "--ros-args", *arguments]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        return self._keep(self._forks.start(command, self._log(executable)))

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        with self._log(Path(command[0]).name).open("wb") as stream:
            return self._keep(subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT))

    def _log(self, name: str) -> Path:
        self._logs.append(self._folder / f"{name}{len(self._logs)}.log")
        self._logs[-1].touch()
        return self._logs[-1]

    def _keep(self, process: Any) -> Any:
        self.processes.append(process)
        return process

    def output(self, process: subprocess.Popen[bytes] | Fork) -> str:
        return self._logs[self.processes.index(process)].read_text(errors="replace")

    def collect(self, kind: Any, topic: str, qos: Any = 50) -> list[Any]:
        """Messages of a topic, growing."""
        messages: list[Any] = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def call(self, kind: Any, service: str, request: Any) -> Any:
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(TIMEOUT), f"no service {service}"
        # A server that has not found the client's end yet loses its answer: then it is asked again.
        asked: list[tuple[float, Any]] = []

        def answered() -> Any:
            if not asked or time.monotonic() - asked[-1][0] > _ANSWER:
                asked.append((time.monotonic(), client.call_async(request)))
            return next((future for _, future in asked if future.done()), None)

        return self.until(answered).result()

    def change_state(self, node: str, transition: int) -> None:
        """Make a lifecycle transition."""
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.call(ChangeState, f"{node}/change_state", request).success

    def until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
        """Wait until `condition` is true and return its value; on a timeout the nodes' output is shown."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in self._logs)
                pytest.fail(f"not within {timeout} s\n{logs}")
            time.sleep(0.01)
        return value

    def finish(self, process: subprocess.Popen[bytes] | Fork) -> str:
        """Wait for a process to end by itself and return its output."""
        process.wait(TIMEOUT)
        return self.output(process)

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._closing.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._rclpy.shutdown(context=self.context)


@pytest.fixture
def ros(tmp_path: Path, forks: Forks) -> Iterator[Ros]:
    world = Ros(tmp_path, forks)
    yield world
    world.close()


@pytest.fixture(scope="module")
def shared_ros(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Ros]:
    """As `ros`, for nodes that serve all tests of a file."""
    world = Ros(tmp_path_factory.mktemp("ros"), forks)
    yield world
    world.close()
