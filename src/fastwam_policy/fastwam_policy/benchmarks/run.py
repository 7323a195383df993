"""Plays the episodes of a benchmark that are missing: one task at a time in each process, each episode kept at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastwam_policy.benchmarks.base import EXPERT, NOOP, Benchmark, Episode, SimulatorDiedError, Task
from fastwam_policy.benchmarks.blind import blinded
from fastwam_policy.benchmarks.results import How, Results
from fastwam_policy.common.parallel import Where, blocks, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.policies.base import Policy, PolicyInfo
from fastwam_policy.policies.loading import policy_key
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

LOG = "simulator.log"
_VIDEOS = "failures"
_TOGETHER = 10  # trials that a process plays before it may get another task: loading a simulator takes a trial's time


@dataclass(frozen=True)
class Job:
    """Trials of one task, in ascending order, by one policy.

    Attributes:
        benchmark: whose task.
        source: of the policy, NOOP or EXPERT.
        task: which one.
        trials: numbers of the initial states.
        folder: takes the simulator's log, and videos.
        film: whether failures are filmed.
        blind: whether the policy sees the mean of its training pictures instead of what there is.
        mode: its way to infer; empty for its first.
    """

    benchmark: Benchmark
    source: str
    task: Task
    trials: Sequence[int]
    folder: Path
    film: bool = False
    blind: bool = False
    mode: str = ""

    def policy(self) -> Policy | None:
        """Ready for this process."""
        return ready_policy(self.benchmark, self.source, self.blind, self.mode)


def how(benchmark: Benchmark, source: str, *, blind: bool = False, mode: str = "") -> How:
    """How the episodes of a policy come about; the policy is loaded, and must fit.

    Raises:
        ConfigError: it does not fit, cannot be loaded, or there is no expert.
    """
    if source == EXPERT and not benchmark.expert_identity():
        raise ConfigError(f"{benchmark.title} has no expert here; name a policy")
    policy = ready_policy(benchmark, source, blind, mode)
    if policy is None:
        key = f"{EXPERT} {benchmark.expert_identity()}"
    elif source == NOOP:
        key = NOOP
    else:
        # A served policy may not say which weights it has; then its address stands for them.
        key = policy_key(policy.info, source) or source
    return How(benchmark.name, key, benchmark.protocol(), source, blind, mode)


@cache  # one for each process
def ready_policy(benchmark: Benchmark, source: str, blind: bool = False, mode: str = "") -> Policy | None:
    """As :meth:`Benchmark.policy`, or that policy blind, once a process."""
    policy = benchmark.policy(source, mode)
    return blinded(policy, source) if blind else policy


def check_instructions(info: PolicyInfo, tasks: Sequence[Task], source: str) -> None:
    """ConfigError with all instructions of these tasks that a policy does not know, a line each."""
    if unknown := unknown_instructions(info, tasks):
        raise ConfigError(
            f"{source} does not know the instructions below. Write them into a file, and it into the bundle with "
            "`fastwam encode-prompt BUNDLE --file FILE`:\n" + "\n".join(unknown)
        )


def unknown_instructions(info: PolicyInfo, tasks: Sequence[Task]) -> list[str]:
    """Those of these tasks that a policy does not know, each once."""
    told = dict.fromkeys(" ".join(task.instruction.split()) for task in tasks if task.told)
    return [text for text in told if info.instructions is not None and text not in info.instructions]


def run(
    benchmark: Benchmark, results: Results, tasks: Sequence[Task], trials: int | None, where: Where, *,
    film: bool = False,
) -> None:  # fmt: skip
    """Play what is missing of these tasks; `trials` as :meth:`Results.of` takes them.

    On a cluster, `where`, the folder of the results is one that its nodes share.

    Raises:
        ConfigError, RunError: the policy or the simulator cannot be used; what is done is kept.
    """
    about = results.how
    missing = [(task, results.missing(task, trials)) for task in tasks]
    jobs = [
        Job(benchmark, about.source, task, part, results.folder, film, about.blind, about.mode)
        for task, left in missing
        for part in blocks(left, where, _TOGETHER)
    ]
    done = results.of(tasks, trials)
    total = sum(task.trials if trials is None else min(trials, task.trials) for task in tasks)
    left = sum(len(job.trials) for job in jobs)
    if left < total:
        print(f"{total - left} of {total} episodes are in {results.file} already")
    if not jobs:
        return
    if (policy := jobs[0].policy()) is not None:
        check_instructions(policy.info, [job.task for job in jobs], about.source)
    successes, played = sum(episode.success for episode in done), total - left
    with counted() as progress, closing(map_tasks(play, [(job,) for job in jobs], where)) as arriving:
        bar = progress.add_task("episodes", total=total, completed=played)
        for episode in arriving:
            results.add(episode)
            played, successes = played + 1, successes + episode.success
            if episode.broken:
                progress.print(f"{episode.suite}, task {episode.task}, trial {episode.trial}: {episode.failure}")
            progress.update(bar, advance=1, description=f"{successes} of {played} succeeded")


def play(job: Job) -> Generator[Episode, None, None]:
    """The job's episodes, one after the other.

    Where the simulator dies a new one plays the episode again, once; then it is broken, and the next one's turn.
    """
    waiting, again = deque(job.trials), False
    while waiting:
        policy = job.policy()
        with closing(job.benchmark.open(job.task, policy, job.folder / LOG, film=job.film)) as task:
            while waiting:
                trial = waiting[0]
                try:
                    episode = task.play(trial, _film(job, trial))
                except SimulatorDiedError as error:
                    if not again:
                        again = True
                        break
                    failure = f"the simulator died twice: {error}"
                    episode = Episode(
                        suite=job.task.suite, task=job.task.number, trial=trial, success=False, failure=failure,
                        steps=0, seconds=0.0, broken=True,
                    )  # fmt: skip
                waiting.popleft()
                again = False
                yield episode
                if episode.broken:
                    break


def _film(job: Job, trial: int) -> Path | None:
    if not job.film:
        return None
    folder = job.folder / _VIDEOS
    folder.mkdir(exist_ok=True)
    return folder / f"{'blind_' * job.blind}{job.task.suite}_{job.task.number}_{trial:03}.mp4"
