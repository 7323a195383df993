"""Inputs and result of a control tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_bridge.execution.limits import Motion
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State


@dataclass(frozen=True)
class JointFeedback:
    """Newest usable message of one joint stream."""

    positions: NDArray[np.float64] | None = None
    age: float = -1.0
    """s, the longer of the time since it was received and how much later than usual it came; -1: never received."""
    invalid: bool = False
    """Whether the messages after it were unusable, which says why it is old."""
    refused: Reason = Reason.NONE
    """Why it must not be used, however young it is."""

    def usable(self, max_age: float) -> bool:
        """Whether the arms may be moved by it."""
        return self.positions is not None and self.age <= max_age and self.refused == Reason.NONE


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
    backwards: int = 0
    """How often the node's clock has gone back since the node began, also between two ticks."""
    person: Mapping[str, JointFeedback] = field(default_factory=dict)
    """Newest input of a person who has taken over, by group."""

    def pose(self, groups: Iterable[str], max_age: float) -> NDArray[np.float64] | None:
        """Measured positions [D] of `groups`; None where a stream is missing, refused or older than `max_age` s."""
        streams = [self.feedback[group] for group in groups]
        if not all(stream.usable(max_age) for stream in streams):
            return None
        return np.concatenate([stream.positions for stream in streams if stream.positions is not None])


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
