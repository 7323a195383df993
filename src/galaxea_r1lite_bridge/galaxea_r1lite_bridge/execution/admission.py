"""Which chunks may move the arms: joints, numbers, when observed, whose, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason

_LARGEST = 1e9  # rad or mm: the arithmetic of a plan could overflow beyond it
_SECOND = 1_000_000_000


@dataclass(frozen=True)
class _Consent:
    """What may move the arms since they were armed.

    Attributes:
        since_ns: what was observed earlier may not; None: nothing may until they are armed again.
        session: the policy session that is followed; None: the first one that comes will be.
        epoch: newest one of that session.
        chunk_id: newest one of that epoch.
        ended_epoch: this epoch and older ones are over.
    """

    since_ns: int | None
    session: int | None = None
    epoch: int = 0
    chunk_id: int = 0
    ended_epoch: int = -1


@dataclass
class ChunkGate:
    """Lets the chunks of one policy session in, each newer than the ones before, and counts the others by reason.

    While it is closed it only says what is wrong with a chunk, and remembers nothing. Opened, it has forgotten
    everything, and the first chunk observed since then decides which session is followed until it is closed or opened
    again. So nothing from earlier or from elsewhere lets a chunk in, or keeps one out.

    Attributes:
        names: joints of the columns of an admitted chunk.
        max_age: s, oldest observation of a chunk.
        future_tolerance: s, how far an observation's stamp may lie ahead of this clock.
        drops: chunks that were refused.
        revocations: how often all that could move the arms was told to end.
    """

    names: Sequence[str]
    max_age: float
    future_tolerance: float
    drops: Counter[Reason] = field(default_factory=Counter)
    revocations: int = 0
    _consent: _Consent | None = None

    @property
    def session(self) -> int | None:
        """The policy session that is followed; None: none yet."""
        return None if self._consent is None else self._consent.session

    @property
    def epoch(self) -> int:
        """Newest epoch of that session, 0 without one."""
        return 0 if self._consent is None else self._consent.epoch

    @property
    def needs_arming(self) -> bool:
        """Whether it was stopped so that only arming again lets chunks in."""
        return self._consent is not None and self._consent.since_ns is None

    def open(self, now_ns: int) -> None:
        """The arms were armed."""
        self._consent = _Consent(now_ns)

    def close(self) -> None:
        """The arms were disarmed, or stopped until they are armed again."""
        self.revocations += 1
        self._consent = None

    def stop(self, now_ns: int) -> None:
        """Nothing that has begun may go on; only a newer epoch of the session may, from what it observes from now on.

        Before any session is followed there is no telling what is newer: then the arms must be armed again.
        """
        if self._consent is not None and self._consent.session is None:
            self._consent = _Consent(None)
        self.end_epoch(now_ns)

    def end_epoch(self, now_ns: int) -> None:
        """As :meth:`stop`, but before any session is followed the first one still may be."""
        self.revocations += 1
        if self._consent is not None and self._consent.since_ns is not None:
            ended = -1 if self._consent.session is None else self._consent.epoch
            self._consent = replace(self._consent, since_ns=now_ns, ended_epoch=ended)

    def resume(self, now_ns: int) -> None:
        """The arms were moved by others: only what is observed from now on counts, of the epoch that was followed."""
        if self._consent is not None and self._consent.since_ns is not None:
            self._consent = replace(self._consent, since_ns=now_ns)

    def clock_jumped(self, now_ns: int) -> None:
        """Only what is observed from now on counts, with any id: a replay that begins again counts from 1."""
        if self._consent is not None and self._consent.since_ns is not None:
            self._consent = replace(self._consent, since_ns=now_ns, chunk_id=-1)

    def admit(self, chunk: Chunk, now_ns: int, busy: Reason = Reason.NONE) -> tuple[Chunk | None, Reason]:
        """The chunk with its columns in the order of `names`, or None and why it was refused.

        `busy` says why none is taken while the arms are armed, however good it is.
        """
        ordered = chunk.ordered(self.names)
        reason = Reason.CHUNK_WRONG_JOINTS if ordered is None else self._refusal(ordered, now_ns, busy)
        if reason != Reason.NONE:
            self.drops[reason] += 1
            return None, reason
        if self._consent is not None:
            self._consent = replace(self._consent, session=chunk.session, epoch=chunk.epoch, chunk_id=chunk.chunk_id)
        return ordered, reason

    def _refusal(self, chunk: Chunk, now_ns: int, busy: Reason) -> Reason:
        if not (np.abs(chunk.positions) < _LARGEST).all():  # nor is NaN
            return Reason.CHUNK_NOT_FINITE
        if chunk.stamp_ns > now_ns + self.future_tolerance * _SECOND:
            return Reason.CHUNK_FROM_FUTURE
        if now_ns - chunk.stamp_ns > self.max_age * _SECOND:
            return Reason.CHUNK_TOO_OLD
        if self._consent is None:
            return Reason.NONE
        return self._not_consented(chunk, self._consent) or busy

    @staticmethod
    def _not_consented(chunk: Chunk, consent: _Consent) -> Reason:
        if consent.session not in (None, chunk.session):
            return Reason.CHUNK_OTHER_SESSION
        if consent.since_ns is None or chunk.stamp_ns < consent.since_ns:
            return Reason.CHUNK_NOT_ASKED_FOR
        if consent.session is None:
            return Reason.NONE
        if chunk.epoch < consent.epoch or chunk.epoch <= consent.ended_epoch:
            return Reason.CHUNK_OLD_EPOCH
        if chunk.epoch == consent.epoch and chunk.chunk_id <= consent.chunk_id:
            return Reason.CHUNK_OUT_OF_ORDER
        return Reason.NONE
