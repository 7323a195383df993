"""Fills a dataset with the episodes that it does not have yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastwam_policy.common.files import require_space
from fastwam_policy.common.parallel import EVERY_CORE, Where, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.data.lerobot_writer import Dataset

_SIZE = 4  # bytes of an episode for each pixel of its cameras' images: to see early that a disk is too small


def fill(
    dataset: Dataset, episodes: int, pixels: int, write: Callable[..., int], arguments: tuple[Any, ...],
    where: Where = EVERY_CORE, order: Callable[[int], Any] | None = None,
) -> int:  # fmt: skip
    """Write the episodes below `episodes` that are missing, and meta/; those that are there already are kept.

    Args:
        dataset: that is to be filled.
        episodes: how many it is to have.
        pixels: of one image of each camera together.
        write: called with the number of an episode and `arguments`, in another process: writes it, and returns how
            often it failed before.
        arguments: for `write`.
        where: as :func:`map_tasks` takes it; on a cluster the dataset's folder is one that its nodes share.
        order: in which they are written, ascending; None: by their numbers.

    Returns:
        How often it failed, all together.

    Raises:
        RunError: the disk is too small, or `write` says so.
    """
    wanted = sorted((index for index in range(episodes) if not dataset.has(index)), key=order)
    require_space(dataset.folder, len(wanted) * pixels * _SIZE, f"{len(wanted)} episodes")
    failures = 0
    with counted() as progress:
        task = progress.add_task("episodes", total=episodes, completed=episodes - len(wanted))
        for failed in map_tasks(write, [(index, *arguments) for index in wanted], where):
            failures += failed
            progress.advance(task)
    dataset.finish()
    return failures
