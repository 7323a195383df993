"""A policy made blind: whatever there is to see, it sees the mean of the pictures that it was trained with.

What it still reaches it owes to the state, the instruction and what it knows by heart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import (
    ActionChunk,
    BlindablePolicy,
    Frame,
    Observation,
    Pixels,
    Policy,
    StatefulPolicy,
)
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def blinded(policy: Policy | None, source: str) -> Policy:
    """The policy of that source, blind. It has no cameras any more, so that nothing is rendered for it.

    Raises:
        ConfigError: it has none anyway, or does not know the mean of its pictures.
    """
    if policy is None or not policy.info.cameras:
        raise ConfigError(f"--blind: {source} looks at no pictures anyway")
    if not isinstance(policy, BlindablePolicy):
        raise ConfigError(
            f"--blind: {source} does not say what the mean of its training pictures is: it needs mean_pictures(), as "
            "a bundle has it"
        )
    make = _StatefulBlind if isinstance(policy, StatefulPolicy) else _Blind
    return make(policy, policy.mean_pictures())


class _Blind:
    """See :func:`blinded`."""

    def __init__(self, policy: Policy, pictures: Mapping[str, Pixels]) -> None:
        self._policy, self._pictures = policy, pictures
        self.info = replace(policy.info, cameras=())

    def prepare(self, instruction: str) -> None:
        self._policy.prepare(instruction)

    def infer(self, observation: Observation) -> ActionChunk:
        earlier = tuple(self._unseen(frame) for frame in observation.earlier)
        return self._policy.infer(replace(observation, images=self._pictures, earlier=earlier))

    def reset(self) -> None:
        self._policy.reset()

    def close(self) -> None:
        self._policy.close()

    def _unseen(self, frame: Frame) -> Frame:
        return replace(frame, images=self._pictures)


class _StatefulBlind(_Blind):
    """One that is told what was done, and not what there was to see meanwhile."""

    _policy: StatefulPolicy

    def executed(self, actions: NDArray[np.float64], key_frames: Sequence[Frame]) -> None:
        self._policy.executed(actions, [self._unseen(frame) for frame in key_frames])
