"""The simulated robot on the real robot's topics."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mujoco.viewer
import numpy as np
from ament_index_python.packages import get_package_share_directory
from numpy.typing import NDArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool

from fastwam_msgs.msg import RobotContact, SimulationStatus
from fastwam_msgs.srv import ResetSimulation
from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.joint_stream import subscribe_joints
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, qos_profile, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.camera import Cameras, jpeg, not_rendered
from galaxea_r1lite_sim.expert import STEP, UnreachableError
from galaxea_r1lite_sim.randomization import LEVELS, draw
from galaxea_r1lite_sim.scene import TIMESTEP
from galaxea_r1lite_sim.simulation import SETTLED, Simulation

_NS = 1_000_000_000
_EPOCH_NS = 1_000 * _NS  # simulated time begins here: a stamp of zero means "not stamped"
_STATUS_PERIOD = 0.1  # s
_EXTRA = 0.0  # the 7th entry that the robot's arm messages may carry
_WINDOW_PERIOD = 1 / 30  # s
_WINDOW_END = 0.5  # s for the window's own thread, which aborts the process when it is cut off
_ANOTHER = "choose another seed, or switch the expert off"
_BEHIND = 0.5  # s by which simulated time may lag before it is given up to catch up


class SimNode(ManagedNode):
    """Node ``sim_node``. Parameters: config/sim_node.yaml. Interfaces: the robot's, and docs/concepts/simulator.md."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sim_node", **kwargs)

    def configure(self) -> None:
        """Read the parameters and build the first scene."""
        share = Path(get_package_share_directory("galaxea_r1lite_sim"))
        self._values = values = declare_parameters(self, share / "config" / "sim_node.yaml")
        self._robot = RobotConfig.load(values["robot_config"])
        raw = [name for name in self._robot.mounts if not self._robot.cameras[name].type.endswith("CompressedImage")]
        if raw:
            raise ConfigError(f"cameras.{raw[0]}.type: the simulator publishes CompressedImage only, as the robot does")
        for line in not_rendered(self._robot, self._robot.cameras):
            self.get_logger().warning(line)
        if values["window"] and sys.platform == "linux" and not os.environ.get("DISPLAY"):
            raise ConfigError("window: needs a screen, and DISPLAY is not set; `fastwam view --web` needs none")
        self._window: Any = None
        self._level: str = values["randomization"]
        self._lock = threading.Lock()
        self._offset_ns = _EPOCH_NS
        try:
            self._begin(values["seed"], self._level)
        except UnreachableError as error:
            raise ConfigError(f"seed {values['seed']}: {error}; {_ANOTHER}") from None

    def activate(self) -> None:
        """Make the robot's topics and start the physics thread."""
        robot, sensor = self._robot, qos_profile(self._robot.qos.sensor)
        clock = ["/clock"] if self._values["clock"] else []  # not in the namespace: two simulators would share it
        self.refuse_beside_others([*clock, *(group.feedback for group in robot.groups.values())])
        self._feedback = {n: self.create_publisher(JointState, g.feedback, sensor) for n, g in robot.actuated.items()}
        topics = {name: robot.cameras[name].topic for name in self._cameras.names}
        self._images = {n: self.create_publisher(CompressedImage, topic, sensor) for n, topic in topics.items()}
        self._time = self.create_publisher(Clock, "/clock", 10) if self._values["clock"] else None
        self._success = self.create_publisher(Bool, robot.interfaces.task_success, 10)
        self._status = self.create_publisher(SimulationStatus, robot.interfaces.simulation, 10)
        target = qos_profile(robot.qos.target)
        self._targets = [
            subscribe_joints(self, g.target, robot.gates[n], self._target_callback(n), target)
            for n, g in robot.commanded.items()
        ]
        self._reset_service = self.create_service(ResetSimulation, "~/reset", self._on_reset)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()
        self.get_logger().info(f"task {self._values['task']}, seed {self._seed}, randomization {self._level}")

    def deactivate(self) -> None:
        """Stop the physics."""
        self._stopping.set()
        self._thread.join()
        if self._window is not None:
            self._window.close()
            time.sleep(_WINDOW_END)
        for subscription in self._targets:
            subscription.destroy()
        self.destroy_service(self._reset_service)
        clock = [] if self._time is None else [self._time]
        for publisher in (*self._feedback.values(), *self._images.values(), self._success, self._status, *clock):
            self.destroy_publisher(publisher)

    def _begin(self, seed: int, level: str) -> None:
        """A new scene, ready to step."""
        simulation = Simulation(self._robot, draw(seed, level, self._values["task"]))  # type: ignore[arg-type]
        cameras = Cameras(simulation, self._values["image_height"], self._values["image_height"] * 16 // 9)
        for camera in cameras.names:
            cameras.render(camera)  # compiled before time begins
        plan = simulation.plan() if self._values["expert"] else None
        if self._values["window"]:
            self._open_window(simulation)
        self._simulation, self._cameras, self._plan = simulation, cameras, plan
        self._seed, self._level, self._step = seed, level, 0
        self._done_since: float | None = None
        self._told = False
        self._arrived: deque[tuple[slice, np.ndarray, np.ndarray | None]] = deque()  # filled without waiting for a step
        self._delayed: deque[tuple[float, slice, np.ndarray, np.ndarray | None]] = deque()

    def _open_window(self, simulation: Simulation) -> None:
        if self._window is not None:
            self._window.close()
        model, data = simulation.model, simulation.data
        self._window = mujoco.viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
        view = self._window.cam
        view.lookat[:], view.distance, view.azimuth, view.elevation = (0.4, 0.0, 0.8), 1.8, 150, -30
        self._window.sync()

    def _target_callback(self, name: str) -> Callable[[JointState, NDArray[np.float64]], None]:
        place, gate = self._robot.slices[name], self._robot.gates[name]

        def store(message: JointState, positions: NDArray[np.float64]) -> None:
            if self._plan is not None:
                return
            try:
                speed = gate.speeds(message.name, message.velocity)
            except JointsRefusedError:  # it may be left out
                speed = None
            self._arrived.append((place, positions, speed))

        return store

    def _on_reset(
        self, request: ResetSimulation.Request, response: ResetSimulation.Response
    ) -> ResetSimulation.Response:
        level = request.randomization or self._level
        if level not in LEVELS or request.seed < 0:
            response.message = f"randomization must be one of {', '.join(LEVELS)}, and seed at least 0"
            return response
        try:
            with self._lock:
                now_ns = self._now_ns()
                self._begin(request.seed, level)
                self._offset_ns = now_ns  # /clock never goes back
        except UnreachableError as error:
            response.message = f"seed {request.seed}: {error}; {_ANOTHER}"
            return response
        response.success, response.message = True, f"seed {request.seed}, randomization {level}"
        self.get_logger().info(response.message)
        return response

    def _run(self) -> None:
        try:
            factor, begin, base = self._values["real_time_factor"], time.monotonic(), self._now_ns()
            recent: deque[tuple[float, int]] = deque()
            while not self._stopping.is_set():
                with self._lock:
                    self._advance(recent)
                ahead = (self._now_ns() - base) / _NS / factor - (time.monotonic() - begin)
                if ahead > 0:
                    time.sleep(ahead)
                elif ahead < -_BEHIND:
                    begin, base = time.monotonic(), self._now_ns()
        except Exception as error:  # noqa: BLE001  a dead physics thread must end the process, with its reason
            self.get_logger().fatal(f"the simulation ended: {error!r}")
            self.exit_status = 1
            self.finished.set()

    def _now_ns(self) -> int:
        return self._offset_ns + round(self._simulation.time * _NS)

    def _advance(self, recent: deque[tuple[float, int]]) -> None:
        """One step of physics, and what is due to be published."""
        simulation = self._simulation
        while self._arrived:
            self._delayed.append((simulation.time + self._values["latency"], *self._arrived.popleft()))
        while self._delayed and self._delayed[0][0] <= simulation.time:
            _, place, positions, speed = self._delayed.popleft()
            simulation.target[place] = positions
            if speed is not None and (speed > 0).all():
                simulation.speed_limit[place] = speed
        if self._plan is not None:
            simulation.target = self._plan[min(int(simulation.time / STEP), len(self._plan) - 1)].copy()
        simulation.step()
        self._step += 1
        now_ns = self._now_ns()
        if self._time is not None:
            self._time.publish(Clock(clock=time_message(now_ns)))
        else:
            now_ns = self.get_clock().now().nanoseconds
        if self._is_due(self._values["feedback_rate"]):
            self._publish_joints(now_ns)
        for index, camera in enumerate(self._cameras.names):  # one after the other, as cameras without a trigger
            if self._is_due(self._values["camera_rate"], index * 2):
                self._publish_image(camera, now_ns)
        if self._window is not None and self._is_due(1 / _WINDOW_PERIOD):
            self._window.sync()
        if self._is_due(1 / _STATUS_PERIOD, 1):
            recent.append((time.monotonic(), self._now_ns()))
            while len(recent) > 1 + round(1 / _STATUS_PERIOD):
                recent.popleft()
            self._publish_status(now_ns, recent)

    def _is_due(self, rate: float, shift: int = 0) -> bool:
        period = max(1, round(1 / (rate * TIMESTEP)))
        return self._step % period == shift % period

    def _publish_joints(self, now_ns: int) -> None:
        stamp = time_message(now_ns)
        simulation = self._simulation
        positions = np.concatenate([simulation.joints, simulation.torso])
        velocities = np.concatenate([simulation.joint_velocities, np.zeros(len(simulation.torso))])
        for name, publisher in self._feedback.items():
            place = self._robot.actuated_slices[name]
            position = self._robot.gates[name].write(positions[place]).tolist()
            if self._robot.groups[name].unit == "rad" and name in self._robot.commanded:
                position.append(_EXTRA)
            message: Any = JointState(position=position, velocity=velocities[place].tolist())
            message.header.stamp = stamp
            publisher.publish(message)

    def _publish_image(self, camera: str, now_ns: int) -> None:
        data = jpeg(self._cameras.render(camera), self._values["jpeg_quality"])
        # The robot's head camera does not write plain "jpeg" either: decode the bytes, not the label.
        label = "rgb8; jpeg compressed bgr8" if camera == "head" else "jpeg"
        message: Any = CompressedImage(format=label, data=data)
        message.header.stamp = time_message(now_ns)
        message.header.frame_id = f"camera_{camera}"
        self._images[camera].publish(message)

    def _publish_status(self, now_ns: int, recent: deque[tuple[float, int]]) -> None:
        simulation, progress = self._simulation, self._simulation.progress()
        (wall, begin), (wall_now, now) = recent[0], recent[-1]
        message = SimulationStatus(
            task=self._values["task"],
            seed=self._seed,
            time=simulation.time,
            success=progress.success,
            distance=progress.distance,
            failure=progress.failure,
            held=list(progress.held),
            grasps=list(progress.grasps.values()),
            contacts=[RobotContact(**asdict(contact)) for contact in simulation.contacts],
            real_time_factor=(now - begin) / _NS / (wall_now - wall) if wall_now > wall else 0.0,
        )
        message.header.stamp = time_message(now_ns)
        self._status.publish(message)
        if not progress.success:
            self._done_since = None
        elif self._done_since is None:
            self._done_since = simulation.time
        done = self._done_since is not None and simulation.time - self._done_since > SETTLED
        if done:
            self._success.publish(Bool(data=True))
        duration = self._values["duration"]
        over = bool(duration) and (done or simulation.time > duration)
        if not self._told and (done or over):
            what = simulation.conditions.task.done if done else f"not {simulation.conditions.task.done}"
            self.get_logger().info(f"{what} after {simulation.time:.1f} s")
            self._told = True
        if over:
            self.finished.set()


def main() -> None:
    """Entry point."""
    run(SimNode)
