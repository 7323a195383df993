"""GR00T's protocol: requests and replies over ZeroMQ, with joints by group and a leading axis of one sample.

    {endpoint: get_action, data: {observation: {video.head: uint8 [1, H, W, 3], state.left_arm: [1, 6]}}, api_token}
    -> [{action.left_arm: float32 [1, H, 6], ...}, {}], or {error}

Newer clients nest the observation (`video: {head: ...}`) and add an axis of time; their reply has no `action.`.
ZeroMQ itself decides what a client may do before its message is whole: serve on a network that you trust.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import zmq
import zmq.asyncio

from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.server.access import Access
from fastwam_policy.policies.remote.server.groups import Groups
from fastwam_policy.policies.remote.server.requests import (
    Answer,
    Ask,
    listed,
    read_map,
    read_pictures,
    read_prompt,
)
from fastwam_policy.policies.remote.server.turns import PolicyFailedError, SupersededError, Turns, one_line

_MOST = 64  # requests at a time
_QUEUED = 2  # messages of a client that ZeroMQ keeps
_HANDSHAKE = 10_000  # ms
_ENDPOINTS = ("get_action", "reset", "ping", "get_modality_config")
_TASK = "annotation.human.action.task_description"
_TASKS = (_TASK, "annotation.human.task_description")
_SHOWN = 60  # letters of a name


class Gr00t:
    """All clients of one policy."""

    def __init__(self, turns: Turns, groups: Groups, access: Access) -> None:
        self._turns, self._groups, self._access = turns, groups, access

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[int]:
        """Answer while the context lasts; yields the port.

        Raises:
            OSError: the port is in use or not allowed.
        """
        host = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])  # ZeroMQ takes no names here
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as router:
            for option, value in (
                (zmq.LINGER, 0), (zmq.MAXMSGSIZE, self._turns.max_bytes), (zmq.RCVHWM, _QUEUED), (zmq.SNDHWM, _QUEUED),
                (zmq.HANDSHAKE_IVL, _HANDSHAKE), (zmq.IPV6, int(":" in host)),
            ):  # fmt: skip
                router.setsockopt(option, value)
            try:
                router.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}")
            except zmq.ZMQError as error:
                raise OSError(error.errno, error.strerror or str(error)) from None
            answering = asyncio.create_task(self._answer_all(router))
            try:
                yield int(router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
            finally:
                answering.cancel()

    async def _answer_all(self, router: zmq.asyncio.Socket) -> None:
        room, under_way = asyncio.Semaphore(_MOST), set[asyncio.Task[None]]()
        while True:
            await room.acquire()
            client, *rest = await router.recv_multipart()
            task = asyncio.create_task(self._respond(router, client, rest))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            task.add_done_callback(lambda _: room.release())

    async def _respond(self, router: zmq.asyncio.Socket, client: bytes, rest: list[bytes]) -> None:
        try:
            reply = await self._answer(client, rest[-1] if rest else b"")
        except SupersededError as error:
            reply = {"error": one_line(error)}
        except (ValueError, PolicyFailedError) as error:
            self._turns.metrics.count("failed" if isinstance(error, PolicyFailedError) else "refused")
            reply = {"error": one_line(error)}
        await router.send_multipart([client, *rest[:-1], pack(reply, "gr00t")])

    async def _answer(self, client: bytes, message: bytes) -> Any:
        given = read_map(unpack(message, "gr00t", self._turns.max_bytes), ("endpoint", "data", "api_token"), "")
        if not self._access.allows(given.get("api_token")):
            raise ValueError("api_token: missing or wrong")
        endpoint = given.get("endpoint", _ENDPOINTS[0])
        if endpoint == "get_action":
            data = read_map(given.get("data"), ("observation", "options"), "data")
            observation = read_map(data.get("observation"), (), "observation")
            nested = "video" in observation or "state" in observation
            flat = _flat(observation) if nested else observation
            found = await self._turns.take(client, lambda: self._ask(flat))
            return [self._actions(found, "" if nested else "action."), {"infer_ms": found.infer_ms}]
        if endpoint == "reset":
            self._turns.reset(client)
            return {}
        if endpoint == "ping":
            return {"status": "ok", "message": f"{self._turns.info.name} is served"}
        if endpoint == "get_modality_config":
            return self._modalities()
        raise ValueError(f"endpoint: {str(endpoint)[:_SHOWN]!r} is not known; known: {listed(_ENDPOINTS)}")

    def _ask(self, given: Mapping[str, Any]) -> Ask:
        info = self._turns.info
        pictures = {
            camera.name: _one_sample(given[f"video.{camera.name}"], 3)
            for camera in info.cameras
            if f"video.{camera.name}" in given
        }
        images = read_pictures(pictures, info, "observation.video")
        joints = self._groups.read(given, lambda group: f"state.{group}", "observation.")
        prompt = next((given[key] for key in _TASKS if key in given), None)
        while isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        return Ask(
            Observation(time.time_ns(), images, joints, read_prompt(prompt or None, info, f"observation.{_TASK}"))
        )

    def _actions(self, found: Answer, prefix: str) -> dict[str, Any]:
        groups = self._groups.write(found.chunk)
        return {f"{prefix}{name}": values[None].astype(np.float32) for name, values in groups.items()}

    def _modalities(self) -> dict[str, Any]:
        """Names, and steps from the observation on, of each kind of number."""
        info = self._turns.info
        now, kinds = [0], {
            "video": [camera.name for camera in info.cameras], "state": self._groups.state,
            "action": self._groups.action, "language": [_TASK],
        }  # fmt: skip
        steps = {"action": list(range(info.horizon))}
        return {
            kind: {
                "__ModalityConfig_class__": True,
                "as_json": {"delta_indices": steps.get(kind, now), "modality_keys": keys},
            }
            for kind, keys in kinds.items()
        }


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """`{video: {head: x}}` -> `{video.head: x}`; what is under `language` keeps its name."""
    flat: dict[str, Any] = {}
    for kind, values in nested.items():
        for key, value in read_map(values, (), f"observation.{kind}").items():
            flat[key if kind == "language" else f"{kind}.{key}"] = value
    return flat


def _one_sample(value: object, axes: int) -> object:
    """An array without its leading axes of length 1."""
    while isinstance(value, np.ndarray) and value.ndim > axes and value.shape[0] == 1:
        value = value[0]
    return value
