"""One thread that owns the policy: loads it, warms it up, and computes a chunk at every replan time."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastwam_policy.policies.base import ActionChunk, Observation, Policy, RunningPlan
from fastwam_policy.policies.images import Pixels
from fastwam_policy.runtime.observation_buffer import ObservationBuffer, Snapshot
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.execution.plan import Chunk

_POLL = 0.005  # s between two looks at the clock, which may be a simulated one
_NS = 1_000_000_000
_LATENCIES_KEPT = 100
_LATENCIES_EXPECTED = 8  # the slowest of so many last inferences is what the next one is expected to take
_CHUNKS_KEPT = 8  # for the bridge to say which of them it follows
_TRANSPORT_NS = 20_000_000  # from the chunk's publication to its first command


@dataclass(frozen=True)
class Executing:
    """Which chunk the bridge follows, and how far its plan lies behind the clock."""

    epoch: int
    chunk_id: int
    lag_ns: int


@dataclass(frozen=True)
class ChunkResult:
    """A chunk with what the message about it says besides."""

    chunk: ActionChunk
    chunk_id: int
    epoch: int
    instruction: str
    inference_start_ns: int
    decode_ms: float
    total_ms: float

    @property
    def latency_ms(self) -> tuple[float, float, float, float, float]:
        """decode, encode, prefill, denoise, total; decode includes the image layout."""
        timing = self.chunk.timing
        return (self.decode_ms + timing.preprocess, timing.encode, timing.prefill, timing.denoise, self.total_ms)


class InferenceLoop:
    """Replans by time. The policy is made, warmed up and run on the loop's own thread and nowhere else.

    Args:
        make_policy: called once on the thread.
        buffer: where callbacks put messages.
        joints: joint names of each group in the buffer.
        decode: image decoder of each camera; raises ImageError.
        now_ns: the node's clock.
        publish: called on the thread with each chunk of the current epoch.
        replan_interval: s of the node's clock between the starts of two inferences.
        epoch: first epoch; later ones count up from it.
        executing: what the bridge follows now, for real-time chunking; None: nothing.
    """

    def __init__(
        self,
        make_policy: Callable[[], Policy],
        buffer: ObservationBuffer,
        joints: Mapping[str, list[str]],
        decode: Mapping[str, Callable[[Any], Pixels]],
        now_ns: Callable[[], int],
        publish: Callable[[ChunkResult], None],
        replan_interval: float,
        epoch: int,
        executing: Callable[[], Executing | None] = lambda: None,
    ) -> None:
        self._executing = executing
        self._make_policy = make_policy
        self._buffer = buffer
        self._joints = dict(joints)
        self._decode = dict(decode)
        self._now_ns = now_ns
        self._publish = publish
        self._interval_ns = round(replan_interval * _NS)
        self._loaded = threading.Event()
        self._active = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._load_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._instruction = ""
        self._last_stamp_ns = 0
        self._started_ns: int | None = None
        self.epoch = epoch
        self.chunks = 0
        self.reason, self.detail = PolicyReason.NONE, ""
        self._busy, self._resting = PolicyState.WAITING, PolicyState.INACTIVE
        self.drops: Counter[PolicyReason] = Counter()
        self.latencies: deque[tuple[float, ...]] = deque(maxlen=_LATENCIES_KEPT)
        self.published_at: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._results: deque[ChunkResult] = deque(maxlen=_CHUNKS_KEPT)

    def load(self, instruction: str) -> None:
        """Start the thread, and wait until the policy is loaded and warm.

        Raises:
            ConfigError: or whatever else kept the policy from loading.
        """
        self._instruction = instruction
        self._thread.start()
        self._loaded.wait()
        if self._load_error is not None:
            raise self._load_error

    @property
    def state(self) -> PolicyState:
        """What the loop is doing."""
        return self._busy if self._active.is_set() else self._resting

    def activate(self, *, start: bool = True) -> None:
        """Begin to compute chunks in a new epoch, or with `start` False wait for :meth:`start`."""
        self.chunks = 0
        self.pause()
        if start:
            self.start()

    def start(self) -> None:
        """Compute chunks from now on."""
        self._busy, self.reason, self.detail = PolicyState.WAITING, PolicyReason.NONE, ""
        self._active.set()

    def pause(self) -> None:
        """Compute no more until :meth:`start`; a running inference is finished and its chunk dropped."""
        self._rest(PolicyState.IDLE)

    def deactivate(self) -> None:
        """Compute no more; a running inference is finished and its chunk dropped."""
        self._rest(PolicyState.INACTIVE)

    def _rest(self, state: PolicyState) -> None:
        self._resting = state
        self._active.clear()
        self.reset()
        self.reason, self.detail = PolicyReason.NONE, ""

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._active.set()
        if self._thread.is_alive():
            self._thread.join()

    def reset(self) -> int:
        """Bump the epoch and forget what was seen; chunks under way are dropped. Returns the new epoch."""
        with self._lock:
            self.epoch += 1
            self._last_stamp_ns = 0
            self._started_ns = None
            self._results.clear()
        self._buffer.clear()
        return self.epoch

    def set_instruction(self, instruction: str) -> int:
        """Follow another instruction from the next inference on; returns the new epoch."""
        with self._lock:
            self._instruction = instruction
        return self.reset()

    def choose_default(self, instruction: str) -> None:
        """Use this instruction; for `make_policy`, which is the first to see the bundle."""
        self._instruction = instruction

    @property
    def instruction(self) -> str:
        """Task text in force."""
        return self._instruction

    def latency_percentile(self, percent: float) -> list[float]:
        """decode, encode, prefill, denoise, total in ms over the last chunks; empty before the first."""
        rows = list(self.latencies)
        return np.percentile(rows, percent, axis=0).tolist() if rows else []

    def _run(self) -> None:
        try:
            self._policy = self._make_policy()
            prepared = self._instruction
            self._policy.prepare(prepared)
        except Exception as error:  # noqa: BLE001  handed to the thread that waits in load()
            self._load_error = error
            return
        finally:
            self._loaded.set()
        while True:
            self._active.wait()
            if self._stopping.wait(_POLL):
                return
            try:
                if prepared != self._instruction:
                    prepared = self._instruction
                    self._policy.prepare(prepared)
                self._attempt(prepared)
            except Exception as error:  # noqa: BLE001  a dead inference thread must be seen in the status
                self._resting, self.reason, self.detail = (
                    PolicyState.FAULT,
                    PolicyReason.INFERENCE_FAILED,
                    repr(error),
                )
                self._active.clear()
                if self._stopping.is_set():  # stop() has set it before
                    return

    def _attempt(self, instruction: str) -> None:
        with self._lock:
            epoch, newer_than, started = self.epoch, self._last_stamp_ns, self._started_ns
        now_ns = self._now_ns()
        if started is not None and 0 <= now_ns - started < self._interval_ns:
            return
        begin = time.perf_counter()
        found = self._buffer.sample(now_ns, newer_than)
        if not isinstance(found, Snapshot):
            if found.reason != PolicyReason.SAME_OBSERVATION:
                self._busy, self.reason, self.detail = PolicyState.WAITING, found.reason, found.detail
            return
        images = self._buffer.decode(found, self._decode)
        if images is None:  # the next attempt takes the frame before it
            self.drops[PolicyReason.CORRUPT_IMAGE] += 1
            return
        decode_ms = 1e3 * (time.perf_counter() - begin)
        joints = found.positions(self._joints)
        running = self._running_plan(found.stamp_ns, now_ns)
        chunk = self._policy.infer(Observation(found.stamp_ns, images, joints, instruction, running))
        total_ms = 1e3 * (time.perf_counter() - begin)
        with self._lock:
            if epoch != self.epoch or instruction != self._instruction:
                self.drops[PolicyReason.INSTRUCTION_CHANGED] += 1
                return
            self._last_stamp_ns, self._started_ns = found.stamp_ns, now_ns
            self.chunks += 1
            result = ChunkResult(chunk, self.chunks, epoch, instruction, now_ns, decode_ms, total_ms)
            self._results.append(result)
        self._publish(result)
        self.latencies.append(result.latency_ms)
        self.published_at.append(time.monotonic())
        self._busy, self.reason, self.detail = PolicyState.RUNNING, PolicyReason.NONE, ""

    def _running_plan(self, stamp_ns: int, now_ns: int) -> RunningPlan | None:
        """The plan that the bridge follows, at the steps of a chunk for `stamp_ns`; None when it follows none of ours.

        Committed are the steps before the time at which the chunk is expected to be in use, and the one after it,
        up to which the bridge interpolates.
        """
        executing = self._executing()
        if executing is None or not self.latencies:
            return None
        with self._lock:
            mine = [r for r in self._results if (r.epoch, r.chunk_id) == (executing.epoch, executing.chunk_id)]
        if not mine:
            return None
        old = mine[0].chunk
        curve = Chunk(mine[0].chunk_id, mine[0].epoch, old.stamp_ns, old.step_ns, old.names, old.actions)
        shift = stamp_ns - executing.lag_ns
        steps = (curve.end_ns - shift) // old.step_ns + 1
        if steps <= 0:
            return None
        actions = np.array([curve.sample(shift + k * old.step_ns)[0] for k in range(min(steps, len(old.actions)))])
        expected_ms = max(row[-1] for row in list(self.latencies)[-_LATENCIES_EXPECTED:])
        delay_ns = now_ns - stamp_ns + round(1e6 * expected_ms) + _TRANSPORT_NS
        return RunningPlan(actions, min(len(actions), -(-delay_ns // old.step_ns) + 1))
