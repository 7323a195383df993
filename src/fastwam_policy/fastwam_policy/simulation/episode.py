"""One episode in the simulator: policy, bridge and simulation on one made-up clock, faster than real time.

What the ROS nodes add is left out; equal seeds give equal results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Frame, Observation, Policy, RunningPlan, StatefulPolicy
from galaxea_r1lite_bridge.execution.assembly import make_executor
from galaxea_r1lite_bridge.execution.blending import Blending, Plan
from galaxea_r1lite_bridge.execution.executor import Executor, ExecutorConfig, Inputs, JointFeedback
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.execution.watchdogs import Reaction, Watch, WatchdogConfig
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.randomization import Level, draw
from galaxea_r1lite_sim.simulation import SETTLED, Simulation
from galaxea_r1lite_sim.simulation import Progress as FoldProgress

_NS = 1_000_000_000
CHUNK_AGE = 1.5  # s, as the bridge's default: a chunk of an older observation is dropped
_TICK = 0.01  # s, of the bridge
_CAMERA_TICKS = 7  # between two images: 15 Hz, about
CAMERA_FPS = round(1 / (_CAMERA_TICKS * _TICK))
_PROGRESS_TICKS = 10
_ARMING = 1.0  # s before the episode in which the bridge is armed
_START = 10.0  # s on the executor's clock when the episode begins: 0 would be no time


@dataclass(frozen=True)
class EpisodeSettings:
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
class EpisodeResult:
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


def run_episode(
    policy: Policy, robot: RobotConfig, seed: int, settings: EpisodeSettings,
    watch: Callable[[Cameras], None] = lambda _: None,
) -> EpisodeResult:  # fmt: skip
    """One episode with a prepared policy; `watch` is called at the cameras' rate."""
    simulation = Simulation(robot, draw(seed, settings.level))
    cameras = Cameras(simulation, settings.height, settings.height * 16 // 9)
    return _Episode(policy, robot, simulation, cameras, settings).run(seed, watch)


def drive(
    policy: Policy,
    robot: RobotConfig,
    simulation: Simulation,
    cameras: Cameras,
    settings: EpisodeSettings,
    seconds: float,
) -> None:
    """Let a policy move a simulation for a while."""
    _Episode(policy, robot, simulation, cameras, replace(settings, time_limit=seconds)).run(0, lambda _: None)


class _Episode:
    """Simulation, executor and policy on one clock."""

    def __init__(
        self, policy: Policy, robot: RobotConfig, simulation: Simulation, cameras: Cameras, settings: EpisodeSettings
    ) -> None:
        self._policy, self._info, self._robot, self._settings = policy, policy.info, robot, settings
        self._sees = [camera.name for camera in self._info.cameras if camera.name in cameras.names]
        self._looks_back = bool(self._info.history) or isinstance(policy, StatefulPolicy)
        self._frames: list[Frame] = []
        self._commanded: list[NDArray[np.float64]] = []
        self._simulation, self._cameras = simulation, cameras
        off = Watch(1e9, Reaction.HOLD)
        watchdogs = WatchdogConfig(Watch(CHUNK_AGE, Reaction.HOLD), off, off, off, off, off, off)
        plan = Plan(settings.blending, 0.2, 0.7)
        self._executor: Executor = make_executor(robot, ExecutorConfig(watchdogs, 0.05, 0.02), plan)
        self._arriving: list[tuple[int, Chunk]] = []
        self._chunks = 0
        self._inference_ms: list[float] = []

    def run(self, seed: int, watch: Callable[[Cameras], None]) -> EpisodeResult:
        simulation, settings, begin = self._simulation, self._settings, self._simulation.time
        self._policy.reset()
        self._arm()
        next_replan = _START
        progress, folded_since = simulation.progress(), None
        for tick in range(round(settings.time_limit / _TICK) + 1):
            now = _START + tick * _TICK
            if tick % _CAMERA_TICKS == 0:
                watch(self._cameras)
                if self._looks_back:
                    self._frames.append(self._frame(now))
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
        self._commanded.append(self._simulation.target)

    def _frame(self, now: float) -> Frame:
        joints = dict(zip(self._robot.joint_names, self._simulation.joints.tolist(), strict=True))
        return Frame(round(now * _NS), {camera: self._cameras.render(camera) for camera in self._sees}, joints)

    def _observe(self, now: float) -> None:
        """One inference; its chunk arrives after the latency."""
        frame, latency_ns = self._frame(now), round(self._settings.latency * _NS)
        now_ns, instruction = frame.stamp_ns, self._info.default_instruction
        earlier = self._seen([now_ns - round(age * _NS) for age in self._info.history])
        if self._chunks and isinstance(self._policy, StatefulPolicy):
            self._policy.executed(*self._executed(now_ns))
        self._observed_ns = now_ns
        running = self._running(now_ns, latency_ns)
        begin = time.perf_counter()
        chunk = self._policy.infer(Observation(now_ns, frame.images, frame.joints, instruction, running, earlier))
        self._inference_ms.append(1e3 * (time.perf_counter() - begin))
        self._chunks += 1
        self._order = [self._robot.joint_names.index(name) for name in chunk.names]
        arriving = Chunk(self._chunks, 1, now_ns, chunk.step_ns, chunk.names, chunk.actions, chunk.committed)
        self._arriving.append((now_ns + latency_ns, arriving))

    def _seen(self, stamps_ns: Sequence[int]) -> tuple[Frame, ...]:
        """The frames nearest to these times."""
        return tuple(min(self._frames, key=lambda frame: abs(frame.stamp_ns - stamp)) for stamp in stamps_ns)

    def _executed(self, now_ns: int) -> tuple[NDArray[np.float64], tuple[Frame, ...]]:
        """Targets sent since the last observation, one row a step of the policy, and the frames seen meanwhile."""
        info = self._info
        stamps = range(self._observed_ns + info.step_ns, now_ns + 1, info.step_ns)
        rows = [self._commanded[round((stamp / _NS - _START) / _TICK) - 1][self._order] for stamp in stamps]
        every = info.key_frame_steps
        return np.array(rows).reshape(-1, len(info.action)), self._seen(stamps[every - 1 :: every])

    def _running(self, now_ns: int, latency_ns: int) -> RunningPlan | None:
        """What is executed, for real-time chunking; joints in the policy's order."""
        plan = self._executor.plan
        if self._settings.blending != "rtc" or plan.newest is None:
            return None
        step_ns = plan.newest.step_ns
        count = max(0, (plan.end_ns - now_ns) // step_ns + 1)
        actions = np.array([plan.sample(now_ns + k * step_ns)[0] for k in range(count)])
        return RunningPlan(actions[:, self._order], min(count, -(-latency_ns // step_ns) + 1)) if count else None

    def _outcome(self, seed: int, at: float, progress: FoldProgress, failure: str) -> EpisodeResult:
        grasps = sum(count > 0 for count in progress.grasps.values())
        inference = float(np.median(self._inference_ms))
        return EpisodeResult(seed, not failure, at, failure, grasps, progress.corner_distance, inference)


def failure_class(progress: FoldProgress) -> str:
    """Class of an episode that ran out of time."""
    grasped = sum(count > 0 for count in progress.grasps.values())
    if grasped < len(progress.grasps):
        return "no corner grasped" if not grasped else "one corner grasped"
    return "not released" if progress.held else "misplaced"
