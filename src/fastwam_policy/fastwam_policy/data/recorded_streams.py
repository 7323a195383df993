"""What a recording says: stamps and numbers of each topic of the robot, all on one clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from fastwam_policy.data.recordings import Connection, Recording, check_topics, open_recording, stamp_ns, usable
from fastwam_policy.data.streams import Stream, follow_clocks
from fastwam_policy.policies.images import ImageError, decode_image, is_cut_off
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

TAKEOVER: Final = "takeover"
"""Name of the stream that is 1 from when a person has taken over, and 0 from when nobody has."""
_LOST: Final = 0.01  # of a recording's messages that may be damaged; of few messages one
_STATUS: Final = "fastwam_msgs/msg/BridgeStatus"


def read_streams(path: Path, robot: RobotConfig, notes: list[str]) -> dict[str, Stream]:
    """Stamps of the cameras' usable images, stamps and positions of `state GROUP` and `action GROUP`, and `TAKEOVER`.

    The last one is empty where nobody takes over. `notes` is added to: what is left out or odd.

    Raises:
        ConfigError: topics are missing or have nothing usable, too much is damaged, or a clock was set.
    """
    if raw := [name for name, camera in robot.cameras.items() if not camera.type.endswith("CompressedImage")]:
        raise ConfigError(f"cameras.{raw[0]}: only CompressedImage is converted")
    topics = {name: f"/{camera.topic}" for name, camera in robot.cameras.items()}
    for name, group in robot.commanded.items():
        topics |= {f"state {name}": f"/{group.feedback}", f"action {name}": f"/{group.target}"}
    names = {topic: name for name, topic in topics.items()}
    gates = {f"{side} {name}": robot.gates[name] for name in robot.commanded for side in ("state", "action")}
    streams = {name: Stream(len(gates[name].names) if name in gates else 0) for name in topics}
    status, takeover = f"/{robot.interfaces.bridge_status}", Stream(1)
    refused, why = Counter[str](), dict[str, str]()
    with closing(open_recording(path)) as reader:
        check_topics(reader, robot, path)
        read = damaged = 0
        wanted = [c for c in reader.connections if c.topic in names or (c.topic, c.msgtype) == (status, _STATUS)]
        for connection, log, data in reader.messages(wanted):
            if connection.topic == status:
                _add_state(takeover, reader, connection, log, data)
                continue
            read += 1
            name = names[connection.topic]
            message = usable(reader, connection, data)
            if odd := _damage(message, None if name in gates else streams[name]):
                damaged += 1
                why.setdefault(name, odd)
                continue
            try:
                values = gates[name].positions(message.name, message.position) if name in gates else ()
                streams[name].add(stamp_ns(message), log, values)
            except JointsRefusedError as error:
                refused[name] += 1
                why.setdefault(name, str(error))
        for name, stream in streams.items():
            if stream.unstamped:
                why.setdefault(name, f"{stream.unstamped} have no stamp")
        empty = [f"{n} ({why.get(n, f'none on {topics[n]}')})" for n, stream in streams.items() if not stream.stamps]
        if empty:
            raise ConfigError(f"{path}: no usable messages of {', '.join(empty)}")
        check_lost(path, damaged + reader.lost, read + reader.lost, "messages", notes)
    notes += [f"{path}: {count} messages of {name} are not used: {why[name]}" for name, count in refused.items()]
    notes += [f"{path}: {text}" for text in _on_one_clock(path, streams)]
    if not takeover.rows(range(len(takeover.stamps))).any():
        return streams | {TAKEOVER: Stream(1)}
    _settle(path, TAKEOVER, takeover)
    takeover.shift(streams[f"action {next(iter(robot.commanded))}"].shifted_ns)  # of the bridge, too: on its clock
    return streams | {TAKEOVER: takeover}


def _add_state(takeover: Stream, reader: Recording, connection: Connection, log: int, data: bytes) -> None:
    """Note who commands from a BridgeStatus on; one that cannot be read, or comes before time begins, says nothing."""
    message = usable(reader, connection, data)
    if message is not None and (stamp := stamp_ns(message)):
        takeover.add(stamp, log, [message.state == State.TAKEOVER])


def _damage(message: Any, pictures: Stream | None) -> str:
    """Why a message is not used, as far as it can be seen without decoding pictures; empty: it may be whole.

    Of `pictures` the one before it is used, as in the policy node; the first one must be whole.
    """
    if message is None:
        return "they are damaged"
    if pictures is None:
        return ""
    data = bytes(message.data)
    if is_cut_off(data):
        return "they are cut off"
    if not pictures.stamps:
        try:
            decode_image(data, message.format)
        except ImageError as error:
            return str(error)
    return ""


def _settle(path: Path, name: str, stream: Stream) -> None:
    """Leave out messages of another time; ConfigError where its clock was set."""
    try:
        stream.settle()
    except ValueError as error:
        raise ConfigError(f"{path}: {name}: {error}: record it again, or cut the recording there") from None


def _on_one_clock(path: Path, streams: Mapping[str, Stream]) -> Iterator[str]:
    """Leave out messages of another time, and shift streams of another clock; what to say of it."""
    for name, stream in streams.items():
        _settle(path, name, stream)
        if stream.unstamped:
            yield f"{name}: not used are {stream.unstamped} without a stamp"
        if stream.repeated > len(stream.stamps):
            yield f"{name}: not used are {stream.repeated} with the stamp of the one before"
        if stream.outliers:
            yield f"{name}: not used are {stream.outliers} with a stamp of another time"
    for name, behind in follow_clocks(streams).items():
        how = f"{abs(behind):.2f} s {'behind' if behind > 0 else 'ahead of'} those of the others"
        yield f"the clock of {name} is {how}: followed. Synchronise the clocks"


def check_lost(path: Path, lost: int, count: int, what: str, notes: list[str]) -> None:
    """Note what is damaged; ConfigError where it is too much."""
    if lost > max(1, _LOST * count):
        raise ConfigError(f"{path}: {lost} of {count} {what} are damaged, more than {_LOST:.0%}")
    if lost:
        notes.append(f"{path}: {lost} of {count} {what} are damaged: those before them were used")
