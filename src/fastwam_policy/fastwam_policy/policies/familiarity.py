"""Whether a robot stands where a policy has seen it stand: its joints against the band of the training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastwam_policy.policies.base import PolicyInfo


@dataclass(frozen=True)
class Familiarity:
    """A robot's state against the 1 to 99 % band of a policy's training data.

    Attributes:
        inside: numbers of the state that lie in the band.
        known: numbers of which there is a band; 0: the policy does not say.
        outside: a text for each of the others: the joint, its value, and by how much it is outside.
    """

    inside: int = 0
    known: int = 0
    outside: Sequence[str] = ()

    def __str__(self) -> str:
        count = f"{self.inside} of {self.known} joints where the policy's training data has them"
        return ": ".join(filter(None, (count, "; ".join(self.outside))))


def familiarity(info: PolicyInfo, joints: Mapping[str, float]) -> Familiarity:
    """Compare the joints that are measured, rad and mm, with what the policy knows."""
    outside, known = [], 0
    for channel, (low, high) in zip(info.state, info.state_band, strict=False):
        if channel.name not in joints:
            continue
        value, known = joints[channel.name], known + 1
        if not low <= value <= high:
            by, side = (low - value, "below") if value < low else (value - high, "above")
            outside.append(f"{channel.name} at {value:.3g} {channel.unit}, {by:.2g} {side} {low:.3g} to {high:.3g}")
    return Familiarity(known - len(outside), known, tuple(outside))
