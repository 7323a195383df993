"""Which chunks are taken into use: joints, numbers, epoch, order and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason

_LARGEST = 1e9  # rad or mm: the arithmetic of a plan could overflow beyond it
_SECOND = 1_000_000_000


@dataclass
class ChunkGate:
    """Lets chunks in that are newer than the ones before, and counts the others by reason.

    Attributes:
        names: joints of the columns of an admitted chunk.
        max_age: s, oldest observation of a chunk.
        future_tolerance: s, how far an observation's stamp may lie ahead of this clock.
        epoch: newest one seen.
        drops: chunks that were refused.
    """

    names: Sequence[str]
    max_age: float
    future_tolerance: float
    epoch: int = 0
    drops: Counter[Reason] = field(default_factory=Counter)
    _newest_id: int = 0
    _blocked_epoch: int = -1

    def admit(self, chunk: Chunk, now_ns: int, *, homing: bool) -> tuple[Chunk | None, Reason]:
        """The chunk with its columns in the order of `names`, or None and why it was refused."""
        ordered = chunk.ordered(self.names)
        reason = Reason.CHUNK_WRONG_JOINTS if ordered is None else self._refusal(ordered, now_ns, homing)
        if reason != Reason.NONE:
            self.drops[reason] += 1
            return None, reason
        self.epoch, self._newest_id = chunk.epoch, chunk.chunk_id
        return ordered, reason

    def block_epochs(self) -> None:
        """Refuse the chunks of all epochs seen so far."""
        self._blocked_epoch = self.epoch

    def restart_ids(self) -> None:
        """Take any id in the newest epoch: a replay that begins again counts from 1."""
        self._newest_id = 0

    def _refusal(self, chunk: Chunk, now_ns: int, homing: bool) -> Reason:
        if not (np.abs(chunk.positions) < _LARGEST).all():  # nor is NaN
            return Reason.CHUNK_NOT_FINITE
        if chunk.epoch < self.epoch or chunk.epoch <= self._blocked_epoch:
            return Reason.CHUNK_OLD_EPOCH
        if chunk.epoch == self.epoch and chunk.chunk_id <= self._newest_id:
            return Reason.CHUNK_OUT_OF_ORDER
        if chunk.stamp_ns > now_ns + self.future_tolerance * _SECOND:
            return Reason.CHUNK_FROM_FUTURE
        if now_ns - chunk.stamp_ns > self.max_age * _SECOND:
            return Reason.CHUNK_TOO_OLD
        return Reason.CHUNK_WHILE_HOMING if homing else Reason.NONE
