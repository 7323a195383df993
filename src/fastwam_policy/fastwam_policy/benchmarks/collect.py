"""`fastwam collect --benchmark libero`: episodes of LIBERO's scripted expert, as a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastwam_policy.benchmarks.base import SimulatorDiedError, Task
from fastwam_policy.benchmarks.libero import INTERFACE, RULES, libero, opened
from fastwam_policy.benchmarks.lockstep import LockstepTask
from fastwam_policy.benchmarks.run import check_instructions, ready_policy
from fastwam_policy.benchmarks.simulator import SimulatorProcess
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import alone_in
from fastwam_policy.common.parallel import EVERY_CORE, Where
from fastwam_policy.common.settings import Uncompared
from fastwam_policy.data.body import WHOLE, Body
from fastwam_policy.data.filling import fill
from fastwam_policy.data.lerobot_writer import Dataset, Episode, claim
from fastwam_policy.policies.loading import inspect_policy, policy_key

LIBERO = libero("fastwam")
BODY = Body.plain(
    "libero", [each.name for each in INTERFACE.state], [each.name for each in INTERFACE.action], INTERFACE.cameras
)
_RULES = RULES[LIBERO.rules]
_LOG = "simulator.log"
PLACE = "apart.libero_data:LiberoData"
"""The simulator's end of the pipe."""
_TOGETHER = 20  # episodes of a task, before it is the next one's turn
_ATTEMPTS = 50  # seeds tried for one episode before it is given up
_NEXT_SEED = 1_000_000  # between two attempts: episodes and evaluations use seeds below
_STEPS = 300  # of an episode, at most; the expert needs about 110
_DRIVES = (6, 260)  # steps that a policy drives: from its first move to long after it should have been done
_PUSHED = 0.3  # share of the expert's episodes that begin behind a push
_LEADS, _PUSHES = (1, 80), (3, 9)  # steps before that push, and of it


@dataclass(frozen=True)
class LiberoSettings:
    """What to collect.

    Attributes:
        tasks: as `SUITE NUMBER`; episode i is of task i modulo their number.
        noise: of the executed actions, standard deviation as a share of their own speed; the recorded action is the
            expert's.
        first_seed: of episode 0; episode i uses first_seed + i. Evaluations use those below 1000.
        policy: source of the policy that drives until a random moment; the expert takes over where that has led
            (DAgger). Empty: the expert from the start.
        policy_sha256: hashes of it, or its source where they are not known; :func:`collect` fills it in.
        picture_every: steps from one picture to the next, which is repeated until then: pictures are what takes time.
    """

    tasks: list[str]
    noise: float = 0.3
    first_seed: int = 10_000
    policy: Uncompared[str] = ""
    policy_sha256: str = ""
    picture_every: int = 1


def collect(
    folder: Path, episodes: int, tasks: Sequence[Task], noise: float, first_seed: int, policy: str = "",
    where: Where = EVERY_CORE, picture_every: int = 1,
) -> int:  # fmt: skip
    """Write `episodes` successful episodes of these tasks into the dataset at `folder`; those that are there are kept.

    See :class:`LiberoSettings`. Returns the number of seeds that are left out: the expert failed there, or had to try
    again, or the policy needed no help.

    Raises:
        ConfigError: the folder holds episodes of other settings or of a policy with other weights, another command
            writes into it, or the policy does not fit.
        RunError: the expert cannot do a task, or failed too often; the simulator does not start; the disk is too small.
    """
    names = [f"{task.suite} {task.number}" for task in tasks]
    settings = LiberoSettings(names, noise, first_seed, policy, picture_every=picture_every)
    if policy:
        info = inspect_policy(policy)
        INTERFACE.check(info, policy)
        check_instructions(info, tasks, policy)
        settings = replace(settings, policy_sha256=policy_key(info, policy) or policy)
    with alone_in(folder):
        claim(folder, "collect_libero", settings)
        dataset = Dataset(folder, BODY, round(INTERFACE.fps), "v3.0")
        pixels = len(INTERFACE.cameras) * _RULES.size**2
        try:
            return fill(
                dataset,
                episodes,
                pixels,
                _collect_one,
                (folder, tasks, settings),
                where,
                lambda k: _turn(k, len(tasks)),
            )
        finally:
            _end_simulator()


def record(process: SimulatorProcess, task: Task, seed: int, settings: LiberoSettings) -> Episode | None:
    """One episode of the expert; None where it is left out.

    Raises:
        RunError: the expert has no skill for the task.
        SimulatorDiedError: the simulator ended.
    """
    random, lead, push = np.random.default_rng([seed, 2]), 1, 0
    if settings.policy:
        policy, drives = ready_policy(LIBERO, settings.policy), int(random.integers(*_DRIVES))
        if LockstepTask(process, task, INTERFACE, policy, _RULES.replan, drives).play(seed, None).success:
            return None
    else:
        process.ask("begin", trial=seed, look=False)
        if random.random() < _PUSHED:
            lead, push = (int(random.integers(*bounds)) for bounds in (_LEADS, _PUSHES))
    played = process.ask(
        "record", seed=seed, noise=settings.noise, lead=lead, push=push, steps=_STEPS, every=settings.picture_every
    )
    if "cannot" in played:
        raise RunError(f"{task.suite}, task {task.number}: {played['cannot']}; leave it out with --tasks")
    if not played["done"]:
        return None
    each = np.arange(len(played["actions"])) // settings.picture_every
    return Episode(
        task.instruction,
        {camera: pictures[each] for camera, pictures in played["images"].items()},
        {WHOLE: played["state"]},
        {WHOLE: played["actions"]},
        np.full(len(played["actions"]), bool(settings.policy)),
    )


def _turn(index: int, tasks: int) -> tuple[int, int]:
    """When an episode is collected: some of each task, since a simulator is loaded for each, and then some more."""
    return index // (_TOGETHER * tasks), index % tasks


def _collect_one(index: int, folder: Path, tasks: Sequence[Task], settings: LiberoSettings) -> int:
    task = tasks[index % len(tasks)]
    for attempt in range(_ATTEMPTS):
        try:
            process = _simulator(task, folder / _LOG)
            episode = record(process, task, settings.first_seed + index + attempt * _NEXT_SEED, settings)
        except SimulatorDiedError:
            _end_simulator()
            continue
        if episode is not None:
            Dataset(folder, BODY, round(INTERFACE.fps), "v3.0").write(index, episode)
            return attempt
    raise RunError(f"episode {index}: {_ATTEMPTS} seeds in a row were left out; see {folder / _LOG}")


_running: dict[Task, SimulatorProcess] = {}
"""The simulator of this process, with the task that it has loaded: of one at a time."""


def _simulator(task: Task, log: Path) -> SimulatorProcess:
    if task not in _running:
        _end_simulator()
        _running[task] = opened(task, _RULES, log, look=True, place=PLACE)
    return _running[task]


def _end_simulator() -> None:
    while _running:
        _running.popitem()[1].close()
