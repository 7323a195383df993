"""A policy on another machine: the client of `fastwam serve`."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fastwam_policy.policies.base import ActionChunk, Observation, PolicyInfo
from fastwam_policy.policies.remote.wire import INFO, decode_chunk, encode_observation
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TIMEOUT = 30.0  # s for an answer: a first inference may compile or warm up


class RemotePolicy:
    """See :class:`fastwam_policy.policies.base.Policy`.

    Args:
        address: such as http://workstation:8200.

    Raises:
        ConfigError: no server answers there, or not as `fastwam serve` does.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        try:
            self._info = INFO.validate_json(self._ask("/policy"))
        except ValueError as error:
            raise ConfigError(f"{self._address}: not a policy of this version: {error}") from None

    @property
    def info(self) -> PolicyInfo:
        """What the server says of its policy."""
        return self._info

    def prepare(self, instruction: str) -> None:
        """Nothing: the server prepares an instruction when it first comes."""

    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk; ConfigError where the server refuses or is gone."""
        return decode_chunk(self._ask("/infer", encode_observation(observation)))

    def reset(self) -> None:
        """As the served policy's."""
        self._ask("/reset", b"")

    def close(self) -> None:
        """Nothing: each request has a connection of its own."""

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        try:
            with urlopen(Request(self._address + path, data), timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise ConfigError(f"{self._address}: {error.read().decode(errors='replace')}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ConfigError(
                f"{self._address}: no policy answers ({error}); `fastwam serve POLICY` runs one"
            ) from None
