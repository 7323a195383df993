"""The policy that an address names: what the entry points of ws://, http:// and zmq:// call.

ws://HOST:PORT                a policy that `fastwam serve` runs: it says all that must be known of it
ws://HOST:PORT#FILE.yaml      one of another project, and the mapping file that says what its numbers mean
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import ActionChunk, Frame, Observation, Pixels, PolicyInfo, PolicyUnavailableError
from fastwam_policy.policies.remote.layout import Layout
from fastwam_policy.policies.remote.lines import (
    HttpLine,
    Line,
    LineError,
    ServerError,
    TimedOutError,
    WebsocketLine,
    ZmqLine,
    one_line,
)
from fastwam_policy.policies.remote.mapping import load_mapping
from fastwam_policy.policies.remote.metadata import read_metadata
from fastwam_policy.policies.remote.own import OwnLayout, read_video
from fastwam_policy.policies.remote.protocols import PROTOCOLS, Gr00t, Message, Openpi, Ours
from fastwam_policy.policies.robot_check import check_instruction
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

KEY = "FASTWAM_API_KEY"
"""Environment variable: what a server asks for. Not an option: those are recorded."""
_GUIDANCE = "guidance"
_CONNECTING = 5.0  # s to connect, and for the greeting of a server
_FIRST_TIMEOUT, _TIMEOUT = 300.0, 30.0  # s for an answer of a server of ours: the first one may compile
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # s between two attempts, doubled from one to the other
_SCHEMES = {"ws": "ws", "wss": "ws", "http": "http", "https": "http", "zmq": "zmq", "tcp": "zmq"}
_PATHS = {"vllm-omni": "/v1/realtime/robot/openpi", "openvla": "/act", "openvla-oft": "/act"}

Found = TypeVar("Found")


def connect(address: str, mapping: str = "", realtime: str = _GUIDANCE) -> RemotePolicy:
    """A policy elsewhere.

    Args:
        address: see the module.
        mapping: a mapping file, which takes the place of the one after #.
        realtime: how a running plan is continued: the server's own way, which is guidance.

    Raises:
        PolicyUnavailableError: nobody answers there, or not as a policy does; it may later.
        ConfigError: the mapping file is wrong or does not suit the address, or what answers is another policy than the
            mapping file says.
    """
    if realtime != _GUIDANCE:
        raise ConfigError(
            f"{address}: realtime {realtime}: how a plan is continued is the server's choice; say {_GUIDANCE}"
        )
    url, _, named = address.partition("#")
    file, key = mapping or named, os.environ.get(KEY, "")
    scheme = _SCHEMES[_split(url).scheme]
    if not file:
        if scheme != "ws":
            raise ConfigError(f"{url}: name a mapping file, such as {url}#config/policies/openvla_oft.yaml")
        return _own(url, key)
    about, robot = load_mapping(Path(file).expanduser())
    wanted = {"gr00t": "zmq", "openvla": "http", "openvla-oft": "http"}.get(about.protocol, "ws")
    if wanted != scheme:
        raise ConfigError(f"{file}: protocol {about.protocol} goes over {wanted}://, the address is {url}")
    path, bare = _PATHS.get(about.protocol, ""), _split(url).path in ("", "/")
    line: Line = HttpLine(url.rstrip("/") + path if bare else url)
    if scheme == "ws":
        line = WebsocketLine(url.rstrip("/") + path if bare else url, key)
    elif scheme == "zmq":
        line = ZmqLine(url)
    wire = PROTOCOLS[about.protocol](line, about)
    if isinstance(wire, Gr00t):
        wire.key = key
    said = _greeted(wire, url)
    layout = Layout(about, robot, Path(file).stem, address)
    kind = StatefulRemotePolicy if about.protocol == "lingbot-va" else RemotePolicy
    return kind(url, wire, layout, said, (about.first_timeout_s, about.timeout_s))


def _own(url: str, key: str) -> RemotePolicy:
    wire = Ours(WebsocketLine(url, key))
    said = _greeted(wire, url)
    try:
        metadata = read_metadata(said)
    except ValueError as error:
        wire.line.close()
        raise ConfigError(f"{url}: {one_line(error)}") from None
    if metadata is None:
        wire.line.close()
        has = one_line(", ".join(list(said)[:12])) or "nothing"
        raise ConfigError(
            f"{url}: not `fastwam serve`: its first message has {has}. For a policy of another project name a "
            f"mapping file, such as {url}#config/policies/pi05_aloha.yaml"
        )
    imagines = "imagination" in metadata.policy.abilities
    kind = StatefulRemotePolicy if metadata.stateful else ImaginingRemotePolicy if imagines else RemotePolicy
    return kind(url, wire, OwnLayout(metadata.policy), said, (_FIRST_TIMEOUT, _TIMEOUT))


def _greeted(wire: Openpi, url: str) -> Message:
    """Connect, and hear what the server says of itself."""
    try:
        wire.line.open(_CONNECTING)
        return wire.greet(_CONNECTING)
    except ConfigError as error:
        wire.line.drop()
        raise ConfigError(f"{url}: {one_line(error)}") from None
    except (LineError, ValueError) as error:
        wire.line.drop()
        raise PolicyUnavailableError(f"{url}: no policy answers: {one_line(error)}") from None


def _split(url: str) -> SplitResult:
    try:
        found = urlsplit(url)
        known = bool(found.hostname) and found.port != 0
    except ValueError as error:
        raise ConfigError(f"{url}: {error}; an address is ws://HOST:PORT") from None
    if not known:
        raise ConfigError(f"{url}: names no host; an address is ws://HOST:PORT")
    return found


class _Layout(Protocol):
    """What the numbers mean: :class:`Layout` or :class:`OwnLayout`."""

    info: PolicyInfo

    def request(self, observation: Observation) -> Message:
        """What is sent for an observation."""

    def seen(self, frame: Frame) -> Message:
        """What is sent of a frame."""

    def forget(self) -> None:
        """A new episode begins."""

    def sent(self, actions: NDArray[np.float64]) -> Any:
        """Targets [N, D] in the policy's own measure."""

    def chunk(self, reply: Any, observation: Observation) -> ActionChunk:
        """What a reply to an observation means."""


