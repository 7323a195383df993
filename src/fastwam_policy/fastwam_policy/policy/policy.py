"""The interface between what runs a policy and what a policy is: `Policy.infer(Observation) -> ActionChunk`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policy.images import Pixels


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one time.

    Attributes:
        stamp_ns: time of the observation.
        images: RGB uint8 [height, width, 3] by camera name.
        joints: position by joint name, rad and mm.
        instruction: task text without the prompt template.
    """

    stamp_ns: int
    images: Mapping[str, Pixels]
    joints: Mapping[str, float]
    instruction: str


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
    """

    stamp_ns: int
    step_ns: int
    names: list[str]
    actions: NDArray[np.float64]
    timing: Timing


class Policy(Protocol):
    """Anything that turns an observation into a chunk. Not thread-safe: one thread owns it."""

    def prepare(self, instruction: str) -> None:
        """Get ready for an instruction (text embedding, warm-up). ConfigError: it is unknown to this policy."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Compute a chunk; `observation.instruction` must have been prepared."""
