"""What is wrong with recorded episodes, before anybody trains with them: of datasets and of recordings alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Pixels, PolicyInfo
from galaxea_r1lite_bridge.robot.config import RobotConfig

Vectors = NDArray[np.float32]

_FAR, _LEAST = 8.0, 0.3  # robust deviations, and rad or 100 mm, by which an episode's mean is unlike the others
_UNUSUAL: Final = 4.0  # times the median length, or a fraction of it
_OUTSIDE: Final = 0.2  # of an episode's rows outside the 1 to 99 % band of a policy's training data


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: structure, unusable, odd, frozen, blind, outlier, duplicate or distribution.
        episode: number in its dataset, None for the whole.
        text: what, where and how much.
        picture: RGB, where one shows it.
    """

    kind: str
    episode: int | None
    text: str
    picture: Pixels | None = field(default=None, repr=False, compare=False)

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in asdict(self).items() if name != "picture"}


@dataclass
class Checked:
    """One dataset or recording.

    Attributes:
        source: its path, or address.
        episodes: of a dataset, those that were looked at; None for a recording.
        findings: what is wrong.
        intervention: share of the rows in which somebody had taken over.
    """

    source: str
    episodes: int | None = None
    findings: list[Finding] = field(default_factory=list)
    intervention: float = 0.0

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        found = [finding.figures() for finding in self.findings]
        about = {"source": self.source, "episodes": self.episodes, "intervention": self.intervention}
        return about | {"findings": found}


def unlike_others(states: dict[int, Vectors], robot: RobotConfig) -> list[Finding]:
    """Episodes whose length or mean pose is far from the others', and those that are the same as another."""
    found, seen = [], dict[bytes, int]()
    for index, state in states.items():
        first = seen.setdefault(state.tobytes(), index)
        if first != index:
            found.append(Finding("duplicate", index, f"the joints are those of episode {first}, number by number"))
    lengths = np.array([len(state) for state in states.values()], np.float64)
    means = np.array([state.mean(axis=0) for state in states.values()], np.float64)
    scale = np.where(robot.is_arm, 1.0, 100.0)
    centre = np.median(means, axis=0)
    spread = 1.4826 * np.median(np.abs(means - centre), axis=0) + 1e-9
    for (index, state), mean in zip(states.items(), means, strict=True):
        usual = float(np.median(lengths))
        if not usual / _UNUSUAL <= len(state) <= usual * _UNUSUAL:
            found.append(Finding("outlier", index, f"{len(state)} frames, where the median is {usual:g}"))
        distance = np.abs(mean - centre) / spread
        distance[np.abs(mean - centre) / scale < _LEAST] = 0
        if len(states) > 2 and distance.max() > _FAR:
            place = int(distance.argmax())
            name, unit = robot.joint_names[place], robot.units[place]
            text = (
                f"{name} is at {mean[place]:.3g} {unit} on average, in the other episodes at {centre[place]:.3g} {unit}"
            )
            found.append(Finding("outlier", index, text))
    return found


def unlike_policy(states: dict[int, Vectors], robot: RobotConfig, info: PolicyInfo) -> list[Finding]:
    """Joints that are where the policy's training data had them hardly ever."""
    found = []
    for channel, (low, high) in zip(info.state, info.state_band, strict=False):
        place = robot.joint_names.index(channel.name) if channel.name in robot.joint_names else None
        if place is None:
            continue
        rows = np.concatenate([state[:, place] for state in states.values()])
        outside = float(((rows < low) | (rows > high)).mean())
        if outside > _OUTSIDE:
            found.append(
                Finding(
                    "distribution", None,
                    f"{channel.name} is outside {low:.3g} to {high:.3g} {channel.unit}, where the policy knows it, in "
                    f"{outside:.0%} of the rows ({rows.min():.3g} to {rows.max():.3g})",
                )
            )  # fmt: skip
    return found


def lines(checked: Sequence[Checked]) -> list[str]:
    """For people."""
    text = []
    for each in checked:
        size = "" if each.episodes is None else f"{_counted(each.episodes, 'episode')}, "
        size += f"taken over in {each.intervention:.1%} of the rows, " if each.intervention else ""
        text.append(
            f"{each.source}: {size}{_counted(len(each.findings), 'thing') if each.findings else 'nothing'} wrong"
        )
        for finding in each.findings:
            where = "" if finding.episode is None else f"episode {finding.episode}: "
            text.append(f"  {finding.kind}: {where}{finding.text}")
    return text


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
