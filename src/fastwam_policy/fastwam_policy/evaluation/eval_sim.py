"""`fastwam eval-sim`: how often a bundle folds the towel, in the simulator, through the bridge's own executor.

Everything runs in one process, faster than real time and with a fixed latency, so that equal seeds give equal results.
What the ROS nodes add is left out; `--nodes` runs the same episodes through them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fastwam_policy.evaluation.statistics import quartiles, success_interval
from fastwam_policy.files import write_json
from fastwam_policy.parallel import in_processes
from fastwam_policy.policy.bundle import Bundle, check_robot
from fastwam_policy.policy.images import Pixels
from fastwam_policy.policy.policy import Observation, Policy, RunningPlan
from fastwam_policy.policy.remote import RemotePolicy
from fastwam_policy.progress import counted
from fastwam_policy.runtime.fastwam_policy import FastWamPolicy, Options, Realtime
from fastwam_policy.training.lerobot import write_video
from galaxea_r1lite_bridge.execution.assembly import make_executor
from galaxea_r1lite_bridge.execution.blending import Blending, Plan
from galaxea_r1lite_bridge.execution.executor import Executor, ExecutorConfig, Inputs, JointFeedback
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.execution.watchdogs import Reaction, Watch, WatchdogConfig
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.randomization import Level, draw
from galaxea_r1lite_sim.simulation import SETTLED, Simulation
from galaxea_r1lite_sim.simulation import Progress as FoldProgress

_NS = 1_000_000_000
CHUNK_AGE = 1.5  # s, as the bridge's default: a chunk of an older observation is dropped
_TICK = 0.01  # s, of the bridge
_CAMERA_TICKS = 7  # between two images: 15 Hz, about
_PROGRESS_TICKS = 10
_ARMING = 1.0  # s before the episode in which the bridge is armed
_START = 10.0  # s on the executor's clock when the episode begins: 0 would be no time


@dataclass(frozen=True)
class Settings:
    """How the episodes are run.

    Attributes:
        level: what varies with the seed.
        latency: s from an observation to the use of its chunk, below CHUNK_AGE.
        replan: s between two observations, at least the latency.
        blending: of the bridge; `rtc` uses the policy's guidance.
        time_limit: s of simulated time for an episode.
        height: of the camera images, pixels.
    """

    level: Level = "full"
    latency: float = 0.15
    replan: float = 0.5
    blending: Blending = "switch"
    time_limit: float = 20.0
    height: int = 360


@dataclass(frozen=True)
class Outcome:
    """One episode.

    Attributes:
        seed: of its scene.
        success: folded and let go of, in time.
        time: s of simulated time until then, or until it was given up.
        failure: class of the failure, empty with success.
        grasps: arms that took hold of the towel.
        corner_distance: m, at the end.
        inference_ms: median time of an inference.
    """

    seed: int
    success: bool
    time: float
    failure: str
    grasps: int
    corner_distance: float
    inference_ms: float


def evaluate(
    bundle: Path | str,
    seeds: Sequence[int],
    settings: Settings,
    workers: int = 0,
    videos: Path | None = None,
    mode: str = "",
    figures: Path | None = None,
) -> dict[str, Any]:
    """Run an episode for each seed, in parallel; with `videos`, write one of each failure into that folder.

    `bundle` is a folder or the address of a remote policy. `mode` is a way to infer, for a variant that has several.
    `figures` and what is returned are as in :func:`gather`.

    Raises:
        ConfigError: the bundle cannot be loaded or does not fit the robot.
    """
    load_policy(bundle, settings, mode)  # a bad bundle is refused here, not in a worker

    def run(missing: Sequence[int]) -> Generator[Outcome, None, None]:
        return in_processes(_episode_of, [(bundle, seed, settings, videos, mode) for seed in missing], workers)

    # What is served at an address may change, so that its figures belong to this evaluation only.
    remote = isinstance(bundle, str)
    identity = f"{bundle}, {time.time():.3f}" if remote else Bundle.read_identity(Path(bundle))["sha256"]
    return gather(run, {"bundle": identity, "mode": mode, "seeds": [*seeds], **asdict(settings)}, figures)


def gather(
    run: Callable[[Sequence[int]], Generator[Outcome, None, None]], how: dict[str, Any], figures: Path | None
) -> dict[str, Any]:
    """Figures of the outcomes of `run(seeds)`, as :func:`summarise`, and `how` they came about, its seeds among it.

    They are in the file `figures` from the first outcome on, as JSON; what it has already is not done again.
    """
    seeds, outcomes = how["seeds"], _known(figures, how)
    done = {outcome.seed for outcome in outcomes}
    if done:
        print(f"{len(done)} of {len(seeds)} episodes are in {figures} already")
    missing = [seed for seed in seeds if seed not in done]
    if not missing:
        return {"how": how, **summarise(outcomes)}
    with counted() as progress, closing(run(missing)) as arriving:
        task = progress.add_task("episodes", total=len(seeds), completed=len(done))
        for outcome in arriving:
            outcomes.append(outcome)
            outcomes.sort(key=lambda each: each.seed)
            if figures is not None:
                write_json(figures, {"how": how, **summarise(outcomes)})
            folded = sum(outcome.success for outcome in outcomes)
            progress.update(task, advance=1, description=f"folded {folded} of {len(outcomes)}")
    return {"how": how, **summarise(outcomes)}


def _known(figures: Path | None, how: dict[str, Any]) -> list[Outcome]:
    """Outcomes that are in a file of :func:`gather`; none where they came about in another way."""
    try:
        known = json.loads(figures.read_text(encoding="utf-8")) if figures else {}
        return [Outcome(**outcome) for outcome in known["outcomes"]] if known["how"] == how else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def run_episode(
    policy: Policy, robot: RobotConfig, seed: int, settings: Settings,
    watch: Callable[[Cameras], None] = lambda _: None,
) -> Outcome:  # fmt: skip
    """One episode with a prepared policy; `watch` is called at the cameras' rate."""
    simulation = Simulation(robot, draw(seed, settings.level))
    cameras = Cameras(simulation, settings.height, settings.height * 16 // 9)
    return _Episode(policy, robot, simulation, cameras, settings).run(seed, watch)


def drive(
    policy: Policy, robot: RobotConfig, simulation: Simulation, cameras: Cameras, settings: Settings, seconds: float
) -> None:
    """Let a policy move a simulation for a while."""
    _Episode(policy, robot, simulation, cameras, replace(settings, time_limit=seconds)).run(0, lambda _: None)


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Success with its Wilson interval (95 %), time to fold, grasps, classes of failure."""
    folded = [outcome for outcome in outcomes if outcome.success]
    times = [outcome.time for outcome in folded]
    return {
        "episodes": len(outcomes),
        "success": len(folded) / len(outcomes),
        "success_interval": success_interval(len(folded), len(outcomes)),
        "fold_time_mean": float(np.mean(times)) if times else None,
        "fold_time_quartiles": quartiles(times),
        "both_grasped": float(np.mean([outcome.grasps == 2 for outcome in outcomes])),
        "corner_distance_median": float(np.median([outcome.corner_distance for outcome in outcomes])),
        "failures": dict(Counter(outcome.failure for outcome in outcomes if not outcome.success)),
        "inference_ms_median": float(np.median([outcome.inference_ms for outcome in outcomes])),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def table(summary: dict[str, Any], title: str) -> Table:
    """The figures for a terminal."""
    low, high = summary["success_interval"]
    quartiles = summary["fold_time_quartiles"]
    shown = Table(title=title, show_header=False)
    rows = {
        "success": f"{100 * summary['success']:.0f} % of {summary['episodes']} ({100 * low:.0f} to {100 * high:.0f} %)",
        "time to fold": "never" if quartiles is None
        else f"mean {summary['fold_time_mean']:.1f} s, quartiles {' / '.join(f'{value:.1f}' for value in quartiles)} s",
        "both corners grasped": f"{100 * summary['both_grasped']:.0f} %",
        "corner distance": f"{100 * summary['corner_distance_median']:.1f} cm (median)",
        "failures": ", ".join(f"{name}: {count}" for name, count in summary["failures"].items()) or "none",
        "inference": f"{summary['inference_ms_median']:.0f} ms (median)",
    }  # fmt: skip
    for name, text in rows.items():
        shown.add_row(name, text)
    return shown


class _Episode:
    """Simulation, executor and policy on one clock."""

    def __init__(
        self, policy: Policy, robot: RobotConfig, simulation: Simulation, cameras: Cameras, settings: Settings
    ) -> None:
        self._policy, self._robot, self._settings = policy, robot, settings
        self._simulation, self._cameras = simulation, cameras
        off = Watch(1e9, Reaction.HOLD)
        watchdogs = WatchdogConfig(Watch(CHUNK_AGE, Reaction.HOLD), off, off, off, off, off, off)
        plan = Plan(settings.blending, 0.2, 0.7)
        self._executor: Executor = make_executor(robot, ExecutorConfig(watchdogs, 0.05, 0.02), plan)
        self._arriving: list[tuple[int, Chunk]] = []
        self._chunks = 0
        self._inference_ms: list[float] = []

    def run(self, seed: int, watch: Callable[[Cameras], None]) -> Outcome:
        simulation, settings, begin = self._simulation, self._settings, self._simulation.time
        self._arm()
        next_replan = _START
        progress, folded_since = simulation.progress(), None
        for tick in range(round(settings.time_limit / _TICK) + 1):
            now = _START + tick * _TICK
            if tick % _CAMERA_TICKS == 0:
                watch(self._cameras)
            if now >= next_replan:
                self._observe(now)
                next_replan = now + max(settings.replan, settings.latency)
            self._control(now)
            while simulation.time - begin < (tick + 1) * _TICK - 1e-9:
                simulation.step()
            if tick % _PROGRESS_TICKS == 0:
                progress = simulation.progress()
                folded_since = None if not progress.success else tick if folded_since is None else folded_since
                if folded_since is not None and (tick - folded_since) * _TICK >= SETTLED:
                    return self._outcome(seed, tick * _TICK, progress, "")
        return self._outcome(seed, settings.time_limit, progress, failure_class(progress))

    def _arm(self) -> None:
        """The bridge looks at the resting arms for a while before it lets itself be armed."""
        now = _START - _ARMING
        while self._executor.step(self._inputs(now)).state == State.DISARMED:
            self._executor.arm()
            now += _TICK

    def _inputs(self, now: float) -> Inputs:
        now_ns = round(now * _NS)
        joints = np.concatenate([self._simulation.joints, self._simulation.torso])
        groups = self._executor.groups.items()
        return Inputs(now_ns, now_ns, {name: JointFeedback(joints[at], 0.0) for name, at in groups})

    def _control(self, now: float) -> None:
        """One tick of the bridge."""
        executor, now_ns = self._executor, round(now * _NS)
        while self._arriving and self._arriving[0][0] <= now_ns:
            executor.accept(self._arriving.pop(0)[1], now_ns)
        command = executor.step(self._inputs(now))
        if command.motion is not None:
            self._simulation.target = command.motion.position[: len(self._robot.joint_names)].copy()

    def _observe(self, now: float) -> None:
        """One inference; its chunk arrives after the latency."""
        images: dict[str, Pixels] = {camera: self._cameras.render(camera) for camera in self._robot.cameras}
        joints = dict(zip(self._robot.joint_names, self._simulation.joints.tolist(), strict=True))
        now_ns, latency_ns = round(now * _NS), round(self._settings.latency * _NS)
        begin = time.perf_counter()
        chunk = self._policy.infer(Observation(now_ns, images, joints, "", self._running(now_ns, latency_ns)))
        self._inference_ms.append(1e3 * (time.perf_counter() - begin))
        self._chunks += 1
        self._order = [self._robot.joint_names.index(name) for name in chunk.names]
        arriving = Chunk(self._chunks, 1, now_ns, chunk.step_ns, chunk.names, chunk.actions, chunk.committed)
        self._arriving.append((now_ns + latency_ns, arriving))

    def _running(self, now_ns: int, latency_ns: int) -> RunningPlan | None:
        """What is executed, for real-time chunking; joints in the policy's order."""
        plan = self._executor.plan
        if self._settings.blending != "rtc" or plan.newest is None:
            return None
        step_ns = plan.newest.step_ns
        count = max(0, (plan.end_ns - now_ns) // step_ns + 1)
        actions = np.array([plan.sample(now_ns + k * step_ns)[0] for k in range(count)])
        return RunningPlan(actions[:, self._order], min(count, -(-latency_ns // step_ns) + 1)) if count else None

    def _outcome(self, seed: int, at: float, progress: FoldProgress, failure: str) -> Outcome:
        grasps = sum(count > 0 for count in progress.grasps.values())
        inference = float(np.median(self._inference_ms))
        return Outcome(seed, not failure, at, failure, grasps, progress.corner_distance, inference)


def failure_class(progress: FoldProgress) -> str:
    """Class of an episode that ran out of time."""
    grasped = sum(count > 0 for count in progress.grasps.values())
    if grasped < len(progress.grasps):
        return "no corner grasped" if not grasped else "one corner grasped"
    return "not released" if progress.held else "misplaced"


@cache  # one for each worker process
def load_policy(source: Path | str, settings: Settings, mode: str = "") -> Policy:
    """A bundle, or the address of a remote policy, ready for its default instruction under the name of an empty one."""
    robot = RobotConfig.load()
    if isinstance(source, str):
        if mode or settings.blending == "rtc":
            raise ConfigError(f"{source}: blending rtc and mode are chosen where the policy is served")
        remote = RemotePolicy(source)
        check_robot(remote.config, robot, source)
        return _DefaultInstruction(remote, remote.config.prompt.default_instruction)
    realtime: Realtime = "guidance" if settings.blending == "rtc" else "off"
    policy = FastWamPolicy.load(source, options=Options(realtime=realtime, mode=mode))
    policy.bundle.check_robot(robot)
    return _DefaultInstruction(policy, policy.bundle.config.prompt.default_instruction)


class _DefaultInstruction:
    """A policy that is asked for its bundle's default instruction."""

    def __init__(self, policy: Policy, instruction: str) -> None:
        self._policy, self._instruction = policy, instruction
        policy.prepare(instruction)

    def prepare(self, instruction: str) -> None:
        """Nothing to do."""

    def infer(self, observation: Observation) -> Any:
        return self._policy.infer(replace(observation, instruction=self._instruction))


def _episode_of(bundle: Path | str, seed: int, settings: Settings, videos: Path | None, mode: str) -> Outcome:
    robot, policy = RobotConfig.load(), load_policy(bundle, settings, mode)
    frames: list[Pixels] = []
    camera = next(iter(robot.cameras))

    def keep(cameras: Cameras) -> None:
        frames.append(cameras.render(camera).copy())

    outcome = run_episode(policy, robot, seed, settings, keep if videos else lambda _: None)
    if videos and not outcome.success:
        videos.mkdir(parents=True, exist_ok=True)
        write_video(videos / f"seed_{seed}.mp4", frames, round(1 / (_CAMERA_TICKS * _TICK)))
    return outcome