class RemotePolicy:
    """See :class:`fastwam_policy.policies.base.Policy`. It connects again by itself, at first soon, then every 2 s.

    Args:
        url: for errors.
        wire: whose line is open, and greeted.
        layout: what the numbers mean.
        said: the server's greeting.
        timeouts: s for the first answer of a server, and for the others.

    Attributes:
        said: what the server last said of itself.
    """

    def __init__(self, url: str, wire: Openpi, layout: _Layout, said: Message, timeouts: tuple[float, float]) -> None:
        self._url, self._wire, self._layout, self.said, self._timeouts = url, wire, layout, said, timeouts
        self._must_reset, self._answered = True, False
        self._pause, self._not_before, self._why = 0.0, 0.0, ""

    @property
    def info(self) -> PolicyInfo:
        """What the server or the mapping file says of the policy."""
        return self._layout.info

    def prepare(self, instruction: str) -> None:
        """Nothing is sent: each request has the instruction. ConfigError where the policy does not know it."""
        check_instruction(self.info, instruction, self._url)

    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk, with the observation's stamp.

        Raises:
            PolicyUnavailableError: the server is gone, silent, or answers with an error; it is connected again.
            ConfigError: its answer is not what it has said, or the mapping file says.
        """
        return self._asked(observation, {}, lambda reply: self._layout.chunk(reply, observation))

    def reset(self) -> None:
        """The server is told before the next request."""
        self._layout.forget()
        self._must_reset = True

    def close(self) -> None:
        """End the connection."""
        self._wire.line.close()

    def _asked(self, observation: Observation, more: Message, read: Callable[[Any], Found]) -> Found:
        if (wait := self._not_before - time.monotonic()) > 0:
            raise PolicyUnavailableError(self._why, wait)
        request = self._layout.request(observation) | more
        try:
            found = read(self._exchange(request, observation))
        except PolicyUnavailableError as error:
            raise self._unavailable(error) from None
        except ConfigError as error:
            self._wire.line.drop()
            raise ConfigError(f"{self._url}: {one_line(error)}") from None
        except (LineError, ValueError) as error:
            self._answered = self._answered and isinstance(error, TimedOutError | ServerError)  # else it may be new
            raise self._unavailable(error) from None
        self._answered, self._pause = True, 0.0
        return found

    def _exchange(self, request: Message, observation: Observation) -> Any:
        wire, timeout = self._wire, self._timeouts[self._answered]
        if not wire.line.is_open:
            wire.line.open(_CONNECTING)
            said, self._must_reset = wire.greet(_CONNECTING), True
            if isinstance(wire, Ours) and read_metadata(said) != read_metadata(self.said):
                raise ConfigError(f"another policy than {self.info.name} answers there now")
            self.said = said
        if self._must_reset:
            wire.reset(observation.instruction, timeout)
            self._must_reset = False
        else:
            self._report(observation, timeout)
        return wire.infer(request, timeout)

    def _report(self, observation: Observation, timeout: float) -> None:
        """Tell the server what was executed, if it wants to know."""

    def _unavailable(self, error: Exception) -> PolicyUnavailableError:
        self._wire.line.drop()
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        self._not_before = time.monotonic() + self._pause
        self._why = f"{self._url}: {one_line(error)}"
        return PolicyUnavailableError(self._why, self._pause)


class StatefulRemotePolicy(RemotePolicy):
    """One that is also told what its robot did; see :class:`fastwam_policy.policies.base.StatefulPolicy`."""

    _done: tuple[NDArray[np.float64], Sequence[Frame]] | None = None

    def executed(self, actions: NDArray[np.float64], key_frames: Sequence[Frame]) -> None:
        """It is sent with the next request."""
        self._done = actions, key_frames

    def reset(self) -> None:
        """As :class:`RemotePolicy`'s."""
        super().reset()
        self._done = None

    def _report(self, observation: Observation, timeout: float) -> None:
        if self._done is None:
            return
        (actions, frames), self._done = self._done, None
        seen = [self._layout.seen(frame) for frame in frames]
        self._wire.executed(seen, self._layout.sent(actions), observation.instruction, timeout)


class ImaginingRemotePolicy(RemotePolicy):
    """One that also predicts what its cameras will see; see :class:`fastwam_policy.policies.base.ImaginingPolicy`."""

    def imagine(self, observation: Observation) -> Pixels:
        """Its video, RGB [F, H, W, 3]; the server computes a chunk as well, and nobody else's meanwhile. As `infer`."""
        return self._asked(observation, {"imagine": True}, read_video)
