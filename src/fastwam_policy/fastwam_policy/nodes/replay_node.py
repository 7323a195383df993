"""Plays a recording in the robot's place: sensor topics as recorded, recorded targets on topics of their own."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rich.progress import Progress
from rosgraph_msgs.msg import Clock

from fastwam_policy.common.console import PlainConsole
from fastwam_policy.data.recordings import check_topics, open_recording
from galaxea_r1lite_bridge.nodes.conversions import message_class, time_message
from galaxea_r1lite_bridge.nodes.managed_node import ManagedNode, run
from galaxea_r1lite_bridge.nodes.parameters import declare_parameters
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NS = 1_000_000_000
_POLL = 0.1  # s between two questions to a node that is not active yet
_LOG_STEP = 10  # percent between two progress lines where there is no terminal
_QUEUE = 10  # messages a topic
_QUIET = 1.0  # s without a new subscriber: all have found us, and none loses the first messages
_NO_SUBSCRIBER = 10.0  # s, longest time to wait for the first one


class ReplayNode(ManagedNode):
    """Node ``replay_node``. Parameters: config/replay_node.yaml. The process ends when the recording does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("replay_node", **kwargs)

    def configure(self) -> None:
        """Open the recording and list what it lacks."""
        share = Path(get_package_share_directory("fastwam_policy"))
        self._values = declare_parameters(self, share / "config" / "replay_node.yaml")
        values = self._values
        if not values["bag"]:
            raise ConfigError("parameter bag is empty: name a rosbag2 folder, or a .mcap or .db3 file")
        self._path = Path(values["bag"]).expanduser()
        robot = RobotConfig.load(values["robot_config"])
        self._reader = open_recording(self._path)
        missing = check_topics(
            self._reader, robot, self._path, cameras=(), allow_missing=values["allow_missing"]
        )  # the policy knows which cameras are needed
        if missing:
            self.get_logger().warning(f"not in the recording: {', '.join(missing)}")
        outputs = {f"/{camera.topic}": camera.topic for camera in robot.cameras.values()}
        outputs |= {f"/{group.feedback}": group.feedback for group in robot.groups.values()}
        outputs |= {f"/{group.target}": f"{robot.recorded_prefix}/{group.target}" for group in robot.commanded.values()}
        self._connections = [connection for connection in self._reader.connections if connection.topic in outputs]
        self._outputs = {connection.topic: outputs[connection.topic] for connection in self._connections}
        self._start_ns = self._reader.start_time + round(values["start"] * _NS)
        end_ns = self._start_ns + round(values["duration"] * _NS) if values["duration"] else self._reader.end_time
        self._end_ns = min(end_ns, self._reader.end_time)
        if self._start_ns >= self._end_ns:
            length = (self._reader.end_time - self._reader.start_time) / _NS
            raise ConfigError(f"parameter start is {values['start']} s, but the recording is only {length:.2f} s long")

    def activate(self) -> None:
        """Make the publishers and start to play on a thread of its own."""
        topics = [self.resolve_topic_name(topic) for topic in self._outputs.values()]
        self.refuse_beside_others([*(["/clock"] if self._values["clock"] else []), *topics])
        self._outlets: dict[str, Publisher] = {}
        for connection in self._connections:
            kind, topic = message_class(connection.msgtype), self._outputs[connection.topic]
            # Reliable publishers reach both kinds of subscriber, as do those that keep messages for later ones.
            kept = DurabilityPolicy.TRANSIENT_LOCAL if connection.latched else DurabilityPolicy.VOLATILE
            quality = QoSProfile(depth=_QUEUE, durability=kept)
            self._outlets[connection.topic] = self.create_publisher(kind, topic, quality)
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", QoSProfile(depth=10)) if self._values["clock"] else None
        )
        self._state_clients = {
            name: self.create_client(GetState, f"{name}/get_state") for name in self._values["wait_for"] if name
        }
        self._sent, self._subscribed = 0, False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playback", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Stop playing."""
        self._stopping.set()
        self._thread.join()
        for publisher in self._outlets.values():
            self.destroy_publisher(publisher)
        for client in self._state_clients.values():
            self.destroy_client(client)

    def cleanup(self) -> None:
        """Close the recording."""
        self._reader.close()

    def _run(self) -> None:
        try:
            self._wait_for_nodes()
            self._wait_for_subscribers()
            while not self._stopping.is_set():
                self._play()
                self._check_received()
                if not self._values["loop"]:
                    break
        except Exception as error:  # noqa: BLE001  the thread's end must end the process, with its reason
            self.get_logger().fatal(f"{self._path}: {error}")
            self.exit_status = 1
        if not self._stopping.is_set():
            self.finished.set()

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + self._values["wait_timeout"]
        for name, client in self._state_clients.items():
            self.get_logger().info(f"waiting for {name} to be active")
            while not self._stopping.is_set():
                if client.service_is_ready():
                    future = client.call_async(GetState.Request())
                    while not future.done() and time.monotonic() < deadline and not self._stopping.wait(0.01):
                        pass
                    response = future.result() if future.done() else None
                    if response is not None and response.current_state.id == State.PRIMARY_STATE_ACTIVE:
                        break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} was not active after {self._values['wait_timeout']:g} s (wait_timeout)")
                self._stopping.wait(_POLL)

    def _wait_for_subscribers(self) -> None:
        found, until = 0, time.monotonic() + _NO_SUBSCRIBER
        while time.monotonic() < until and not self._stopping.wait(_POLL):
            count = sum(outlet.get_subscription_count() for outlet in self._outlets.values())
            if count > found:
                found, until = count, time.monotonic() + _QUIET

    def _check_received(self) -> None:
        """An error where a replay was for nothing."""
        if self._stopping.is_set():
            return
        if not self._sent:
            raise RuntimeError("none of its topics has a message in this part of the recording: nothing was played")
        if not self._subscribed:
            raise RuntimeError(f"no subscriber of {', '.join(self._outputs.values())}: nothing was received")

    def _play(self) -> None:
        span, rate = self._end_ns - self._start_ns, self._values["rate"]
        self.get_logger().info(f"playing {span / _NS:.1f} s of {self._path} at {rate:g} x")
        logged = 0
        with Progress(console=PlainConsole(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("replay", total=span / _NS)
            begin = time.monotonic_ns()
            for connection, stamp, data in self._reader.messages(self._connections, self._start_ns, self._end_ns + 1):
                elapsed = stamp - self._start_ns
                wait = begin + elapsed / rate - time.monotonic_ns()
                if wait > 0:
                    time.sleep(wait / _NS)
                if self._stopping.is_set():
                    return
                if self._clock_publisher is not None:
                    self._clock_publisher.publish(Clock(clock=time_message(stamp)))
                outlet = self._outlets[connection.topic]
                outlet.publish(data)
                self._sent += 1
                self._subscribed = self._subscribed or outlet.get_subscription_count() > 0
                progress.update(task, completed=elapsed / _NS)
                percent = 100 * elapsed // span
                if progress.disable and percent >= logged + _LOG_STEP:
                    logged = percent - percent % _LOG_STEP
                    self.get_logger().info(f"{logged} %, {elapsed / _NS:.1f} s")


def main() -> None:
    """Entry point."""
    run(ReplayNode)
