"""One thread that owns the policy: loads it, warms it up, and computes a chunk at every replan time."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import (
    ActionChunk,
    Frame,
    Observation,
    Policy,
    PolicyInfo,
    PolicyUnavailableError,
    RunningPlan,
    StatefulPolicy,
)
from fastwam_policy.runtime.frames import FrameSource
from fastwam_policy.runtime.hovering import Replanning
from fastwam_policy.runtime.observation_buffer import Waiting
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_POLL = 0.005  # s between two looks at the clock, which may be a simulated one
_NS = 1_000_000_000
_LATENCIES_KEPT = 100
_LATENCIES_EXPECTED = 8  # the slowest of so many last inferences is what the next one is expected to take
_ENDING = 15.0  # s for an inference that is under way
_CHUNKS_KEPT = 8  # for the bridge to say which of them it follows
_TRANSPORT_NS = 20_000_000  # from the chunk's publication to its first command
ABSENT = PolicyInfo("", (), (), (), fps=1.0, horizon=1)
"""What is known of a policy that has not answered yet."""
_FIRST_RETRY, _RETRY = 0.1, 2.0  # s between two attempts to reach a policy elsewhere, doubled from one to the other


@dataclass(frozen=True)
class Executing:
    """Which chunk the bridge follows, and how far its plan lies behind the clock."""

    session: int
    epoch: int
    chunk_id: int
    lag_ns: int


@dataclass(frozen=True)
class ChunkResult:
    """A chunk with what the message about it says besides."""

    chunk: ActionChunk
    session: int
    epoch: int
    chunk_id: int
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
        make_policy: called on the thread, until it returns a policy.
        make_frames: called after it with what the policy says of itself: a source of the frames that it needs.
        now_ns: the node's clock.
        publish: called on the thread with each chunk of the current epoch.
        replanning: time, by the node's clock, between the starts of two inferences.
        executing: what the bridge follows now; None: nothing.
        realtime: whether chunks continue what is being executed (real-time chunking).

    Attributes:
        info: what the policy says of itself; :data:`ABSENT` while it runs elsewhere and has not answered yet.
        frames: what `make_frames` made of it.
        session: random number of this activation, by which the bridge tells it from any other.
        epoch: counts up with every reset, new instruction and activation.
    """

    info: PolicyInfo
    frames: FrameSource

    def __init__(
        self,
        make_policy: Callable[[], Policy],
        make_frames: Callable[[PolicyInfo], FrameSource],
        now_ns: Callable[[], int],
        publish: Callable[[ChunkResult], None],
        replanning: Replanning,
        executing: Callable[[], Executing | None] = lambda: None,
        *,
        realtime: bool = False,
    ) -> None:
        self._executing, self._realtime = executing, realtime
        self._make_policy = make_policy
        self._make_frames = make_frames
        self._now_ns = now_ns
        self._publish = publish
        self._replanning, self._interval_ns = replanning, 0
        self._loaded = threading.Event()
        self._active = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._load_error: Exception | None = None
        self._why = PolicyReason.NONE, ""  # there is no policy yet
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._instruction = ""
        self._last_stamp_ns = 0
        self._started_ns: int | None = None
        self._policy_epoch = self.epoch = 0
        self.session = 0
        self.chunks = 0
        self.reason, self.detail = PolicyReason.NONE, ""
        self._busy, self._resting = PolicyState.WAITING, PolicyState.INACTIVE
        self.drops: Counter[PolicyReason] = Counter()
        self.latencies: deque[tuple[float, ...]] = deque(maxlen=_LATENCIES_KEPT)
        self.published_at: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._results: deque[ChunkResult] = deque(maxlen=_CHUNKS_KEPT)

    def load(self, instruction: str) -> None:
        """Start the thread, and wait until the policy is loaded and warm; an empty instruction is the policy's default.

        A policy that runs elsewhere and does not answer is not waited for here: the thread asks again until it does.

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
        """Begin to compute chunks in a new session, or with `start` False wait for :meth:`start`."""
        self.chunks, self.session = 0, secrets.randbits(64)
        self.pause()
        if start:
            self.start()

    def start(self) -> None:
        """Compute chunks from now on."""
        self._busy = PolicyState.WAITING
        self.reason, self.detail = self._why
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
        self.reason, self.detail = self._why

    def stop(self) -> None:
        """End the thread; one that waits for a policy elsewhere is left alone after a while, and ends by itself."""
        self._stopping.set()
        self._active.set()
        if self._thread.is_alive():
            self._thread.join(_ENDING)

    def reset(self) -> int:
        """Bump the epoch and forget what was seen; chunks under way are dropped. Returns the new epoch."""
        with self._lock:
            self.epoch += 1
            self._last_stamp_ns = 0
            self._started_ns = None
            self._results.clear()
        self.frames.clear()
        return self.epoch

    def set_instruction(self, instruction: str) -> int:
        """Follow another instruction from the next inference on; returns the new epoch."""
        with self._lock:
            self._instruction = instruction
        return self.reset()

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
            prepared = self._make()
        except Exception as error:  # noqa: BLE001  handed to the thread that waits in load()
            self._load_error = error
            return
        finally:
            self._loaded.set()
        if prepared is not None:
            with closing(self._policy):
                self._work(prepared)

    def _make(self) -> str | None:
        """Make the policy and prepare it; its instruction. None: the loop was stopped before there was one.

        Raises:
            Exception: whatever kept it from loading, but from the first time on that a policy elsewhere did not answer.
        """
        pause = _FIRST_RETRY
        while not self._stopping.is_set():
            try:
                return self._made()
            except Exception as error:
                away = isinstance(error, PolicyUnavailableError)
                if not (away or self._loaded.is_set()):
                    raise
                reason = PolicyReason.POLICY_UNAVAILABLE if away else PolicyReason.INFERENCE_FAILED
                self._busy = PolicyState.WAITING if away else PolicyState.FAULT
                self._why = self.reason, self.detail = reason, _said(error)
            if not self._loaded.is_set():
                self.frames, self.info = self._make_frames(ABSENT), ABSENT
                self._loaded.set()
            self._stopping.wait(pause)
            pause = min(2 * pause, _RETRY)
        return None

    def _made(self) -> str:
        with ExitStack() as stack:
            policy = stack.enter_context(closing(self._make_policy()))
            frames = self._make_frames(policy.info)
            instruction = self._instruction or policy.info.default_instruction
            policy.prepare(instruction)
            stack.pop_all()
        self._policy, self._instruction = policy, self._instruction or instruction
        self.frames, self.info = frames, policy.info  # in this order: who sees the info finds its frames
        self._why = self.reason, self.detail = PolicyReason.NONE, ""
        self._busy = PolicyState.WAITING
        return instruction

    def _work(self, prepared: str) -> None:
        while True:
            self._active.wait()
            if self._stopping.wait(_POLL):
                return
            try:
                if prepared != self._instruction:
                    prepared = self._instruction
                    self._policy.prepare(prepared)
                self._attempt(prepared)
            except PolicyUnavailableError as error:
                self._busy, self.reason, self.detail = PolicyState.WAITING, PolicyReason.POLICY_UNAVAILABLE, str(error)
                self.drops[PolicyReason.POLICY_UNAVAILABLE] += 1
                self._stopping.wait(error.retry_after)
            except Exception as error:  # noqa: BLE001  a dead inference thread must be seen in the status
                self._give_up(PolicyReason.INFERENCE_FAILED, _said(error))
                if self._stopping.is_set():  # stop() has set it before
                    return

    def _give_up(self, reason: PolicyReason, detail: str) -> None:
        self._resting, self.reason, self.detail = PolicyState.FAULT, reason, detail
        self._active.clear()

    def _attempt(self, instruction: str) -> None:
        with self._lock:
            epoch, last_stamp_ns, started = self.epoch, self._last_stamp_ns, self._started_ns
        now_ns = self._now_ns()
        if started is not None and 0 <= now_ns - started < self._interval_ns:
            return
        begin = time.perf_counter()
        frame = self.frames.newest(now_ns, last_stamp_ns)
        if isinstance(frame, Waiting):
            if frame.ends:
                self._give_up(frame.reason, frame.detail)
            elif frame.reason != PolicyReason.SAME_OBSERVATION:
                self._busy, self.reason, self.detail = PolicyState.WAITING, frame.reason, frame.detail
            return
        stamps = [frame.stamp_ns - round(_NS * age) for age in self.info.history]
        earlier = tuple(self.frames.at(stamp) or frame for stamp in stamps)  # nothing is left after a reset meanwhile
        decode_ms = 1e3 * (time.perf_counter() - begin)
        if epoch != self._policy_epoch:
            self._policy.reset()
            self._replanning.reset()
            self._policy_epoch = epoch
        elif last_stamp_ns and isinstance(self._policy, StatefulPolicy):
            self._policy.executed(*self._executed(last_stamp_ns, frame))
        running = self._running_plan(frame.stamp_ns, now_ns)
        observation = Observation(frame.stamp_ns, frame.images, frame.joints, instruction, running, earlier)
        chunk = self._policy.infer(observation)
        total_ms = 1e3 * (time.perf_counter() - begin)
        with self._lock:
            if epoch != self.epoch or instruction != self._instruction:
                self.drops[PolicyReason.INSTRUCTION_CHANGED] += 1
                return
            self._last_stamp_ns, self._started_ns = frame.stamp_ns, now_ns
            self._interval_ns = self._replanning.after(frame, followed=self._executing() is not None)
            hovering = PolicyReason.HOVERING if self._replanning.hovers else PolicyReason.NONE
            self.chunks += 1
            result = ChunkResult(chunk, self.session, epoch, self.chunks, instruction, now_ns, decode_ms, total_ms)
            self._results.append(result)
        self._publish(result)
        self.latencies.append(result.latency_ms)
        self.published_at.append(time.monotonic())
        self._busy, self.reason, self.detail = PolicyState.RUNNING, hovering, ""

    def _running_plan(self, stamp_ns: int, now_ns: int) -> RunningPlan | None:
        """The plan that the bridge follows, at the steps of a chunk for `stamp_ns`; None when it follows none of ours.

        Committed are the steps before the time at which the chunk is expected to be in use, and the one after it,
        up to which the bridge interpolates.
        """
        followed = self._followed()
        if followed is None or not self._realtime or not self.latencies:
            return None
        old, lag_ns = followed
        shift = stamp_ns - lag_ns
        steps = (old.end_ns - shift) // old.step_ns + 1
        if steps <= 0:
            return None
        actions = np.array([old.sample(shift + k * old.step_ns)[0] for k in range(min(steps, len(old.positions)))])
        expected_ms = max(row[-1] for row in list(self.latencies)[-_LATENCIES_EXPECTED:])
        delay_ns = now_ns - stamp_ns + round(1e6 * expected_ms) + _TRANSPORT_NS
        return RunningPlan(actions, min(len(actions), -(-delay_ns // old.step_ns) + 1))

    def _followed(self) -> tuple[Chunk, int] | None:
        """The chunk of ours that the bridge follows, and by how many ns its plan lies behind the clock."""
        executing = self._executing()
        if executing is None:
            return None
        with self._lock:
            followed = (executing.session, executing.epoch, executing.chunk_id)
            mine = [r for r in self._results if (r.session, r.epoch, r.chunk_id) == followed]
        if not mine:
            return None
        chunk = mine[0].chunk
        curve = Chunk(mine[0].chunk_id, mine[0].epoch, chunk.stamp_ns, chunk.step_ns, chunk.names, chunk.actions)
        return curve, executing.lag_ns

    def _executed(self, since_ns: int, frame: Frame) -> tuple[NDArray[np.float64], tuple[Frame, ...]]:
        """What the bridge followed from an observation up to the next, a row a step, and the frames seen meanwhile."""
        stamps = range(since_ns + self.info.step_ns, frame.stamp_ns + 1, self.info.step_ns)
        followed = self._followed()
        rows = [] if followed is None else [followed[0].sample(stamp - followed[1])[0] for stamp in stamps]
        every = self.info.key_frame_steps
        return np.array(rows).reshape(-1, len(self.info.action)), self.frames.several(stamps[every - 1 :: every])


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else repr(error)
