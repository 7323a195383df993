"""Work in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.lifetime import end_with_parent

Result = TypeVar("Result")


def in_processes(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], workers: int = 0
) -> Generator[Result, None, None]:
    """Results of `function(*each)` as they come, from `workers` processes, 0 for one a core; 1 is this process alone.

    An error, and the end of this process however it comes, end them all in the middle of their work.

    Raises:
        RunError: a process was killed.
    """
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield from (function(*each) for each in arguments)
        return
    # Processes are spawned, not forked: MuJoCo, numba and torch have threads.
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), begin_worker, (os.getpid(),)) as pool:
        try:
            for done in as_completed([pool.submit(function, *each) for each in arguments]):
                yield done.result()
        except BaseException as error:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RunError(
                    f"one of {count} worker processes was killed, perhaps out of memory: try fewer with --workers"
                ) from None
            raise


def begin_worker(parent: int) -> None:
    """What a worker process does first: it takes one core, leaves Ctrl-C to the process `parent`, and ends with it."""
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores; torch would take all of them for each
    if torch := sys.modules.get("torch"):  # too late for the variable
        torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    end_with_parent(parent)
