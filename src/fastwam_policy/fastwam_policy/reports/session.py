"""Read a session's recording into arrays: chunks, targets, commands, feedback and status."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fastwam_policy.data.recordings import open_recording, positions, stamp_ns
from galaxea_r1lite_bridge.robot.config import RobotConfig

STAGES = ("decode", "encode", "prefill", "denoise", "total")
_FORMER_IDENTITY = "fastwam/bundle"  # of recordings of version 0.1: name, origin, folder, weights, sha256
_NS = 1_000_000_000


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


def read_session(recording: Path, robot: RobotConfig) -> Session:
    """Read a recording of recorder_node; raises ConfigError where it cannot be opened."""
    reader = open_recording(recording)
    try:
        begin = reader.start_time
        session = Session((reader.end_time - begin) / _NS if reader.message_count else 0.0)
        chunk_topic, policy_topic, bridge_topic = (
            robot.interfaces.action_chunk, robot.interfaces.policy_status, robot.interfaces.bridge_status,
        )  # fmt: skip
        series: dict[str, tuple[dict[str, Series], str, int]] = {}
        for name, group in robot.groups.items():
            count = len(group.joints)
            series[group.feedback] = (session.feedback, name, count)
            series[group.target] = (session.commands, name, count)
            series[f"{robot.recorded_prefix}/{group.target}"] = (session.recorded, name, count)
        samples: dict[str, list[tuple[float, NDArray[np.float64]]]] = {topic: [] for topic in series}
        # A namespace stands before every topic alike: the chunk topic tells it.
        prefix = next(
            (c.topic.removesuffix(chunk_topic) for c in reader.connections if c.topic.endswith(chunk_topic)), "/"
        )
        interfaces = robot.interfaces
        others = {interfaces.policy_identity, _FORMER_IDENTITY, interfaces.simulation, interfaces.imagination}
        wanted = others | {*samples, chunk_topic, policy_topic, bridge_topic}
        connections = [c for c in reader.connections if c.topic.removeprefix(prefix) in wanted]
        for connection, _, data in reader.messages(connections):
            topic = connection.topic.removeprefix(prefix)
            message: Any = reader.deserialize(data, connection.msgtype)
            if topic in samples:
                values = positions(message, series[topic][2])
                if len(values) == series[topic][2]:
                    samples[topic].append(((stamp_ns(message) - begin) / _NS, values))
            elif topic == chunk_topic:
                session.chunks.append(_chunk(message, begin, robot.joint_names))
            elif topic == policy_topic:
                session.policy_status.append(message)
            elif topic == bridge_topic:
                session.bridge_status.append(message)
            elif topic in (interfaces.policy_identity, _FORMER_IDENTITY):
                session.identity = yaml.safe_load(message.data)
            elif topic == interfaces.simulation:
                session.simulation.append(message)
            elif topic == interfaces.imagination:
                session.imagined.append(message)
    finally:
        reader.close()
    for topic, (target, name, _) in series.items():
        if samples[topic]:
            times, rows = zip(*samples[topic], strict=True)
            target[name] = Series(np.array(times), np.array(rows))
    return session


def _chunk(message: Any, begin: int, names: list[str]) -> RecordedChunk:
    step = (message.step.sec * _NS + message.step.nanosec) / _NS
    order = [message.trajectory.joint_names.index(name) for name in names]
    actions = np.array([point.positions for point in message.trajectory.points])[:, order]
    start = (stamp_ns(message) - begin) / _NS
    latency = tuple(float(getattr(message, f"{stage}_ms")) for stage in STAGES)
    return RecordedChunk(int(message.chunk_id), start + step * np.arange(len(actions)), actions, latency)
