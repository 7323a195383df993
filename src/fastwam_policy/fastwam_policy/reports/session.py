"""Read a session's recording into arrays: chunks, targets, commands, feedback and status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.data.message_types import COMPRESSED_IMAGE, JOINT_STATE
from fastwam_policy.data.recordings import open_recording, stamp_ns, usable
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointGate, JointsRefusedError, places
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, read_yaml

STAGES = ("decode", "encode", "prefill", "denoise", "total")
_FORMER_IDENTITY = "fastwam/bundle"  # of recordings of version 0.1: name, origin, folder, weights, sha256
_STRING = "std_msgs/msg/String"
_NS = 1_000_000_000
_FAR = 86_400.0  # s: a stamp so far from the recording is wrong
_LARGEST = 1e6  # rad, mm, ms: none of a robot's numbers comes near
_LATE = 1.0  # s after the last message
_MAX_STEPS, _MAX_STEP = 1000, 100.0  # of a chunk, and s of one


@dataclass(frozen=True)
class Series:
    """Positions of one joint group over time: `times` [N] in s since the session's start, `positions` [N, joints]."""

    times: NDArray[np.float64]
    positions: NDArray[np.float64]

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Linear between the samples, NaN outside of them; [len(times), joints]."""
        columns = [np.interp(times, self.times, column, np.nan, np.nan) for column in self.positions.T]
        return np.stack(columns, axis=1)


@dataclass(frozen=True)
class RecordedChunk:
    """One published chunk. `times` [H] in s since the session's start, `actions` [H, D] in rad and mm."""

    chunk_id: int
    times: NDArray[np.float64]
    actions: NDArray[np.float64]
    latency_ms: tuple[float, ...]


@dataclass
class Session:
    """What happened between the first and the last message of a recording."""

    duration: float
    chunks: list[RecordedChunk] = field(default_factory=list)
    recorded: dict[str, Series] = field(default_factory=dict)
    """The recording's own targets, by group."""
    commands: dict[str, Series] = field(default_factory=dict)
    """What the bridge sent, by group."""
    feedback: dict[str, Series] = field(default_factory=dict)
    policy_status: list[Any] = field(default_factory=list)
    bridge_status: list[Any] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=dict)
    """What policy_node says of the policy it runs: name, origin, source, and the hash of its weights."""
    simulation: list[Any] = field(default_factory=list)
    """SimulationStatus, where the simulator stood for the robot."""
    imagined: list[Any] = field(default_factory=list)
    """Images of what the model imagined and of what happened, where imagination_node ran."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Messages that were left out, by topic."""
    begin_ns: int = 0
    """Stamp of the session's start."""

    def dated(self, messages: Sequence[Any]) -> list[tuple[float, Any]]:
        """Messages with their times, s since the session's start, in order.

        Without those from before a simulated clock began, whose stamps are 0.
        """
        times = [((stamp_ns(one) - self.begin_ns) / _NS, one) for one in messages if one.header.stamp.sec]
        return sorted(
            ((time, one) for time, one in times if 0 <= time <= self.duration + _LATE), key=lambda dated: dated[0]
        )


def read_session(recording: Path, robot: RobotConfig) -> Session:
    """Read a recording of recorder_node; raises ConfigError where it cannot be opened.

    Messages that cannot be used are left out, and counted in `Session.unusable`: a broken or second publisher's, too,
    are recorded.
    """
    reader = open_recording(recording)
    try:
        begin = reader.start_time
        session = Session((reader.end_time - begin) / _NS if reader.message_count else 0.0, begin_ns=begin)
        reading = _Reading(session, robot, begin)
        # A namespace stands before every topic alike: the chunk topic tells it.
        chunk_topic = robot.interfaces.action_chunk
        prefix = next(
            (c.topic.removesuffix(chunk_topic) for c in reader.connections if c.topic.endswith(chunk_topic)), "/"
        )
        for connection in reader.connections:
            expected, _ = reading.topics.get(connection.topic.removeprefix(prefix), (connection.msgtype, None))
            if connection.msgtype != expected and connection.msgcount:
                session.unusable[connection.topic] += connection.msgcount
        connections = [
            c
            for c in reader.connections
            if reading.topics.get(c.topic.removeprefix(prefix), (None, None))[0] == c.msgtype
        ]
        for connection, _, data in reader.messages(connections):
            take = reading.topics[connection.topic.removeprefix(prefix)][1]
            message = usable(reader, connection, data)
            if message is None or not take(message):
                session.unusable[connection.topic] += 1
    finally:
        reader.close()
    reading.finish()
    return session


