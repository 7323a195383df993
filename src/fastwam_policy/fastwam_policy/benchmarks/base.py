"""What every benchmark has: suites of tasks, trials of each, and what is kept of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastwam_policy.policies.base import Policy, PolicyInfo

NOOP, EXPERT = "noop", "expert"
"""Policies that every benchmark, or some, bring along: one that does nothing, and one that knows the scene."""
MOVED = "_moved"
"""End of a suite's name: the suite without it, with its things in other places."""


class SimulatorDiedError(RuntimeError):
    """A simulator ended, or did not answer: the text says how. The episode is played again in a new one."""


@dataclass(frozen=True)
class Task:
    """One task of a suite: its number from 0 on, what is to be done, and how many trials the protocol has of it.

    With `told` the policy is told that instruction, else what the scene of a trial says.
    """

    suite: str
    number: int
    instruction: str
    trials: int
    told: bool = False


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode.

    Attributes:
        suite: of its task.
        task: number of its task in the suite.
        trial: number of its initial state.
        success: as the benchmark's own test says.
        failure: why not, in words; empty with success.
        steps: of the simulator's control loop, until success or the end.
        seconds: that it took, on the clock of this machine.
        inference_ms: median time of an inference; 0 without one.
        initial: hash of the scene in which it began; this and the next two are equal where all was the same.
        actions: hash of all actions, in order.
        final: hash of the scene in which it ended.
        picture: hash of the first picture that the policy saw; empty: it saw none.
        simulator: versions of what simulated it.
        broken: no result: the simulator ended twice. It counts as a failure, and is played again when the command is.
    """

    suite: str
    task: int
    trial: int
    success: bool
    failure: str
    steps: int
    seconds: float
    inference_ms: float = 0.0
    initial: str = ""
    actions: str = ""
    final: str = ""
    picture: str = ""
    simulator: str = ""
    broken: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """Which episode it is."""
        return self.suite, self.task, self.trial


@dataclass(frozen=True)
class Published:
    """Success of others, in %, by suite; `average` is what they give as such, and `source` where."""

    name: str
    source: str
    average: float
    suites: tuple[tuple[str, float], ...] = ()


class OpenTask(Protocol):
    """A task whose simulator is running. Trials are played in ascending order."""

    def play(self, trial: int, film: Path | None) -> Episode:
        """Play one; where it fails, with `film`, write a video into that file.

        Raises:
            SimulatorDiedError: the simulator ended; this object is of no further use.
        """

    def close(self) -> None:
        """End the simulator."""


class Benchmark(Protocol):
    """A benchmark with its protocol. It is sent to other processes: a frozen dataclass.

    Attributes:
        name: as the command line calls it.
        title: as people do.
        note: a sentence that stands in every table; empty: none.
        suites: all that it has.
        official: the suites of its published average.
        published: what others reached.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102
    @property
    def suites(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def official(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def published(self) -> Sequence[Published]: ...  # noqa: D102

    def __hash__(self) -> int: ...

    def protocol(self) -> dict[str, Any]:
        """All that changes the results, as plain data: results of another protocol are not continued."""

    def tasks(self, suites: Sequence[str]) -> list[Task]:
        """The tasks of these suites, in order.

        Raises:
            ConfigError: the simulator is not installed.
            RunError: it does not start.
        """

    def policy(self, source: str, mode: str = "") -> Policy | None:
        """The policy of that source, or NOOP; None for EXPERT. It fits the benchmark.

        `mode` is a way to infer, for a bundle whose variant has several; empty for its first.

        Raises:
            ConfigError: it does not, or there is no such policy.
        """

    def check(self, info: PolicyInfo, source: str) -> None:
        """ConfigError with a line for each thing that such a policy, of that source, needs and this does not have."""

    def expert_identity(self) -> str:
        """Hash of what EXPERT is; empty where there is none."""

    def open(self, task: Task, policy: Policy | None, log: Path, *, film: bool) -> OpenTask:
        """Start the simulator of a task for a policy (None: the expert); what it prints goes to the end of `log`.

        With `film` it must be able to film a policy that has no cameras as well.

        Raises:
            RunError: it does not start.
        """

    def remarks(self, episodes: Sequence[Episode]) -> list[str]:
        """What people should know of these episodes: a sentence each."""
