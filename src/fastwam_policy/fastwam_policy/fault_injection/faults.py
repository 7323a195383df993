"""`fastwam check-safety`: faults are injected into the real nodes, over real ROS 2, while the arms move.

The robot is emulator_node. Where the policy itself is the fault it is the real policy_node with random weights;
otherwise chunks of one smooth motion come from this process, so that they can be delayed, reordered and damaged.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rclpy
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rich.progress import Progress
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat
from fastwam_policy.fault_injection.fault_table import Row, extremes, time_to_hold
from fastwam_policy.launching.rig import Rig
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import duration_message, nanoseconds, time_message
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays

_STEP_NS = 66_666_667
_HORIZON = 32
_REPLAN, _LATENCY = 0.5, 0.1  # s
_SWING, _PERIOD = 0.3, 3.0  # rad and s of the smooth motion: up to 0.63 rad/s
_MOVING = 0.1  # rad/s: the fault comes while the arms move at least so fast
_MAX_DT = 0.02  # s, two control periods
_LAST = 20  # status messages, one second of them, that the state afterwards is taken from


@dataclass
class _Sent:
    stamp_ns: int
    arrival: float
    positions: np.ndarray
    velocities: np.ndarray


class _World(Rig):
    """The nodes, started again for each fault, and a record of what the bridge publishes."""

    def __init__(self, robot: RobotConfig, bundle: Path, log: Path, robot_file: Path | None) -> None:
        super().__init__("safety_check", robot, log, robot_file)
        self._bundle = bundle
        names = robot.interfaces
        self.sent: list[_Sent] = []
        self.statuses: list[tuple[float, BridgeStatus]] = []
        self.node.create_subscription(JointState, names.command, self._on_command, 100)
        self.node.create_subscription(
            BridgeStatus, names.bridge_status, lambda m: self.statuses.append((time.monotonic(), m)), 100
        )
        self.chunks = self.node.create_publisher(ActionChunk, names.action_chunk, 5)
        self.estop = self.node.create_publisher(Bool, names.estop, 10)
        self.heartbeat = self.node.create_publisher(Heartbeat, names.heartbeat, 10)
        self.clock = self.node.create_publisher(Clock, "/clock", 10)
        self._set = self.node.create_client(SetParameters, "emulator_node/set_parameters")
        self.home, self.arms = robot.home, robot.is_arm

    def _on_command(self, message: JointState) -> None:
        stamp_ns, positions = nanoseconds(message.header.stamp), np.array(message.position)
        self.sent.append(_Sent(stamp_ns, time.monotonic(), positions, np.array(message.velocity)))

    def start_policy(self) -> None:
        self.start("fastwam_policy", "policy_node", policy=self._bundle)

    def kill(self, name: str) -> None:
        self.group.signal(name, signal.SIGKILL)

    def freeze(self, name: str) -> None:
        self.group.signal(name, signal.SIGSTOP)

    @property
    def state(self) -> State | None:
        return State(self.statuses[-1][1].state) if self.statuses else None

    def dropped(self, reason: Reason) -> bool:
        """Whether a chunk has been dropped for it."""
        return bool(self.statuses) and any(drop.reason == reason for drop in self.statuses[-1][1].drops)

    def emulator_is_ready(self) -> bool:
        return bool(self._set.service_is_ready())

    def emulate(self, fault: str) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=fault)
        request = SetParameters.Request(parameters=[Parameter(name="fault", value=value)])
        self.until(lambda: self.ask(self._set, request), f"fault {fault} of the emulator")

    def wait_for_motion(self) -> None:
        def moving() -> bool:
            fast = self.sent and np.abs(self.sent[-1].velocities[self.arms]).max() > _MOVING
            return bool(fast and self.state == State.TRACKING)

        self.until(moving, "motion of the arms")
        time.sleep(0.5)
        self.until(moving, "motion of the arms")


@dataclass
class _Chunks:
    """Chunks of one smooth motion, published from a thread; `spoil` may change, hold back or multiply them."""

    world: _World
    session: int = 1
    direction: float = 1.0
    now_ns: Callable[[], int] = time.time_ns
    latency: float = _LATENCY
    spoil: Callable[[list[ActionChunk]], list[ActionChunk]] = lambda chunks: chunks
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Chunks:
        self._begin_ns = self.now_ns()
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            stamp_ns = self.now_ns()
            begin, number = time.monotonic(), number + 1
            if self._ended.wait(self.latency):
                return
            for chunk in self.spoil([self._make(number, stamp_ns)]):
                self.world.chunks.publish(chunk)
            self._ended.wait(max(0.0, begin + _REPLAN - time.monotonic()))

    def _make(self, number: int, stamp_ns: int) -> ActionChunk:
        world = self.world
        t = (stamp_ns - self._begin_ns + _STEP_NS * np.arange(_HORIZON)) / 1e9
        swing = self.direction * _SWING * np.sin(2 * math.pi * t / _PERIOD)
        rows = world.home + np.where(world.arms, swing[:, None] * np.resize([1.0, 0.3, -0.5, 1.0, 0.5, 1.0], 14), 0.0)
        chunk = ActionChunk(
            session=self.session, chunk_id=number, epoch=1, policy_id="smooth", step=duration_message(_STEP_NS)
        )
        chunk.header.stamp = time_message(stamp_ns)
        chunk.trajectory.joint_names = world.robot.joint_names
        chunk.trajectory.points = [JointTrajectoryPoint(positions=row.tolist()) for row in rows]
        return chunk


@dataclass(frozen=True)
class _Fault:
    """One line of the table."""

    name: str
    run: Callable[[_World], Iterator[float]]
    """Yields once the arms move, then injects and yields how long to watch; afterwards it may clean up."""
    state: set[State]
    reason: set[Reason]


def _robot_and_bridge(world: _World, **parameters: object) -> None:
    world.start("galaxea_r1lite_bridge", "emulator_node", feedback_rate=100.0)
    world.start("galaxea_r1lite_bridge", "bridge_node", **parameters)
    world.until(world.emulator_is_ready, "emulator_node")
    if "use_sim_time" not in parameters:
        world.arm()


def _policy_fault(inject: Callable[[_World], None], watch: float) -> Callable[[_World], Iterator[float]]:
    def run(world: _World) -> Iterator[float]:
        _robot_and_bridge(world)
        world.start_policy()
        world.wait_for_motion()
        yield 0.0
        inject(world)
        yield watch

    return run


def _smooth_fault(
    inject: Callable[[_World, _Chunks], None], watch: float, **parameters: object
) -> Callable[[_World], Iterator[float]]:
    def run(world: _World) -> Iterator[float]:
        beat = world.node.create_timer(0.05, lambda: world.heartbeat.publish(Heartbeat(session=1, pressed=True)))
        if not parameters:
            beat.cancel()
        _robot_and_bridge(world, **parameters)
        with _Chunks(world) as chunks:
            world.wait_for_motion()
            yield 0.0
            inject(world, chunks)
            if parameters:
                beat.cancel()
            yield watch
        beat.cancel()

    return run


def _spike(seconds: float) -> Callable[[_World, _Chunks], None]:
    def inject(_: _World, chunks: _Chunks) -> None:
        chunks.latency = seconds

    return inject


def _spoilt(spoil: Callable[[list[ActionChunk]], list[ActionChunk]]) -> Callable[[_World, _Chunks], None]:
    def inject(_: _World, chunks: _Chunks) -> None:
        chunks.spoil = spoil

    return inject


def _reordered() -> Callable[[list[ActionChunk]], list[ActionChunk]]:
    waiting: list[ActionChunk] = []

    def spoil(chunks: list[ActionChunk]) -> list[ActionChunk]:
        waiting.extend(chunks)
        if len(waiting) < 2:
            return []
        pair = waiting[::-1]
        waiting.clear()
        return pair

    return spoil


def _with_nan(chunks: list[ActionChunk]) -> list[ActionChunk]:
    for chunk in chunks:
        chunk.trajectory.points[5].positions[3] = math.nan
    return chunks


def _renamed(chunks: list[ActionChunk]) -> list[ActionChunk]:
    for chunk in chunks:
        chunk.trajectory.joint_names = [f"other_{name}" for name in chunk.trajectory.joint_names]
    return chunks


def _second_policy(world: _World, chunks: _Chunks) -> None:
    """Another policy with the opposite motion: it is dropped, the one followed since arming goes on."""
    _Chunks(world, session=2, direction=-1.0, _ended=chunks._ended).__enter__()  # noqa: SLF001


def _restart_policy(world: _World) -> None:
    world.kill("policy_node")
    world.group.end("policy_node")
    time.sleep(2.0)
    world.start_policy()
    world.until(lambda: world.dropped(Reason.CHUNK_OTHER_SESSION), "chunks after the restart")


def _restart_bridge(world: _World, _: _Chunks) -> None:
    world.kill("bridge_node")
    world.group.end("bridge_node")
    world.start("galaxea_r1lite_bridge", "bridge_node")


def _clock_back(world: _World) -> Iterator[float]:
    offset = 0.0
    timer = world.node.create_timer(
        0.005, lambda: world.clock.publish(Clock(clock=time_message(time.time_ns() + round(1e9 * offset))))
    )
    _robot_and_bridge(world, use_sim_time=True)
    world.arm()
    with _Chunks(world, now_ns=lambda: time.time_ns() + round(1e9 * offset)) as chunks:
        world.wait_for_motion()
        yield 0.0
        chunks.spoil = lambda _: []
        offset = -5.0
        yield 2.0
    timer.cancel()


_STILL = {State.HOLDING}
FAULTS = [
    _Fault(
        "SIGKILL of policy_node", _policy_fault(lambda w: w.kill("policy_node"), 3.5), _STILL,
        {Reason.PLAN_STALE, Reason.STARVED},
    ),
    _Fault(
        "SIGSTOP of policy_node", _policy_fault(lambda w: w.freeze("policy_node"), 3.5), _STILL,
        {Reason.PLAN_STALE, Reason.STARVED},
    ),
    _Fault(
        "head camera stalls", _policy_fault(lambda w: w.emulate("camera"), 4.0), _STILL,
        {Reason.PLAN_STALE, Reason.STARVED},
    ),
    _Fault(
        "policy_node killed and started again", _policy_fault(_restart_policy, 2.0), _STILL,
        {Reason.CHUNK_OTHER_SESSION},
    ),
    _Fault(
        "SIGKILL of the robot", _smooth_fault(lambda w, _: w.kill("emulator_node"), 2.0), _STILL,
        {Reason.FEEDBACK_STALE},
    ),
    _Fault(
        "SIGSTOP of the robot", _smooth_fault(lambda w, _: w.freeze("emulator_node"), 2.0), _STILL,
        {Reason.FEEDBACK_STALE},
    ),
    _Fault(
        "feedback frozen, stamps go on", _smooth_fault(lambda w, _: w.emulate("frozen"), 3.0), {State.FAULT},
        {Reason.FEEDBACK_FROZEN, Reason.TRACKING_ERROR},
    ),
    _Fault(
        "left arm's feedback jumps by 0.5 rad", _smooth_fault(lambda w, _: w.emulate("jump"), 2.0), {State.FAULT},
        {Reason.FEEDBACK_JUMPED},
    ),
    _Fault(
        "left arm's feedback is NaN", _smooth_fault(lambda w, _: w.emulate("nan"), 2.0), _STILL,
        {Reason.FEEDBACK_INVALID},
    ),
    _Fault("latency 400 ms", _smooth_fault(_spike(0.4), 3.0), {State.TRACKING}, {Reason.NONE}),
    _Fault("latency 2 s", _smooth_fault(_spike(2.0), 5.0), _STILL, {Reason.CHUNK_TOO_OLD}),
    _Fault(
        "chunks reordered", _smooth_fault(_spoilt(_reordered()), 4.0), {State.TRACKING}, {Reason.CHUNK_OUT_OF_ORDER}
    ),
    _Fault(
        "chunks duplicated", _smooth_fault(_spoilt(lambda chunks: chunks * 2), 3.0), {State.TRACKING},
        {Reason.CHUNK_OUT_OF_ORDER},
    ),
    _Fault("chunks with NaN", _smooth_fault(_spoilt(_with_nan), 3.5), _STILL, {Reason.CHUNK_NOT_FINITE}),
    _Fault("wrong joint names", _smooth_fault(_spoilt(_renamed), 3.5), _STILL, {Reason.CHUNK_WRONG_JOINTS}),
    _Fault(
        "two publishers of chunks", _smooth_fault(_second_policy, 3.0), {State.TRACKING}, {Reason.CHUNK_OTHER_SESSION}
    ),
    _Fault("/clock jumps back by 5 s", _clock_back, _STILL, {Reason.CLOCK_JUMPED_BACK}),
    _Fault(
        "emergency stop", _smooth_fault(lambda w, _: w.estop.publish(Bool(data=True)), 2.0), {State.ESTOP},
        {Reason.ESTOP_PRESSED},
    ),
    _Fault(
        "operator's heartbeat stops", _smooth_fault(lambda *_: None, 2.0, require_heartbeat=True), {State.FAULT},
        {Reason.HEARTBEAT_LOST},
    ),
    _Fault(
        "bridge_node killed and started again", _smooth_fault(_restart_bridge, 4.0), {State.DISARMED},
        {Reason.NOT_ARMED},
    ),
]  # fmt: skip


def check_safety(robot_file: Path | None = None) -> list[Row]:
    """Inject every fault in turn, in this process's ROS domain, and return the table's rows.

    `robot_file` is another robot file than the installed one.

    Raises:
        RunError: the nodes did not come up, or the arms did not begin to move.
    """
    robot = RobotConfig.load(robot_file)
    rclpy.init()
    with TemporaryDirectory() as folder, Progress() as progress:
        bundle = Path(folder) / "bundle"
        write_random_bundle(bundle, robot, "fold the towel")
        task, rows = progress.add_task("faults", total=len(FAULTS)), []
        for fault in FAULTS:
            progress.update(task, description=fault.name)
            with _world(robot, bundle, Path(folder) / "nodes.log", robot_file) as world:
                rows.append(_inject(world, fault))
            progress.advance(task)
    rclpy.shutdown()
    return rows


@contextmanager
def _world(robot: RobotConfig, bundle: Path, log: Path, robot_file: Path | None) -> Iterator[_World]:
    world = _World(robot, bundle, log, robot_file)
    try:
        yield world
    finally:
        world.close()


def _inject(world: _World, fault: _Fault) -> Row:
    steps = fault.run(world)
    next(steps)
    drops = {drop.reason: drop.count for drop in world.statuses[-1][1].drops}
    since, first = time.monotonic(), max(0, len(world.sent) - 2)
    time.sleep(next(steps))
    sent = list(world.sent)
    statuses = [status for at, status in world.statuses if at >= since]
    for _ in steps:
        pass
    limits = limit_arrays(world.robot.commanded)
    whole = extremes(np.array([s.stamp_ns for s in sent]), np.array([s.positions for s in sent]), limits, _MAX_DT)
    dropped = {Reason(d.reason) for s in statuses for d in s.drops if d.count > drops.get(d.reason, 0)}
    seen = {Reason(status.reason) for status in statuses} | dropped
    state = State(Counter(status.state for status in statuses[-_LAST:]).most_common(1)[0][0])
    after = sent[first:]
    return Row(
        fault=fault.name,
        state=state.name,
        reasons=", ".join(f"{int(r)} {r.name}" for r in sorted(seen) if r != Reason.NONE) or "none",
        as_expected=state in fault.state and bool(seen & fault.reason),
        to_hold=time_to_hold([s.arrival for s in after], [np.abs(s.velocities).max() for s in after], since),
        velocity=whole.velocity,
        acceleration=whole.acceleration,
        violations=whole.violations,
    )
