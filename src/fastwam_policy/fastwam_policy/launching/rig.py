"""Start nodes as processes and talk to them from this one: the base of check-safety, eval-sim --nodes and trials."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.processes import node_command
from fastwam_policy.launching.process_group import ProcessGroup
from galaxea_r1lite_bridge.robot.config import RobotConfig

_PATIENCE = 60.0  # s
_ANSWER = 1.0  # s until a service is asked again
_LINES = 20  # of the log that an error shows


class Rig:
    """A node of this process that spins on a thread, and a group of processes.

    Args:
        name: of the node.
        robot: names of the interfaces.
        log: file for the output of the processes.
        robot_file: what the nodes read the robot from, where it is not the installed file.
    """

    def __init__(self, name: str, robot: RobotConfig, log: Path, robot_file: Path | None = None) -> None:
        self.robot, self._log = robot, log
        self._common = {"robot_config": robot_file} if robot_file else {}
        self.node = Node(name, enable_rosout=False)
        self.group = ProcessGroup(log)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        threading.Thread(target=self._spin, daemon=True).start()
        self.arming = self.node.create_client(SetBool, robot.interfaces.arm)

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def start(self, package: str, name: str, **parameters: object) -> None:
        """Start one installed node with parameters."""
        self.group.start(name, node_command(package, name, self._common | parameters))

    def close(self) -> None:
        """End everything."""
        self.group.close()
        self._closing.set()
        self._executor.shutdown()
        self.node.destroy_node()

    def until(self, condition: Callable[[], Any], what: str, patience: float = _PATIENCE) -> None:
        """Wait for a condition; RunError, with the nodes' last lines, when it does not come."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise RunError(f"{what}: not within {patience:g} s. {self.last_lines()}")
            self.pause()

    def last_lines(self) -> str:
        """What the nodes wrote last, for an error."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(["The nodes' last lines:", *lines[-_LINES:]])

    def pause(self) -> None:
        """Wait for a moment; all waiting is done through it."""
        time.sleep(0.01)

    def arm(self, *, wanted: bool = True) -> None:
        """Arm or disarm the bridge."""
        self.until(self.arming.service_is_ready, "bridge_node")

        def done() -> bool:
            answer = self.ask(self.arming, SetBool.Request(data=wanted))
            return answer is not None and bool(answer.success)

        self.until(done, "arming" if wanted else "disarming")

    def ask(self, client: Any, request: Any, patience: float = _ANSWER) -> Any:
        """Answer of a service, None when none came in time: a request to a node that is just starting may be lost."""
        return self.wait(client.call_async(request), patience)

    def on_its_thread(self, call: Callable[[], Any]) -> Any:
        """What `call` returns on the thread that spins.

        For the requests of an action client: from another thread rclpy may take the answer before it has noted what it
        sent, and ignores it then.
        """
        task = self._executor.create_task(call)
        self.until(task.done, f"the thread of {self.node.get_name()}")
        return task.result()

    def wait(self, future: Any, patience: float) -> Any:
        """Result of a future, None when it did not come in time."""
        deadline = time.monotonic() + patience
        while not future.done() and time.monotonic() < deadline:
            self.pause()
        return future.result() if future.done() else None