class _Reading:
    """Sorts messages into a session.

    Attributes:
        topics: for each topic, its type and what is done with a message: false, where it cannot be used.
    """

    def __init__(self, session: Session, robot: RobotConfig, begin: int) -> None:
        self._session, self._names, self._begin = session, robot.joint_names, begin
        self._samples: list[tuple[dict[str, Series], str, list[tuple[float, NDArray[np.float64]]]]] = []
        names, mine = robot.interfaces, "fastwam_msgs/msg/"
        self.topics: dict[str, tuple[str, Callable[[Any], object]]] = {
            names.action_chunk: (f"{mine}ActionChunk", self._on_chunk),
            names.policy_status: (f"{mine}PolicyStatus", _kept(session.policy_status)),
            names.bridge_status: (f"{mine}BridgeStatus", _kept(session.bridge_status)),
            names.policy_identity: (_STRING, self._on_identity),
            _FORMER_IDENTITY: (_STRING, self._on_identity),
            names.simulation: (f"{mine}SimulationStatus", _kept(session.simulation)),
            names.imagination: (COMPRESSED_IMAGE, _kept(session.imagined)),
        }
        for name, group in robot.groups.items():
            for topic, target in (
                (group.feedback, session.feedback),
                (group.target, session.commands),
                (f"{robot.recorded_prefix}/{group.target}", session.recorded),
            ):
                self.topics[topic] = (JOINT_STATE, self._series(target, name, robot.gates[name]))

    def finish(self) -> None:
        """Make arrays of what came of the joints."""
        for target, name, samples in self._samples:
            if samples:
                times, rows = zip(*samples, strict=True)
                target[name] = Series(np.array(times), np.array(rows))

    def _series(self, target: dict[str, Series], name: str, gate: JointGate) -> Callable[[Any], bool]:
        samples: list[tuple[float, NDArray[np.float64]]] = []
        self._samples.append((target, name, samples))

        def take(message: Any) -> bool:
            try:
                values, time = gate.positions(message.name, message.position), self._time(message)
            except JointsRefusedError:
                return False
            good = _sensible(values) and self._near(time)
            if good:
                samples.append((time, values))
            return good

        return take

    def _on_chunk(self, message: Any) -> bool:
        points, names = message.trajectory.points, message.trajectory.joint_names
        step, start = (message.step.sec * _NS + message.step.nanosec) / _NS, self._time(message)
        rows = [point.positions for point in points[: _MAX_STEPS + 1]]
        latency = tuple(float(getattr(message, f"{stage}_ms")) for stage in STAGES)
        if not (0 < len(rows) <= _MAX_STEPS and 0 < step < _MAX_STEP and self._near(start)):
            return False
        if any(len(row) != len(names) for row in rows) or not (_sensible(rows) and _sensible(latency)):
            return False
        try:
            order = places(names, self._names)
        except JointsRefusedError:
            return False
        times = start + step * np.arange(len(rows))
        self._session.chunks.append(RecordedChunk(int(message.chunk_id), times, np.array(rows)[:, order], latency))
        return True

    def _on_identity(self, message: Any) -> bool:
        try:
            data = read_yaml(message.data, "identity", aliases=False)
        except ConfigError:
            return False
        if not isinstance(data, dict):
            return False
        self._session.identity = {str(name): str(value) for name, value in data.items()}
        return True

    def _time(self, message: Any) -> float:
        return (stamp_ns(message) - self._begin) / _NS

    def _near(self, time: float) -> bool:
        return -_FAR < time < self._session.duration + _FAR


def _kept(messages: list[Any]) -> Callable[[Any], bool]:
    def take(message: Any) -> bool:
        messages.append(message)
        return True

    return take


def _sensible(values: Any) -> bool:
    return bool((np.abs(np.asarray(values, np.float64)) < _LARGEST).all())  # NaN compares false
