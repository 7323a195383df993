"""Which recordings a dataset has already. One is known by its content, wherever it lies and whatever its name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastwam_policy.data.lerobot_writer import Dataset
from fastwam_policy.data.recording_files import Content, content_of
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


@dataclass(frozen=True)
class Work:
    """A recording of `size` bytes that is to become episode `index`, in the place of `instead` if there is one."""

    path: Path
    index: int
    size: int = 0
    instead: int | None = None


def missing(paths: Sequence[Path], dataset: Dataset, task: str) -> tuple[list[Work], dict[Path, list[str]]]:
    """The recordings that a dataset has not, or not as they are now.

    Also a note on each that is a copy of another, or is there with another instruction than `task`.

    Of an episode that was made of a recording twice, as when a kill came between the new and the old one, one stays.
    """
    episodes = dataset.sources()
    free = (index for index in itertools.count() if index not in episodes)
    new: dict[Path, Content] = {}
    work, notes = [], dict[Path, list[str]]()
    for path in paths:
        own = {index: content for index, (source, content) in episodes.items() if source == str(path.resolve())}
        if not all(own.values()):  # of a version that did not note the content
            continue
        try:
            now = content_of(path, hashed=False)
            same = next((index for index, content in own.items() if _is(content, now, path)), None)
            twin = _twin(path, now, episodes, new) if same is None else ""
        except (ConfigError, OSError):  # said by whoever opens it
            work.append(Work(path, next(free)))
            continue
        if twin:
            notes[path] = [f"{path}: is the same recording as {twin}: not added again"]
        elif same is None:
            new[path] = now
            work.append(Work(path, next(free), now.size, next(iter(own), None)))
        else:
            for index in own.keys() - {same}:
                dataset.remove(index)
            if (kept := dataset.task(same)) != task:
                notes[path] = [
                    f"{path}: is there already with the instruction {kept!r}, which stays: to change it to {task!r}, "
                    "convert into another folder"
                ]
    return work, notes


def _is(known: Mapping[str, Any], now: Content, path: Path) -> bool:
    """Whether a recording's content is the known one; it is read only where size and time do not say."""
    if known["size"] != now.size:
        return False
    return known["written"] == now.written or known["sha256"] == content_of(path, hashed=True).sha256


def _twin(
    path: Path, now: Content, episodes: Mapping[int, tuple[str, Mapping[str, Any]]], new: Mapping[Path, Content]
) -> str:
    """What else has the content of a recording; empty where nothing has."""
    if not (others := list(_of_size(now.size, episodes, new))):
        return ""
    own = content_of(path, hashed=True).sha256
    return next((name for name, other in others if other == own), "")


def _of_size(
    size: int, episodes: Mapping[int, tuple[str, Mapping[str, Any]]], new: Mapping[Path, Content]
) -> Iterator[tuple[str, str]]:
    """Name and hash of all that is as large."""
    for index, (source, content) in episodes.items():
        if content and content["size"] == size:
            yield f"{source}, episode {index}", content["sha256"]
    for other, content_now in new.items():
        if content_now.size == size:
            yield str(other), content_of(other, hashed=True).sha256
