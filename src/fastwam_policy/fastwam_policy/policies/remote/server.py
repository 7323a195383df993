"""A policy on another machine, over HTTP: `fastwam serve BUNDLE` there, its address in place of a bundle here.

One request is one inference. Observations and chunks travel as NumPy archives (.npz, read without pickle).

    GET  /policy    the bundle's policy.yaml as JSON
    POST /infer     an observation; the answer is a chunk, or with status 400 a sentence that says what is wrong
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import astuple
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from fastwam_policy.policies.base import ActionChunk, Observation, Policy, RunningPlan, Timing
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TIMEOUT = 30.0  # s for an answer: a first inference may compile or warm up
_IMAGE = "image."
_BAD_REQUEST, _NOT_FOUND = 400, 404


class RemotePolicy:
    """The client. See :class:`fastwam_policy.policies.base.Policy`.

    Args:
        address: such as http://workstation:8200.

    Raises:
        ConfigError: nobody answers there, or not as `fastwam serve` does.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        try:
            self.config = BundleConfig.model_validate_json(self._ask("/policy"))
        except ValueError as error:
            raise ConfigError(f"{self._address}: not a policy of this version: {error}") from None

    def prepare(self, instruction: str) -> None:
        """Nothing: the server prepares an instruction when it first comes."""

    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk; ConfigError where the server refuses or is gone."""
        return decode_chunk(self._ask("/infer", encode_observation(observation)))

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        try:
            with urlopen(Request(self._address + path, data), timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            raise ConfigError(f"{self._address}: {error.read().decode(errors='replace')}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ConfigError(
                f"{self._address}: no policy answers ({error}); `fastwam serve BUNDLE` runs one"
            ) from None


def serve(policy: Policy, config: BundleConfig, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Answer requests one after the other until the process ends; `ready` is told the port (0 chooses a free one).

    Raises:
        ConfigError: the port is in use or not allowed.
    """
    prepared = [""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/policy":
                self._answer(200, config.model_dump_json().encode())
            else:
                self._answer(_NOT_FOUND, b"GET /policy or POST /infer")

        def do_POST(self) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                observation = decode_observation(body)
                if observation.instruction != prepared[0]:
                    policy.prepare(observation.instruction)
                    prepared[0] = observation.instruction
                answer = encode_chunk(policy.infer(observation))
            except (ConfigError, ValueError, KeyError, OSError) as error:
                self._answer(_BAD_REQUEST, str(error).encode())
            else:
                self._answer(200, answer)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a line for each inference helps nobody."""

    try:
        server = HTTPServer((host, port), Handler)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: {error.strerror}; choose another --port") from None
    with server:
        ready(server.server_address[1])
        server.serve_forever()


def encode_observation(observation: Observation) -> bytes:
    """As an archive."""
    entries: dict[str, Any] = {
        "stamp_ns": observation.stamp_ns,
        "instruction": observation.instruction,
        "names": list(observation.joints),
        "positions": list(observation.joints.values()),
    }
    if observation.running is not None:
        entries |= {"running": observation.running.actions, "committed": observation.running.committed}
    return _pack(entries | {_IMAGE + name: pixels for name, pixels in observation.images.items()})


def decode_observation(data: bytes) -> Observation:
    """From an archive; ValueError where it is none, KeyError where an entry is missing."""
    entries = _unpack(data)
    running = None
    if "running" in entries:
        running = RunningPlan(entries["running"], int(entries["committed"]))
    joints = dict(zip(entries["names"].tolist(), entries["positions"].tolist(), strict=True))
    images = {name.removeprefix(_IMAGE): value for name, value in entries.items() if name.startswith(_IMAGE)}
    return Observation(int(entries["stamp_ns"]), images, joints, str(entries["instruction"]), running)


def encode_chunk(chunk: ActionChunk) -> bytes:
    """As an archive."""
    return _pack(
        {
            "stamp_ns": chunk.stamp_ns, "step_ns": chunk.step_ns, "names": chunk.names, "actions": chunk.actions,
            "timing": astuple(chunk.timing), "committed": chunk.committed,
        }
    )  # fmt: skip


def decode_chunk(data: bytes) -> ActionChunk:
    """From an archive; ValueError where it is none, KeyError where an entry is missing."""
    entries = _unpack(data)
    return ActionChunk(
        int(entries["stamp_ns"]), int(entries["step_ns"]), entries["names"].tolist(), entries["actions"],
        Timing(*entries["timing"].tolist()), int(entries["committed"]),
    )  # fmt: skip


def _pack(entries: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **entries)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # noqa: BLE001  zipfile and numpy fail in many ways on damaged data
        raise ValueError(f"not an archive of NumPy arrays ({error})") from None
