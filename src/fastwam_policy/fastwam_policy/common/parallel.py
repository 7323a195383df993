"""Independent pieces of work: in this process, in several processes of this machine, or on a Ray cluster.

A worker process and a Ray task have one thread, so that a piece's result is the same to the byte in all of them, on
processors of one type; in this process torch has the threads that it has, which OMP_NUM_THREADS=1 makes one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import isgenerator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.lifetime import end_with_parent

_TRIES = 3  # of a piece whose process is killed: by then it is the piece that does it
_LOG = logging.getLogger(__name__)

Item = TypeVar("Item")
Piece = tuple[Any, ...]
"""Arguments of one call."""


@dataclass(frozen=True)
class Where:
    """Where pieces of work run.

    Attributes:
        workers: processes of this machine, 0 for one a core; 1 is this process alone.
        ray: address of a Ray cluster, as :func:`fastwam_policy.common.ray_cluster.on_ray` takes it; empty for none.
    """

    workers: int = 0
    ray: str = ""


EVERY_CORE, THIS_PROCESS = Where(), Where(workers=1)


def map_tasks(
    function: Callable[..., Any], pieces: Iterable[Piece], where: Where = THIS_PROCESS
) -> Generator[Any, None, None]:
    """Results of `function(*piece)` as they come, in no order; all that it yields, where it is a generator function.

    A piece whose process is killed is done again, without what it had given already: equal arguments must give equal
    results. An error, and the end of this process however it comes, end all of them in the middle of their work.

    Raises:
        ConfigError, RunError, OSError: as `function` raises them.
        RunError: it raised something else, or the process of one piece was killed again and again.
    """
    waiting = list(pieces)
    if where.ray and waiting:
        from fastwam_policy.common.ray_cluster import on_ray

        yield from on_ray(function, waiting, where.ray)
    elif where == THIS_PROCESS:
        for piece in waiting:
            yield from _results(function, piece)
    else:  # for one piece, too: in this process it could have another number of threads, and so other sums
        yield from _in_processes(function, waiting, min(where.workers or os.cpu_count() or 1, len(waiting)))


def blocks(items: Sequence[Item], where: Where, size: int) -> list[Sequence[Item]]:
    """Items that a process does one after the other: `size` at a time, or all of them where there is one process."""
    step = len(items) or 1 if where == THIS_PROCESS else size
    return [items[begin : begin + step] for begin in range(0, len(items), step)]


def outcomes(function: Callable[..., Any], piece: Piece) -> Iterator[Any]:
    """Its results; an error as the last of them, of a class that other processes know."""
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    try:
        yield from _results(function, piece)
    except (ConfigError, RunError, OSError) as error:
        yield error
    except Exception as error:  # noqa: BLE001  it may be of a class that cannot be sent
        yield RunError(f"{type(error).__name__}: {error}. With --workers 1 --debug it shows where it was")


def begin_worker(parent: int) -> None:
    """What a worker process does first: it takes one core, leaves Ctrl-C to the process `parent`, and ends with it."""
    take_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    end_with_parent(parent)


def take_one_thread() -> None:
    """Workers share the cores; torch would take all of them for each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):  # too late for the variable
        torch.set_num_threads(1)


def _results(function: Callable[..., Any], piece: Piece) -> Generator[Any, None, None]:
    result = function(*piece)
    if isgenerator(result):
        yield from result
    else:
        yield result


@dataclass
class _Task:
    """A piece, how many of its results have come, and how often it was begun."""

    piece: Piece
    given: int = 0
    begun: int = 0


class _Worker:
    """A process that does one piece after the other."""

    def __init__(self) -> None:
        # Processes are spawned, not forked: MuJoCo, numba and torch have threads.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.task = _Task(())

    def begin(self, function: Callable[..., Any], task: _Task) -> None:
        self.task, task.begun = task, task.begun + 1
        with suppress(BrokenPipeError):  # it has ended, as whoever receives from it sees next
            self.connection.send((function, task.piece, task.given))

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _in_processes(function: Callable[..., Any], pieces: list[Piece], count: int) -> Generator[Any, None, None]:
    waiting = deque(_Task(piece) for piece in pieces)
    workers: dict[Connection, _Worker] = {}

    def start() -> None:
        worker = _Worker()
        workers[worker.connection] = worker
        worker.begin(function, waiting.popleft())

    try:
        for _ in range(count):
            start()
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                worker = workers[connection]
                try:
                    finished, result = connection.recv()
                except (EOFError, OSError):
                    workers.pop(connection).end()
                    if worker.task.begun == _TRIES:
                        raise RunError(
                            f"one of {count} worker processes was killed {_TRIES} times, perhaps out of memory: try "
                            "fewer with --workers. What is done is kept where the command can go on"
                        ) from None
                    _LOG.warning("a worker process was killed; its work is begun again")
                    waiting.appendleft(worker.task)
                    start()
                    continue
                if isinstance(result, Exception):
                    raise result
                if not finished:
                    worker.task.given += 1
                    yield result
                elif waiting:
                    worker.begin(function, waiting.popleft())
                else:
                    workers.pop(connection).end()
    finally:
        for worker in workers.values():
            worker.end()


def _work(connection: Connection, parent: int) -> None:
    """Do the pieces that come; send (False, result) for each result, and (True, None) when a piece is finished."""
    begin_worker(parent)
    while True:
        try:
            function, piece, given = connection.recv()
        except EOFError:
            return
        for place, result in enumerate(outcomes(function, piece)):
            if place >= given or isinstance(result, Exception):
                connection.send((False, result))
        connection.send((True, None))
