"""Contacts of the robot with itself and with the table: which links, how deep, when. No physics here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal, get_args

OwnKind = Literal["arm-arm", "own-arm", "arm-body"]
TableKind = Literal["finger-table", "link-table"]
Kind = OwnKind | TableKind
TOUCHED: dict[str, tuple[Kind, ...]] = {
    "robot touched itself": get_args(OwnKind),
    "robot touched the table": get_args(TableKind),
}
TABLE = "table"
_BODY = "body"  # torso, head and base
_PARTED = 0.1  # s for which two must have been apart to come together again


@dataclass(frozen=True)
class Contact:
    """Two things that touched.

    Attributes:
        kind: of contact; the body is torso, head and base.
        first: a link of the robot.
        second: another, or `table`.
        depth: mm by which they overlapped at most.
        begin: s from the scene's start to the first time.
        duration: s during which they touched.
        count: how often they came together.
    """

    kind: Kind
    first: str
    second: str
    depth: float
    begin: float
    duration: float
    count: int


class ContactLog:
    """Collects the contacts of a scene, a time step after the other."""

    def __init__(self, robot: RobotParts) -> None:
        self._robot = robot
        self._found: dict[tuple[str, str], Contact] = {}
        self._last: dict[tuple[str, str], float] = {}

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Each pair that has touched so far, in the order of their first times."""
        return tuple(self._found.values())

    def add(self, time: float, seconds: float, touching: Iterable[tuple[str, str, float]]) -> None:
        """What touches at `time` s, for a step of so many `seconds`: two names in any order, and the depth in mm."""
        now: dict[tuple[str, str], float] = {}
        for one, other, depth in touching:
            pair = self._robot.ordered(one, other)
            now[pair] = max(depth, now.get(pair, 0.0))
        for pair, depth in now.items():
            before = self._found.get(pair)
            if before is None:
                self._found[pair] = Contact(self._robot.kind(*pair), *pair, depth, time, seconds, 1)
            else:
                self._found[pair] = replace(
                    before, depth=max(before.depth, depth), duration=before.duration + seconds,
                    count=before.count + (time - self._last[pair] > _PARTED),
                )  # fmt: skip
            self._last[pair] = time


class RobotParts:
    """Which part of the robot a link belongs to.

    Args:
        above: the link above each link, in the tree of joints.
        arms: the first moving link of each arm. What stands still and carries this arm alone belongs to it as well.
        fingers: the links that grasp.
    """

    def __init__(self, above: Mapping[str, str], arms: Mapping[str, str], fingers: Collection[str]) -> None:
        self._above, self._arms, self._fingers = above, arms, fingers
        carried = [link for first in arms.values() for link in self._chain(first)]
        self._part = {
            link: arm for arm, first in arms.items() for link in self._chain(first) if carried.count(link) == 1
        }

    def ordered(self, one: str, other: str) -> tuple[str, str]:
        """The two in a fixed order, the table last."""
        return (other, one) if one == TABLE or (other != TABLE and other < one) else (one, other)

    def kind(self, first: str, second: str) -> Kind:
        """Kind of contact of two links, or of a link and the table."""
        if second == TABLE:
            return "finger-table" if first in self._fingers else "link-table"
        parts = {self._arm_of(first), self._arm_of(second)}
        if _BODY in parts:
            return "arm-body"
        return "own-arm" if len(parts) == 1 else "arm-arm"

    def _arm_of(self, link: str) -> str:
        return next((self._part[each] for each in self._chain(link) if each in self._part), _BODY)

    def _chain(self, link: str) -> list[str]:
        """A link and all above it."""
        links = [link]
        while links[-1] in self._above:
            links.append(self._above[links[-1]])
        return links


def summarise(episodes: Sequence[Sequence[Contact]]) -> dict[str, Any]:
    """By kind: in how many episodes it came about, how often in all, and the deepest, with its depth in mm."""
    summary: dict[str, Any] = {}
    for kind in chain(*TOUCHED.values()):
        found = [[contact for contact in contacts if contact.kind == kind] for contacts in episodes]
        every = [contact for contacts in found for contact in contacts]
        deepest = max(every, key=lambda contact: contact.depth, default=None)
        summary[kind] = {
            "episodes": sum(map(bool, found)),
            "count": sum(contact.count for contact in every),
            "deepest": deepest and asdict(deepest),
        }
    return summary


def counts(summary: Mapping[str, Any], kinds: Iterable[Kind]) -> dict[str, int]:
    """How often each of these kinds came about, of those that did; none in an empty summary."""
    return {kind: summary[kind]["count"] for kind in kinds if kind in summary and summary[kind]["count"]}


def texts(summary: Mapping[str, Any]) -> dict[str, str]:
    """A summary as lines, name and text."""
    return {
        name: "; ".join(_text(kind, summary[kind]) for kind in counts(summary, kinds)) or "never"
        for name, kinds in TOUCHED.items()
    }


def _text(kind: str, found: Mapping[str, Any]) -> str:
    deepest, episodes = found["deepest"], found["episodes"]
    where = f"deepest {deepest['depth']:.1f} mm, {deepest['first']} with {deepest['second']}"
    return f"{found['count']} x {kind}" + (f" in {episodes} episodes" if episodes > 1 else "") + f" ({where})"


def of_messages(messages: Iterable[Any]) -> tuple[Contact, ...]:
    """From what sim_node publishes: RobotContact.msg has the same fields."""
    return tuple(
        Contact(
            m.kind, m.first, m.second, round(float(m.depth), 3), round(float(m.begin), 3), round(float(m.duration), 3),
            int(m.count),
        )
        for m in messages
    )  # fmt: skip
