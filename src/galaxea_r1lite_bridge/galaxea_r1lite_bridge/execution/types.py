"""Inputs and result of a control tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.limits import Motion
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State


@dataclass
class JointFeedback:
    """Newest usable message of one joint stream."""

    positions: NDArray[np.float64] | None = None
    age: float = -1.0
    """s since it was received, -1: never."""
    invalid: bool = False
    """The message after it was unusable: NaN or too few entries."""


@dataclass(frozen=True)
class Inputs:
    """What the bridge knows at one control tick."""

    now_ns: int
    """Node clock, which may be a simulated one."""
    steady_ns: int
    """Steady clock."""
    feedback: Mapping[str, JointFeedback]
    heartbeat_age: float = -1.0
    """s since the heartbeat that is missing longest of those that must come, -1: none is heard."""
    released: bool = False
    """Whether a heartbeat says that its deadman switch is not pressed."""

    def pose(self, groups: Iterable[str], max_age: float) -> NDArray[np.float64] | None:
        """Measured positions [D] of `groups`; None where a stream is missing, invalid or older than `max_age` s."""
        rows = []
        for feedback in (self.feedback[group] for group in groups):
            if feedback.invalid or feedback.positions is None or feedback.age > max_age:
                return None
            rows.append(feedback.positions)
        return np.concatenate(rows)


@dataclass(frozen=True)
class Command:
    """Result of one control tick."""

    state: State
    reason: Reason
    detail: str
    motion: Motion | None
    """Positions and velocities [D] to send now, in rad and mm; None: send nothing."""
    limited: NDArray[np.int_]
    """[D], the Reason of the limit that changed a joint's target, 0 where none did."""
    chunk: Chunk | None = None
    """Chunk in use."""
    lag: float = 0.0
    """s by which the plan lies behind the clock, because it had to be slowed down."""
    all_groups: bool = False
    """Whether to send the groups, too, that no policy moves."""
