"""The folder of a benchmark: how its episodes came about, and one JSON line for each as soon as it is over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fastwam_policy.benchmarks.base import Episode, Task
from fastwam_policy.common.files import write_text
from fastwam_policy.common.settings import Uncompared, changes
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

EPISODES, BLIND_EPISODES = "episodes.jsonl", "episodes_blind.jsonl"
_EPISODE = TypeAdapter(Episode)  # fields of other versions are ignored
_ANOTHER = "name another output folder"


@dataclass(frozen=True)
class How:
    """How the episodes came about.

    Attributes:
        benchmark: its name.
        policy: hashes of it, or what takes their place.
        protocol: all else that changes the results.
        source: where the policy was loaded from.
        blind: it saw the mean of its training pictures instead of what there was.
        mode: its way to infer, where its variant has several; empty for the first.
    """

    benchmark: str
    policy: str
    protocol: dict[str, Any]
    source: Uncompared[str] = ""
    blind: bool = False
    mode: str = ""


class Results:
    """See the module. A folder that is there already is continued. What a policy did blind has a file of its own.

    Attributes:
        folder: which one.
        how: how the episodes came about.
        file: their lines.

    Raises:
        ConfigError: it was begun otherwise, or is something else's.
    """

    def __init__(self, folder: Path, how: How) -> None:
        self.folder, self.how = folder, how
        self.file = folder / (BLIND_EPISODES if how.blind else EPISODES)
        self._episodes: dict[tuple[str, int, int], Episode] = {}
        if self.file.exists():
            self._read()
        elif folder.is_dir() and any(folder.iterdir()) and not (how.blind and (folder / EPISODES).exists()):
            raise ConfigError(f"{folder} is not empty and was not written by benchmark; {_ANOTHER}")
        else:
            self._begin()

    def add(self, episode: Episode) -> None:
        """Keep an episode: from now on it is done."""
        self._append(asdict(episode))
        self._episodes[episode.key] = episode

    def of(self, tasks: Iterable[Task], trials: int | None) -> list[Episode]:
        """Episodes of these tasks, in order; of each the first `trials`, None for as many as the protocol has."""
        wanted = ((task, trial) for task in tasks for trial in range(_count(task, trials)))
        found = (self._episodes.get((task.suite, task.number, trial)) for task, trial in wanted)
        return [episode for episode in found if episode is not None]

    def missing(self, task: Task, trials: int | None) -> list[int]:
        """The trials of a task that have no result yet."""
        done = {key for key, episode in self._episodes.items() if not episode.broken}
        return [trial for trial in range(_count(task, trials)) if (task.suite, task.number, trial) not in done]

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.file, json.dumps({"how": asdict(self.how)}) + "\n")

    def _append(self, line: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        *lines, unfinished = self.file.read_bytes().split(b"\n")
        if not lines and not unfinished:  # the disk was full when it began
            self._begin()
            return
        try:
            before = json.loads(lines[0])["how"]
        except (IndexError, KeyError, TypeError, ValueError):
            raise ConfigError(f"{self.file} was not written by benchmark; {_ANOTHER}") from None
        if changed := list(changes(before, self.how)):
            raise ConfigError(
                f"{self.folder} was begun with other settings:\n  " + "\n  ".join(changed) + "\n"
                f"Restore them to continue, or {_ANOTHER}"
            )
        for number, line in enumerate(lines[1:], start=2):
            try:
                episode = _EPISODE.validate_json(line)
            except ValueError:
                raise ConfigError(
                    f"{self.file}, line {number} holds no episode: remove the line to play that episode again, or "
                    f"{_ANOTHER}"
                ) from None
            self._episodes[episode.key] = episode
        if unfinished:  # the end of a line that was being written
            os.truncate(self.file, self.file.stat().st_size - len(unfinished))


def _count(task: Task, trials: int | None) -> int:
    return task.trials if trials is None else min(trials, task.trials)
