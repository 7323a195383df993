"""The bridge's state machine: from chunks and measured joints to one command a control tick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class ExecutorConfig:
    """Limits in time, s."""

    max_chunk_age: float
    """Oldest observation that may still be followed."""
    max_feedback_age: float
    """Oldest joint message that may still be trusted."""
    future_tolerance: float
    """How far an observation's stamp may lie ahead of this clock."""
    max_dt: float
    """Longest control period that the velocity limit may use: a late tick must not become a jump."""


@dataclass
class JointFeedback:
    """Newest usable message of one joint stream."""

    positions: NDArray[np.float64] | None = None
    age: float = -1.0
    """s since it was received, -1: never."""
    invalid: bool = False
    """The message after it was unusable: NaN or too few entries."""


@dataclass(frozen=True)
class Command:
    """Result of one control tick."""

    state: State
    reason: Reason
    positions: NDArray[np.float64] | None
    """Target [D] in rad and mm to send now; None: send nothing."""
    limited: NDArray[np.bool_]
    """[D], True where a limit changed the target."""
    chunk: Chunk | None
    """Chunk in use."""


@dataclass
class Executor:
    """Follows the newest chunk while armed, brakes and holds otherwise; sends nothing while disarmed.

    Not thread-safe: the owner serialises the calls. Time is always an argument, in ns of the node's clock.
    """

    config: ExecutorConfig
    limiter: Limiter
    names: Sequence[str]
    groups: Mapping[str, slice]
    """Place of each joint group in the command vector."""
    drops: Counter[Reason] = field(default_factory=Counter)
    epoch: int = 0
    """Newest epoch seen."""
    seam: float = 0.0
    """Largest jump between the old and the new plan when the last chunk was taken, rad or mm."""
    _armed: bool = False
    _reason: Reason = Reason.NOT_ARMED
    _chunk: Chunk | None = None
    _newest_id: int = 0
    _blocked_epoch: int = -1
    _motion: Motion | None = None
    _last_ns: int | None = None

    def accept(self, chunk: Chunk, now_ns: int) -> Reason:
        """Take a chunk into use, or return why it was dropped (and count it)."""
        ordered = chunk.ordered(self.names)
        reason = Reason.CHUNK_WRONG_JOINTS if ordered is None else self._admission(ordered, now_ns)
        if ordered is None or reason != Reason.NONE:
            self.drops[reason] += 1
            return reason
        chunk = ordered
        old = self._motion.position if self._motion else None
        if self._chunk:
            old, _ = self._chunk.sample(now_ns)
        arms = [
            index
            for place in self.groups.values()
            if place.stop - place.start > 1
            for index in range(len(self.names))[place]
        ]
        self.seam = 0.0 if old is None else float(np.abs(chunk.sample(now_ns)[0] - old)[arms].max(initial=0.0))
        self.epoch, self._newest_id, self._chunk = chunk.epoch, chunk.chunk_id, chunk
        return Reason.NONE

    def arm(self, measured: Mapping[str, JointFeedback]) -> Reason:
        """Begin to command from the measured pose; return NONE, or why it was refused."""
        reason, pose = self._measured(measured)
        if pose is not None and reason == Reason.NONE and not self._armed:
            self._armed, self._reason, self._chunk = True, Reason.ARMED, None
            self._motion = Motion(pose, np.zeros_like(pose))
        return reason

    def disarm(self) -> None:
        """Stop commanding at once; the robot's own controller keeps its last target."""
        self._armed, self._reason, self._chunk, self._motion = False, Reason.NOT_ARMED, None, None

    def stop(self) -> None:
        """Brake and hold, and ignore the chunks of all epochs seen so far."""
        self._chunk, self._blocked_epoch = None, self.epoch
        if self._armed:
            self._reason = Reason.STOP_REQUESTED

    def step(self, now_ns: int, measured: Mapping[str, JointFeedback]) -> Command:
        """Advance one control tick and return what to send."""
        elapsed = 0.0 if self._last_ns is None else (now_ns - self._last_ns) / _SECOND
        self._last_ns = now_ns
        if elapsed < 0:
            self._chunk, self._newest_id = None, 0
            if self._armed:
                self._reason = Reason.CLOCK_JUMPED_BACK
        if not self._armed or self._motion is None:
            return Command(State.DISARMED, self._reason, None, np.zeros(len(self.names), bool), None)

        dt = min(max(elapsed, 0.0), self.config.max_dt)
        feedback_reason, _ = self._measured(measured)
        if feedback_reason != Reason.NONE:
            return self._brake(feedback_reason, dt)
        if self._chunk is None:
            return self._brake(self._reason, dt)
        if now_ns - self._chunk.stamp_ns > self.config.max_chunk_age * _SECOND:
            self._reason = Reason.PLAN_STALE
        elif now_ns > self._chunk.end_ns:
            self._reason = Reason.PLAN_ENDED
        else:
            self._reason = Reason.NONE
            self._motion, limited = self.limiter.follow(self._motion, *self._chunk.sample(now_ns), dt)
            return Command(State.TRACKING, Reason.NONE, self._motion.position, limited, self._chunk)
        return self._brake(self._reason, dt)

    def _brake(self, reason: Reason, dt: float) -> Command:
        """Come to rest within the limits, then hold."""
        assert self._motion is not None
        self._motion = self.limiter.brake(self._motion, dt)
        state = State.STOPPING if self._motion.velocity.any() else State.HOLDING
        return Command(state, reason, self._motion.position, np.zeros(len(self.names), bool), self._chunk)

    def _admission(self, chunk: Chunk, now_ns: int) -> Reason:
        if not np.isfinite(chunk.positions).all():
            return Reason.CHUNK_NOT_FINITE
        if chunk.epoch < self.epoch or chunk.epoch <= self._blocked_epoch:
            return Reason.CHUNK_OLD_EPOCH
        if chunk.epoch == self.epoch and chunk.chunk_id <= self._newest_id:
            return Reason.CHUNK_OUT_OF_ORDER
        if chunk.stamp_ns > now_ns + self.config.future_tolerance * _SECOND:
            return Reason.CHUNK_FROM_FUTURE
        if now_ns - chunk.stamp_ns > self.config.max_chunk_age * _SECOND:
            return Reason.CHUNK_TOO_OLD
        return Reason.NONE

    def _measured(self, measured: Mapping[str, JointFeedback]) -> tuple[Reason, NDArray[np.float64] | None]:
        pose = np.empty(len(self.names))
        for group, place in self.groups.items():
            feedback = measured[group]
            if feedback.invalid:
                return Reason.FEEDBACK_INVALID, None
            if feedback.positions is None:
                return Reason.FEEDBACK_MISSING, None
            if feedback.age > self.config.max_feedback_age:
                return Reason.FEEDBACK_STALE, None
            pose[place] = feedback.positions
        return Reason.NONE, pose
