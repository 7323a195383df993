"""Pieces of work on a Ray cluster. Ray is optional (requirements-ray.txt), and imported where it is used."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.parallel import Piece, outcomes, take_one_thread

LOCAL = "local"
"""The address that starts Ray on this machine alone, until the command ends."""
_RETRIES = 3  # of a task whose worker or node dies
_CONNECTING = 10.0  # s
_SUBMITTED = 1000  # tasks that Ray knows at a time
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CARRIED = ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "MUJOCO_GL")  # of the environment, besides the search path
_LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # where it is 0, Ray takes 127.0.0.1 for this machine's address


def on_ray(function: Callable[..., Any], pieces: list[Piece], address: str) -> Generator[Any, None, None]:
    """As :func:`fastwam_policy.common.parallel.map_tasks`: a task of one CPU for each piece.

    Args:
        function: and all that it imports is read where this process read it: nodes share that folder.
        pieces: arguments of each task; files that they name lie in a shared folder, too.
        address: HOST:PORT of the cluster's head, "auto" for the one that this machine belongs to, or LOCAL.

    Raises:
        RunError: Ray is not installed or not there, or a task's worker died again and again.
    """
    ray = _joined(address)
    # By itself Ray queues pieces at a node whose cores are busy while another node's are free.
    how = {"max_retries": _RETRIES, "num_cpus": 1, "num_returns": "streaming", "scheduling_strategy": "SPREAD"}
    task = ray.remote(**how)(_run)
    waiting, running = iter(pieces), deque[Any]()
    try:
        while True:
            running.extend(task.remote(function, piece) for piece in islice(waiting, _SUBMITTED - len(running)))
            if not running:
                return
            ready = ray.wait(list(running), num_returns=1)[0][0]
            try:
                result = ray.get(next(ready))
            except StopIteration:
                running.remove(ready)
                continue
            except ray.exceptions.RayError as error:
                raise RunError(f"a task on Ray died {1 + _RETRIES} times: {str(error).splitlines()[0]}") from None
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for each in running:
            ray.cancel(each, force=True)


def _run(function: Callable[..., Any], piece: Piece) -> Iterator[Any]:
    take_one_thread()
    yield from outcomes(function, piece)


def _require_head(address: str) -> None:
    """RunError where nothing listens at HOST:PORT, which Ray itself says after minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECTING).close()
        except (OSError, OverflowError) as error:
            raise RunError(f"--ray {address}: {error}. Is it the address of a cluster's head?") from None


def _joined(address: str) -> Any:
    """Ray, connected."""
    _require_head(address)
    if address == LOCAL or address.rpartition(":")[0] in _LOOPBACK:
        os.environ.setdefault(_LOOPBACK_ONLY, "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise RunError("--ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from None
    if not ray.is_initialized():
        carried = {name: os.environ[name] for name in _CARRIED if name in os.environ}
        carried |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        try:
            ray.init(
                address, include_dashboard=False if address == LOCAL else None, log_to_driver=False,
                logging_level="warning", runtime_env={"env_vars": carried},
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = str(error).splitlines()[0].rstrip(".")
            raise RunError(
                f"--ray {address}: {said}. Is it the address of a cluster's head? If that was started with a token: "
                "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the same here"
            ) from None
    return ray
