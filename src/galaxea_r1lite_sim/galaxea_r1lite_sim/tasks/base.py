"""What a task is, for the simulator and for all that runs in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from galaxea_r1lite_sim.shapes import Color, Visual

if TYPE_CHECKING:
    from galaxea_r1lite_sim.simulation import Simulation


@dataclass(frozen=True)
class Grip:
    """When a gripper takes hold of a thing, and lets go of it.

    Attributes:
        closed: mm of stroke, measured and commanded, below which it takes hold.
        opened: mm of stroke above which it lets go.
        reach: m from the point between its fingertips to the thing, at most.
        width: mm of stroke at which its fingers stop, with the thing between them.
    """

    closed: float = 24.0
    opened: float = 36.0
    reach: float = 0.03
    width: float = 0.0


@dataclass(frozen=True)
class Cloth:
    """How a square cloth looks whose vertices are the task's bodies, row by row.

    Attributes:
        vertices: along each edge; 0: there is no cloth.
        size: m, length of an edge.
        color: of it and of its hem.
        stripes: m, their width; 0: none.
    """

    vertices: int = 0
    size: float = 1.0
    color: tuple[Color, Color] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    stripes: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a task is.

    Attributes:
        success: done, and let go of.
        distance: m, how far things are from where they should be.
        failure: class of the failure, were this the end and no success.
        held: arms that hold something.
        grasps: how often each arm has taken hold so far.
    """

    success: bool
    distance: float
    failure: str
    held: tuple[str, ...]
    grasps: dict[str, int]


class Task(ABC):
    """A task as a seed has drawn it: a frozen dataclass whose defaults are what nothing varies.

    Attributes:
        instruction: what policies are told.
        thing: what is handled, in a word for people; `done` is what it is in the end.
        hands: arms that must take hold of something.
        hold: at a point, `connect`, or with its orientation as well, `weld`.
    """

    instruction: ClassVar[str]
    thing: ClassVar[str]
    done: ClassVar[str]
    hands: ClassVar[int]
    hold: ClassVar[Literal["connect", "weld"]]

    @classmethod
    @abstractmethod
    def placed(cls, random: np.random.Generator) -> Task:
        """What any randomization varies: the places of things."""

    @abstractmethod
    def varied(self, random: np.random.Generator, color: Color) -> Task:
        """As randomization `full` varies it besides: in a `color`, and whatever else."""

    @abstractmethod
    def mjcf(self, table: float, friction: float) -> str:
        """Its things as elements of MJCF's worldbody, on a table whose top is at z = `table` m."""

    @property
    @abstractmethod
    def bodies(self) -> Sequence[str]:
        """Names there of what can be taken hold of."""

    @property
    def grip(self) -> Grip:
        """When that is taken hold of."""
        return Grip()

    @property
    def cloth(self) -> Cloth:
        """What is seen of a cloth."""
        return Cloth()

    def solids(self, table: float) -> Sequence[tuple[str, Visual]]:
        """What else is seen: the name of a body, empty for what stands still, and a shape in its frame."""
        return ()

    @abstractmethod
    def progress(self, simulation: Simulation) -> Progress:
        """How far it is."""

    @abstractmethod
    def plan(self, simulation: Simulation) -> NDArray[np.float64] | None:
        """The scripted expert's targets [T, D] from where things are now, one row a step of 1/15 s.

        None where it cannot go on from there.

        Raises:
            UnreachableError: something is out of reach.
        """
