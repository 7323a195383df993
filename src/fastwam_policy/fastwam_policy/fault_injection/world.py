"""The nodes that faults are injected into, and a record of what the bridge publishes. One world serves many faults."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat
from fastwam_policy.fault_injection.leader import RATE, Leader
from fastwam_policy.fault_injection.operator_terminal import OperatorTerminal
from fastwam_policy.fault_injection.smooth_chunks import SmoothChunks
from fastwam_policy.launching.rig import Rig
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds, time_message
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

Kind = Literal["smooth", "clock", "takeover", "policy", "task"]
"""Chunks come from this process, which makes the time as well with `clock`, and takes over with `takeover`; or from
policy_node, with `task` in a task that `fastwam operate` runs."""
ROBOT, BRIDGE, POLICY = "emulator_node", "bridge_node", "policy_node"

_BEAT = 0.05  # s between heartbeats
_TICK = 0.005  # s between two times of a simulated clock
_FEEDBACK_RATE = 100.0  # Hz
_RETRY = 1.0  # s until it is tried to move the arms again: services are discovered one by one
_MOVING = 0.1  # rad/s: the fault comes while the arms move at least so fast


@dataclass
class Sent:
    """A command of the bridge."""

    stamp_ns: int
    arrival: float
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


class SimulatedClock:
    """Time that goes on at `rate`, and can be set; on the steady clock."""

    def __init__(self) -> None:
        self._begin_ns, self._begin, self._rate = time.time_ns(), time.monotonic(), 1.0

    def now_ns(self) -> int:
        """The time."""
        return self._begin_ns + round(1e9 * self._rate * (time.monotonic() - self._begin))

    def set(self, *, step: float = 0.0, rate: float | None = None) -> None:
        """Step by so many s, and go on at another rate."""
        self._begin_ns, self._begin = self.now_ns() + round(1e9 * step), time.monotonic()
        self._rate = self._rate if rate is None else rate


class World(Rig):
    """The nodes of one kind of faults, in this process's ROS domain.

    Attributes:
        sent: commands of the bridge since :meth:`begin`.
        statuses: its status, with the time of arrival.
        pressed: of the heartbeat that this process sends; None: it sends none.
        clock: the nodes' time, where this process makes it.
        leader: a person's input.
    """

    def __init__(self, kind: Kind, robot: RobotConfig, bundle: Path, log: Path, robot_file: Path | None) -> None:
        super().__init__("safety_check", robot, log, robot_file)
        self.kind, self._bundle, names = kind, bundle, robot.interfaces
        self.sent: list[Sent] = []
        self.statuses: list[tuple[float, BridgeStatus]] = []
        self.pressed: bool | None = None
        self.clock = SimulatedClock()
        self._source: SmoothChunks | None = None
        self._robot_file = robot_file
        self._operator: OperatorTerminal | None = None
        self._sessions = itertools.count(1)
        self._over = threading.Event()
        self._hurt: set[str] = set()
        self._emulated = False
        self._sources: list[SmoothChunks] = []
        self._foreign: list[Any] = []
        self.leader = Leader(self.node, robot, lambda: self.sent[-1].positions, lambda: self.state == State.TAKEOVER)
        make = self.node.create_publisher
        self.chunks, self.estop = make(ActionChunk, names.action_chunk, 5), make(Bool, names.estop, 10)
        self.heartbeat, self.time = make(Heartbeat, names.heartbeat, 10), make(Clock, "/clock", 10)
        self.node.create_subscription(JointState, names.command, self._on_command, 100)
        self.node.create_subscription(BridgeStatus, names.bridge_status, self._on_status, 100)
        self._set = self.node.create_client(SetParameters, f"{ROBOT}/set_parameters")
        self.stopping = self.node.create_client(Trigger, names.stop)
        self.homing = self.node.create_client(Trigger, names.home)
        self.takeover = self.node.create_client(SetBool, names.takeover)
        self.node.create_timer(_BEAT, self._beat)
        if kind == "clock":
            self.node.create_timer(_TICK, lambda: self.time.publish(Clock(clock=time_message(self.clock.now_ns()))))
        self._with_policy = kind in ("policy", "task")
        for name in (ROBOT, BRIDGE, *([POLICY] if self._with_policy else [])):
            self._start(name)

    def begin(self, *, beats: bool) -> None:
        """Arm, and let chunks move the arms; with `beats`, under heartbeats of this process."""
        self._over = threading.Event()
        self.sent.clear()
        self.pressed = True if beats else None
        self.until(self._set.service_is_ready, ROBOT)
        if self.kind == "task":
            self._operator = OperatorTerminal(self._robot_file)
        elif not self._with_policy:
            now_ns = self.clock.now_ns if self.kind == "clock" else time.time_ns
            self._source = SmoothChunks(self.robot, self.chunks, next(self._sessions), now_ns)
            self._sources.append(self._source)
            self._source.start()
        self._until_moving()
        time.sleep(0.5)
        self._until_moving()
        if self.kind == "takeover":
            self._take_over()

    def end(self) -> None:
        """Undo the fault: everything that was hurt is started again, and the bridge is disarmed."""
        self._silence()
        if self._operator is not None:
            self._operator.close()
            self._operator = None
        for publisher in self._foreign:
            self.node.destroy_publisher(publisher)
        self._foreign.clear()
        self.clock.set(rate=1.0)
        for name in self._hurt:
            self.group.end(name)
        for name in self._hurt:
            self._start(name)
        self._hurt.clear()
        if self._emulated:
            self.emulate("none")
            self._emulated = False
        self.estop.publish(Bool(data=False))
        self.arm(wanted=False)
        self.until(lambda: self.state is not None and not self.state.armed, "the end of a fault")

    def close(self) -> None:
        """End everything, also in the middle of a fault."""
        self._silence()
        super().close()

    def _silence(self) -> None:
        """End what publishes from threads of its own, before its publishers do."""
        self._over.set()
        for source in self._sources:
            source.stop()
        self._sources.clear()

    # What faults are made of

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a node, which is started again afterwards."""
        self._hurt.add(name)
        self.group.signal(name, signal.Signals(number))

    def restart(self, name: str) -> None:
        """Kill a node and start it again."""
        self.signal(name, signal.SIGKILL)
        self.group.end(name)
        self._start(name)
        self.until(lambda: self.statuses, "a status of bridge_node")

    def emulate(self, fault: str) -> None:
        """Let the emulated robot do something wrong; config/emulator_node.yaml has the list."""
        self._emulated = True
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=fault)
        request = SetParameters.Request(parameters=[Parameter(name="fault", value=value)])
        self.until(lambda: self.ask(self._set, request), f"fault {fault} of the emulator")

    def repeat(self, rate: float, action: Callable[[], None]) -> None:
        """Do something so many times a second until the fault is over."""
        over = self._over

        def run() -> None:
            due = time.monotonic()
            while not over.wait(max(0.0, due - time.monotonic())):
                action()
                due = max(due + 1 / rate, time.monotonic() - 1 / rate)

        threading.Thread(target=run, daemon=True).start()

    def feedback(self, group: str) -> Any:
        """A second publisher of a group's feedback; it ends with the world."""
        return self.node.create_publisher(
            JointState, self.robot.groups[group].feedback, qos_profile(self.robot.qos.sensor)
        )

    def foreign_publisher(self, topic: str) -> None:
        """A publisher of a robot's target, which only the bridge may have; it ends with the fault."""
        self._foreign.append(self.node.create_publisher(JointState, topic, qos_profile(self.robot.qos.target)))

    @property
    def operator(self) -> OperatorTerminal:
        """Who runs the task."""
        assert self._operator is not None
        return self._operator

    @property
    def smooth(self) -> SmoothChunks:
        """What makes the chunks in this process."""
        assert self._source is not None
        return self._source

    def another_policy(self, *, session: int | None = None) -> None:
        """Chunks of the opposite motion, of another session unless it is given."""
        own = next(self._sessions) if session is None else session
        other = SmoothChunks(self.robot, self.chunks, own, self.smooth.now_ns, direction=-1.0)
        other.start()
        self._sources.append(other)

    # What the bridge says

    @property
    def state(self) -> State | None:
        """Of the bridge."""
        return State(self.statuses[-1][1].state) if self.statuses else None

    def dropped(self) -> dict[Reason, int]:
        """Chunks that the bridge has dropped."""
        return {Reason(drop.reason): drop.count for drop in self.statuses[-1][1].drops} if self.statuses else {}

    def _start(self, name: str) -> None:
        timed = {"use_sim_time": True} if self.kind == "clock" else {}
        parameters: dict[str, dict[str, object]] = {
            ROBOT: {"feedback_rate": _FEEDBACK_RATE, "cameras": self._with_policy},
            BRIDGE: {"require_heartbeat": self.kind == "task"},
            POLICY: {"policy": self._bundle, "run_on_start": self.kind != "task"},
        }
        package = "fastwam_policy" if name == POLICY else "galaxea_r1lite_bridge"
        if name == BRIDGE:
            self.statuses.clear()
        self.start(package, name, **parameters[name], **timed)

    def _until_moving(self) -> None:
        """Arm, and let the operator start the task, again and again: on a busy machine a heartbeat may come late."""
        tried = 0.0

        def moving() -> bool:
            nonlocal tried
            if self._moving():
                return True
            if time.monotonic() - tried > _RETRY and self.state not in (State.TRACKING, State.STOPPING):
                tried = time.monotonic()
                if self._operator is not None:
                    self._operator.press("s" if self.state == State.HOLDING else "a")
                elif self.state != State.HOLDING:
                    self.ask(self.arming, SetBool.Request(data=True))
            return False

        self.until(moving, "motion of the arms")

    def _take_over(self) -> None:
        """Follow a person instead of the chunks, which go on."""
        self.leader.spoil = lambda positions: positions
        self.repeat(RATE, self.leader.publish)
        self.until(lambda: self._answered(self.takeover, SetBool.Request(data=True)), "taking over")
        self.until(lambda: self.state == State.TAKEOVER and self._fast(), "motion of a person's input")

    def _answered(self, client: Any, request: Any) -> bool:
        answer = self.ask(client, request)
        return answer is not None and bool(answer.success)

    def _moving(self) -> bool:
        return self.state == State.TRACKING and self._fast()

    def _fast(self) -> bool:
        arms = self.robot.is_arm
        return bool(self.sent and np.abs(self.sent[-1].velocities[arms]).max() > _MOVING)

    def _beat(self) -> None:
        if self.pressed is not None:
            self.heartbeat.publish(Heartbeat(session=1, pressed=self.pressed))

    def _on_command(self, message: JointState) -> None:
        stamp_ns, positions = nanoseconds(message.header.stamp), np.array(message.position)
        self.sent.append(Sent(stamp_ns, time.monotonic(), positions, np.array(message.velocity)))

    def _on_status(self, message: BridgeStatus) -> None:
        self.statuses.append((time.monotonic(), message))
