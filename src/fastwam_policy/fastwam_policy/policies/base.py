"""The interface between what runs a policy and what a policy is: `Policy.infer(Observation) -> ActionChunk`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.images import Pixels


@dataclass(frozen=True)
class RunningPlan:
    """What the robot is executing while the next chunk is computed (real-time chunking).

    Attributes:
        actions: its targets [M, D] in rad and mm at the steps of the chunk to compute, from the first one on.
        committed: leading steps that will have been executed when the chunk is ready, at most M.
    """

    actions: NDArray[np.float64]
    committed: int


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one time.

    Attributes:
        stamp_ns: time of the observation.
        images: RGB uint8 [height, width, 3] by camera name.
        joints: position by joint name, rad and mm.
        instruction: task text without the prompt template.
        running: what it is executing; None: it stands, or that is not known.
    """

    stamp_ns: int
    images: Mapping[str, Pixels]
    joints: Mapping[str, float]
    instruction: str
    running: RunningPlan | None = None


@dataclass(frozen=True)
class Timing:
    """Wall time of the stages of one inference, ms."""

    preprocess: float
    encode: float
    prefill: float
    denoise: float


@dataclass(frozen=True)
class ActionChunk:
    """What to do from the observation's time on.

    Attributes:
        stamp_ns: time of the observation; row k of `actions` is for stamp_ns + k * step_ns.
        step_ns: time between two rows.
        names: joint of each column.
        actions: absolute targets [H, D] in rad and mm.
        timing: where the time went.
        committed: leading rows taken over unchanged from the running plan.
    """

    stamp_ns: int
    step_ns: int
    names: list[str]
    actions: NDArray[np.float64]
    timing: Timing
    committed: int = 0


class Policy(Protocol):
    """Anything that turns an observation into a chunk. Not thread-safe: one thread owns it."""

    def prepare(self, instruction: str) -> None:
        """Get ready for an instruction (text embedding, warm-up). ConfigError: it is unknown to this policy."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Compute a chunk; `observation.instruction` must have been prepared."""
