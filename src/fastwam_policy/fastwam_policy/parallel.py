"""Work on several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def in_processes(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], workers: int = 0
) -> Generator[Result, None, None]:
    """Results of `function(*each)` as they come, from `workers` processes, 0 for one a core; 1 is this process alone.

    An error, or the end of this process, cancels what has not begun.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from (function(*each) for each in arguments)
        return
    # Processes are spawned, not forked: MuJoCo, numba and torch have threads.
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _one_thread) as pool:
        try:
            for done in as_completed([pool.submit(function, *each) for each in arguments]):
                yield done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _one_thread() -> None:
    """Workers share the cores; torch would take all of them for each."""
    torch.set_num_threads(1)
