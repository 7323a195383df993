"""Clients take turns at a policy: one inference at a time, in a thread that owns the policy.

A client that asks again before its turn keeps its place, and only its newest request is computed.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fastwam_policy.policies.base import Ability, ActionChunk, ImaginingPolicy, Policy, StatefulPolicy
from fastwam_policy.policies.remote.server.metrics import Metrics
from fastwam_policy.policies.remote.server.requests import Answer, Ask, longest_message
from galaxea_r1lite_bridge.robot.joint_gate import places
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_CLOSING = 5.0  # s that the policy has to end an inference and to close
_LINE = 2000  # letters of an error

Found = TypeVar("Found")


class SupersededError(Exception):
    """The client has sent a newer request before this one's turn came."""


class PolicyFailedError(RuntimeError):
    """The policy, not the request, is at fault."""


@dataclass
class _Waiting:
    read: Callable[[], Ask]
    answer: asyncio.Future[Answer]
    arrived: float


class Turns:
    """Who may ask next. All methods are for one event loop.

    Attributes:
        info: what the policy says of itself.
        stateful: whether it is told what was executed; then two clients at a time would confuse it.
        max_bytes: of a message.
        metrics: what is counted.
    """

    def __init__(self) -> None:
        self._thread = _Thread()
        self._waiting: dict[Hashable, _Waiting] = {}
        self._some = asyncio.Event()
        self._to_reset: set[Hashable] = set()
        self._last: Hashable = None
        self._prepared: str | None = None
        self._policy: Policy | None = None
        self._server: asyncio.Task[None] | None = None

    async def open(self, make_policy: Callable[[], Policy]) -> None:
        """Load the policy on its thread, and prepare its default instruction.

        Raises:
            ConfigError: or whatever else keeps it from loading.
        """
        self._policy = policy = await self._thread.run(make_policy)
        info = await self._thread.run(lambda: policy.info)
        unable = frozenset[Ability]() if isinstance(policy, ImaginingPolicy) else frozenset[Ability](["imagination"])
        self.info = replace(info, abilities=info.abilities - unable)
        self.stateful = isinstance(policy, StatefulPolicy)
        self.max_bytes = longest_message(self.info, stateful=self.stateful)
        self.metrics = Metrics(self.info)
        if self.info.default_instruction:
            await self._thread.run(lambda: self._prepare(policy, self.info.default_instruction))
        self._server = asyncio.create_task(self._serve(policy))

    async def close(self) -> None:
        """Drop what waits, end the running inference, and close the policy; waits for a few seconds at most."""
        if self._server is not None:
            self._server.cancel()
        await self._thread.end(self._policy.close if self._policy is not None else lambda: None)

    def reset(self, client: Hashable) -> None:
        """A new episode of this client begins: the policy forgets before its next inference."""
        self._to_reset.add(client)

    def forget(self, client: Hashable) -> None:
        """The client is gone."""
        self._to_reset.discard(client)
        if client == self._last:
            self._last = None

    async def take(self, client: Hashable, read: Callable[[], Ask]) -> Answer:
        """Wait for the client's turn, and infer.

        Args:
            client: whose turn; the policy is reset where another one was before.
            read: makes the request when its turn comes, on the policy's thread: one that is superseded costs nothing.

        Raises:
            SupersededError: the client has asked again meanwhile.
            ValueError, ConfigError: the request is wrong.
            PolicyFailedError: the policy has failed.
        """
        older = self._waiting.get(client)
        waiting = self._waiting[client] = _Waiting(
            read, asyncio.get_running_loop().create_future(), time.perf_counter()
        )
        if older is not None and not older.answer.done():
            older.answer.set_exception(SupersededError("superseded by a newer observation, which came before its turn"))
            self.metrics.count("superseded")
        self._some.set()
        try:
            return await waiting.answer
        finally:
            if self._waiting.get(client) is waiting:  # its client has gone before its turn
                del self._waiting[client]

    async def _serve(self, policy: Policy) -> None:
        while True:
            await self._some.wait()
            if not self._waiting:
                self._some.clear()
                continue
            client = next(iter(self._waiting))
            waiting = self._waiting.pop(client)
            afresh = client != self._last or client in self._to_reset
            self._to_reset.discard(client)
            self._last = client
            try:
                found = await self._thread.run(partial(self._infer, policy, waiting, afresh=afresh))
            except Exception as error:  # noqa: BLE001  handed to the client
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            else:
                self.metrics.answered(found)
                if not waiting.answer.done():
                    waiting.answer.set_result(found)

    def _infer(self, policy: Policy, waiting: _Waiting, *, afresh: bool) -> Answer:
        """On the thread."""
        begin = time.perf_counter()
        try:
            ask = waiting.read()
            self._prepare(policy, ask.observation.instruction)
        except ValueError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        try:
            if afresh:
                policy.reset()
            elif ask.executed is not None and isinstance(policy, StatefulPolicy):
                policy.executed(ask.executed.actions, ask.executed.key_frames)
            chunk = self._checked(policy.infer(ask.observation))
            video = policy.imagine(ask.observation) if ask.imagine and isinstance(policy, ImaginingPolicy) else None
        except ConfigError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        end = time.perf_counter()
        return Answer(chunk, video, 1e3 * (begin - waiting.arrived), 1e3 * (end - begin))

    def _failed(self, error: Exception) -> PolicyFailedError:
        logging.getLogger(__name__).exception("%s failed", self.info.name)
        return PolicyFailedError(f"{self.info.name} failed: {type(error).__name__}: {error}")

    def _prepare(self, policy: Policy, instruction: str) -> None:
        if instruction != self._prepared:
            policy.prepare(instruction)
            self._prepared = instruction

    def _checked(self, chunk: ActionChunk) -> ActionChunk:
        """The chunk with its columns in the order that `info` says; ValueError where it is not what `info` says."""
        names = [channel.name for channel in self.info.action]
        actions = np.asarray(chunk.actions, np.float64)[:, places(chunk.names, names)]
        if len(actions) != self.info.horizon or chunk.step_ns != self.info.step_ns:
            raise ValueError(
                f"a chunk has {len(actions)} steps of {chunk.step_ns} ns, "
                f"its info says {self.info.horizon} of {self.info.step_ns} ns"
            )
        if not np.isfinite(actions).all():
            raise ValueError("a chunk has numbers that are not finite")
        return replace(chunk, names=names, actions=actions)


class _Thread:
    """Runs what an event loop asks for, one after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], Found]) -> Found:
        """What it returns, or raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()

        def settle(act: Callable[[Any], None], value: Any) -> None:
            if not answer.done():
                act(value)

        def job() -> None:
            try:
                act, value = answer.set_result, work()
            except BaseException as error:  # noqa: BLE001  handed to the one that waits, who must not wait forever
                failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
                act, value = answer.set_exception, failure  # type: ignore[assignment]
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, act, value)

        self._work.put(job)
        return await answer

    async def end(self, last: Callable[[], None]) -> None:
        """End the thread after `last`; a thread that does not end in time is left behind, and ends with the process."""
        self._work.put(last)
        self._work.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSING)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def one_line(error: BaseException) -> str:
    """What is sent to a client."""
    return " ".join(str(error).split())[:_LINE] or type(error).__name__
