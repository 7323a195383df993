"""A policy on another machine: the client of `fastwam serve`."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fastwam_policy.policies.base import ActionChunk, Observation, PolicyInfo
from fastwam_policy.policies.remote.bounds import body_limit
from fastwam_policy.policies.remote.wire import INFO, MAX_INFO, chunk_bounds, decode_chunk, encode_observation
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TIMEOUT = 30.0  # s for an answer: a first inference may compile or warm up
_ERROR = 4096  # bytes of an error that are shown


class RemotePolicy:
    """See :class:`fastwam_policy.policies.base.Policy`.

    Args:
        address: such as http://workstation:8200.

    Raises:
        ConfigError: no server answers there, or not as `fastwam serve` does.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        answer = self._ask("/policy", MAX_INFO)
        try:
            self._info = INFO.validate_json(answer)
        except ValueError as error:
            raise ConfigError(f"{self._address}: not a policy of this version: {error}") from None
        self._limit = body_limit(chunk_bounds(self._info))

    @property
    def info(self) -> PolicyInfo:
        """What the server says of its policy."""
        return self._info

    def prepare(self, instruction: str) -> None:
        """Nothing: the server prepares an instruction when it first comes."""

    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk; ConfigError where the server refuses or is gone."""
        answer = self._ask("/infer", self._limit, encode_observation(observation, self._info))
        try:
            return decode_chunk(answer, self._info)
        except ValueError as error:
            raise ConfigError(f"{self._address}: not a chunk of {self._info.name}: {error}") from None

    def reset(self) -> None:
        """As the served policy's."""
        self._ask("/reset", 0, b"")

    def close(self) -> None:
        """Nothing: each request has a connection of its own."""

    def _ask(self, path: str, most: int, data: bytes | None = None) -> bytes:
        """Answer of at most so many bytes."""
        try:
            with urlopen(Request(self._address + path, data), timeout=_TIMEOUT) as answer:
                found = bytes(answer.read(most + 1))
        except HTTPError as error:
            raise ConfigError(f"{self._address}: {error.read(_ERROR).decode(errors='replace')}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ConfigError(
                f"{self._address}: no policy answers ({error}); `fastwam serve POLICY` runs one"
            ) from None
        if len(found) > most:
            raise ConfigError(f"{self._address}{path}: the answer is longer than {most} bytes: not of this policy")
        return found
