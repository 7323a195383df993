"""`fastwam bench-loop`: the bridge's deadline thread compared with rclpy timers, under camera and inference load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rich.progress import track
from sensor_msgs.msg import CompressedImage, JointState

from fastwam_msgs.msg import ActionChunk
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.processes import node_command
from fastwam_policy.launching.process_group import ProcessGroup
from fastwam_policy.nodes.image_decoding import decode_compressed
from fastwam_policy.performance.loop_figures import DEADLINE_THREAD
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

_STARTING = 60.0  # s within which the load must be there


class _TimerNode:
    """A node with all of the robot's streams and a timer on one executor, spinning on a thread of its own."""

    def __init__(self, name: str, robot: RobotConfig, on_image: Callable[[CompressedImage], object]) -> None:
        self.node, self._executor, self._ended = Node(name), SingleThreadedExecutor(), threading.Event()
        self._executor.add_node(self.node)
        sensor = qos_profile(robot.qos.sensor)
        self.chunks: list[ActionChunk] = []
        for group in robot.groups.values():
            self.node.create_subscription(JointState, group.feedback, lambda _: None, sensor)
        for camera in robot.cameras.values():
            self.node.create_subscription(CompressedImage, camera.topic, on_image, sensor)
        self.node.create_subscription(ActionChunk, robot.interfaces.action_chunk, self.chunks.append, 5)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


def bench_loop(rates: Sequence[float], seconds: float, robot_file: Path | None = None) -> list[dict[str, Any]]:
    """Periods of the loops at each rate (Hz), measured in the same run; figures as plain data, periods in ms.

    The load is real: emulator_node's cameras and joints, and policy_node with random weights. The timers' nodes
    subscribe to all of that, as a node that does everything on one executor would; one of them also decodes the images.
    `robot_file` is another robot file than the installed one.

    Raises:
        RunError: the load did not come up.
    """
    robot = RobotConfig.load(robot_file)
    rclpy.init()
    nodes: dict[str, _TimerNode] = {}
    with TemporaryDirectory() as folder, ProcessGroup(Path(folder) / "load.log") as load:
        try:
            _start_load(load, robot, robot_file, Path(folder))
            nodes["rclpy timer"] = _TimerNode("light", robot, lambda _: None)
            nodes["rclpy timer, decoding"] = _TimerNode("decoding", robot, decode_compressed)
            deadline = time.monotonic() + _STARTING
            while not nodes["rclpy timer"].chunks:
                if ended := load.ended():
                    raise RunError(f"{ended[0]} ended with status {ended[1]}")
                if time.monotonic() > deadline:
                    raise RunError(f"the policy node published no chunk within {_STARTING:g} s")
                time.sleep(0.1)
            return [_measure(nodes, rate, seconds) for rate in rates]
        finally:
            load.end()
            for node in nodes.values():
                node.close()
            rclpy.shutdown()


def _start_load(load: ProcessGroup, robot: RobotConfig, robot_file: Path | None, folder: Path) -> None:
    write_random_bundle(folder / "bundle", robot, "fold the towel")
    common = {"robot_config": robot_file} if robot_file else {}
    load.start("emulator_node", node_command("galaxea_r1lite_bridge", "emulator_node", common))
    policy = {"policy": folder / "bundle", **common}
    load.start("policy_node", node_command("fastwam_policy", "policy_node", policy))


def _measure(nodes: Mapping[str, _TimerNode], rate: float, seconds: float) -> dict[str, Any]:
    ticks: dict[str, list[int]] = {name: [] for name in (DEADLINE_THREAD, *nodes)}

    def tick(name: str) -> Callable[[], None]:
        return lambda: ticks[name].append(time.monotonic_ns())

    def failed(error: BaseException) -> None:
        raise error

    steady = Clock(clock_type=ClockType.STEADY_TIME)
    loop = DeadlineLoop(rate, tick(DEADLINE_THREAD), failed)
    timers = [(node.node, node.node.create_timer(1.0 / rate, tick(name), clock=steady)) for name, node in nodes.items()]
    loop.start()
    for _ in track(range(max(1, round(seconds))), description=f"{rate:g} Hz"):
        time.sleep(1.0)
    loop.stop()
    for node, timer in timers:
        node.destroy_timer(timer)
    return {"rate": rate, "loops": {name: _figures(np.diff(times) / 1e6, 1e3 / rate) for name, times in ticks.items()}}


def _figures(periods: NDArray[np.float64], wanted: float) -> dict[str, Any]:
    return {
        "rate": 1e3 / float(periods.mean()),
        "deviation": float(np.abs(periods - wanted).mean()),
        "p99": float(np.percentile(periods, 99)),
        "longest": float(periods.max()),
        "periods": periods.tolist(),
    }
