"""One episode in the simulator: policy, bridge and simulation on one made-up clock, faster than real time.

What the ROS nodes add is left out; equal seeds give equal results.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.policies.base import Frame, Observation, Pixels, Policy, RunningPlan, StatefulPolicy
from fastwam_policy.policies.images import decode_image
from fastwam_policy.runtime.hovering import Replanning
from galaxea_r1lite_bridge.execution.blending import Blending
from galaxea_r1lite_bridge.execution.offline import OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Command
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras, jpeg
from galaxea_r1lite_sim.contacts import Contact
from galaxea_r1lite_sim.randomization import Level, draw
from galaxea_r1lite_sim.simulation import SETTLED, Simulation
from galaxea_r1lite_sim.tasks import Progress, TaskName

_NS = 1_000_000_000
_CAMERA_PERIOD = 0.07  # s between two images: 15 Hz, about, in whole control ticks
CAMERA_FPS = round(1 / _CAMERA_PERIOD)
_PROGRESS_PERIOD = 0.1  # s


@dataclass(frozen=True)
class EpisodeSettings:
    """How the episodes are run.

    Attributes:
        level: what varies with the seed.
        latency: s from an observation to the use of its chunk, below the bridge's `watchdog.chunk_age.limit`.
        replan: s between two observations, at least the latency.
        blending: of the bridge; `rtc` uses the policy's guidance.
        time_limit: s of simulated time for an episode.
        height: of the camera images, pixels.
        task: what is on the table, and when it is done.
        instruction: what the policy is told; empty: its default.
        hover_interval: s, as policy_node's.
        gripper_hysteresis: mm, of the bridge.
        jpeg_quality: of the images, 1 to 100: the robot's cameras send no others.
        delay: s by which targets arrive late at the robot.
    """

    level: Level = "full"
    latency: float = 0.15
    replan: float = 0.5
    blending: Blending = "switch"
    time_limit: float = 20.0
    height: int = 360
    task: TaskName = "fold"
    instruction: str = ""
    hover_interval: float = 0.0
    gripper_hysteresis: float = 0.0
    jpeg_quality: int = 90
    delay: float = 0.0


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        seed: of its scene.
        success: done and let go of, in time.
        time: s of simulated time until then, or until it was given up.
        failure: class of the failure, empty with success.
        grasps: arms that took hold of something.
        distance: m, at the end, of things from where they should be.
        inference_ms: median time of an inference.
        contacts: of the robot with itself and with the table.
    """

    seed: int
    success: bool
    time: float
    failure: str
    grasps: int
    distance: float
    inference_ms: float
    contacts: tuple[Contact, ...] = ()


def run_episode(
    policy: Policy, robot: RobotConfig, seed: int, settings: EpisodeSettings,
    watch: Callable[[Cameras], None] = lambda _: None,
) -> EpisodeResult:  # fmt: skip
    """One episode with a prepared policy; `watch` is called at the cameras' rate."""
    return run_in(Simulation(robot, draw(seed, settings.level, settings.task)), policy, robot, seed, settings, watch)


def run_in(
    simulation: Simulation, policy: Policy, robot: RobotConfig, seed: int, settings: EpisodeSettings,
    watch: Callable[[Cameras], None],
) -> EpisodeResult:  # fmt: skip
    """As :func:`run_episode`, in the scene of that seed, which was made already."""
    cameras = Cameras(simulation, settings.height, settings.height * 16 // 9)
    return ClosedLoop(policy, robot, simulation, cameras, settings).run(seed, watch)


def received(cameras: Cameras, camera: str, quality: int = EpisodeSettings.jpeg_quality) -> Pixels:
    """What is seen of a camera where its pictures arrive: flat surfaces change their colour by a level or two."""
    return decode_image(jpeg(cameras.render(camera), quality))


def drive(
    policy: Policy,
    robot: RobotConfig,
    simulation: Simulation,
    cameras: Cameras,
    settings: EpisodeSettings,
    seconds: float,
) -> None:
    """Let a policy move a simulation for a while."""
    ClosedLoop(policy, robot, simulation, cameras, replace(settings, time_limit=seconds)).run(0, lambda _: None)


class _SimulatedRobot:
    """The bridge's plant: the simulation, whose torso stands still. Targets arrive `delay` s late."""

    def __init__(self, simulation: Simulation, delay: float) -> None:
        self._simulation, self._time, self._delay = simulation, simulation.time, delay
        self._late: deque[tuple[float, NDArray[np.float64]]] = deque()

    def measured(self) -> NDArray[np.float64]:
        return np.concatenate([self._simulation.joints, self._simulation.torso])

    def advance(self, target: NDArray[np.float64] | None, seconds: float) -> None:
        if target is not None:
            self._late.append((self._time + self._delay, target[: len(self._simulation.target)].copy()))
        while self._late and self._late[0][0] <= self._time + 1e-9:
            self._simulation.target = self._late.popleft()[1]
        self._time += seconds
        while self._simulation.time < self._time - 1e-9:
            self._simulation.step()


class ClosedLoop:
    """Simulation, bridge and policy on one clock.

    Attributes:
        bridge: between the policy and the simulation.
    """

    def __init__(
        self, policy: Policy, robot: RobotConfig, simulation: Simulation, cameras: Cameras, settings: EpisodeSettings
    ) -> None:
        self._policy, self._info, self._robot, self._settings = policy, policy.info, robot, settings
        self._sees = [camera.name for camera in self._info.cameras if camera.name in cameras.names]
        self._looks_back = bool(self._info.history) or isinstance(policy, StatefulPolicy)
        self._instruction = settings.instruction or self._info.default_instruction
        self._frames: deque[Frame] = deque()
        self._memory_ns = round(max(self._info.history, default=0.0) * _NS)
        self._observed_ns = 0
        self._commanded: list[NDArray[np.float64]] = []
        self._simulation, self._cameras = simulation, cameras
        parameters = BridgeSettings.load({name: getattr(settings, name) for name in ("blending", "gripper_hysteresis")})
        self.bridge = OfflineBridge(robot, parameters, _SimulatedRobot(simulation, settings.delay))
        interval = max(settings.replan, settings.latency)
        self._replanning = Replanning(robot, interval, settings.hover_interval)
        self._chunks = 0
        self._inference_ms: list[float] = []

    @property
    def period(self) -> float:
        """S between two control ticks."""
        return self.bridge.period_ns / _NS

    def run(self, seed: int, watch: Callable[[Cameras], None]) -> EpisodeResult:
        """From the beginning until the task is done, or the time is over; `watch` is called at the cameras' rate."""
        simulation, settings, period = self._simulation, self._settings, self.period
        self.begin()
        progress, done_since = simulation.progress(), None
        for tick in range(round(settings.time_limit / period) + 1):
            if self._shows(tick):
                watch(self._cameras)
            self.tick(tick)
            if tick % round(_PROGRESS_PERIOD / period) == 0:
                progress = simulation.progress()
                done_since = None if not progress.success else tick if done_since is None else done_since
                if done_since is not None and (tick - done_since) * period >= SETTLED:
                    return self._outcome(seed, tick * period, progress, "")
        return self._outcome(seed, settings.time_limit, progress, progress.failure)

    def begin(self) -> None:
        """Arm, before the first tick."""
        self._policy.reset()
        self._replanning.reset()
        self.bridge.arm()
        self._begin_ns = self._next_replan_ns = self.bridge.clock.now_ns

    def tick(self, tick: int) -> Command:
        """Control tick number `tick`, before which the policy observes where that is due; what it commanded."""
        now_ns = self.bridge.clock.now_ns
        if self._looks_back and self._shows(tick):
            self._remember(self._frame())
        if now_ns >= self._next_replan_ns and not self.bridge.controller.taken_over:
            followed = self.bridge.controller.followed is not None
            self._next_replan_ns = now_ns + self._replanning.after(self._observe(), followed=followed)
        command = self.bridge.tick()
        self._commanded.append(self._simulation.target)
        return command

    def _shows(self, tick: int) -> bool:
        """Whether there are new images at a tick."""
        return tick % round(_CAMERA_PERIOD / self.period) == 0

    def _frame(self) -> Frame:
        joints = dict(zip(self._robot.joint_names, self._simulation.joints.tolist(), strict=True))
        images = {camera: received(self._cameras, camera, self._settings.jpeg_quality) for camera in self._sees}
        return Frame(self.bridge.clock.now_ns, images, joints)

    def _observe(self) -> Frame:
        """One inference, whose chunk arrives after the latency; what it is about."""
        frame, latency_ns = self._frame(), round(self._settings.latency * _NS)
        now_ns = frame.stamp_ns
        earlier = self._seen([now_ns - round(age * _NS) for age in self._info.history])
        if self._chunks and isinstance(self._policy, StatefulPolicy):
            self._policy.executed(*self._executed(now_ns))
        self._observed_ns = now_ns
        running = self._running(now_ns, latency_ns)
        begin = time.perf_counter()
        observation = Observation(now_ns, frame.images, frame.joints, self._instruction, running, earlier)
        chunk = self._policy.infer(observation)
        self._inference_ms.append(1e3 * (time.perf_counter() - begin))
        self._chunks += 1
        self._order = [self._robot.joint_names.index(name) for name in chunk.names]
        arriving = Chunk(self._chunks, 1, now_ns, chunk.step_ns, chunk.names, chunk.actions, chunk.committed)
        self.bridge.send(arriving, latency_ns)
        return frame

    def _remember(self, frame: Frame) -> None:
        """Keep what the policy may still be given: its history, and what it has seen since its last observation."""
        self._frames.append(frame)
        since = frame.stamp_ns - self._memory_ns
        if isinstance(self._policy, StatefulPolicy):
            since = min(since, self._observed_ns)
        while len(self._frames) > 1 and self._frames[1].stamp_ns <= since:
            self._frames.popleft()

    def _seen(self, stamps_ns: Sequence[int]) -> tuple[Frame, ...]:
        """The frames nearest to these times."""
        return tuple(min(self._frames, key=lambda frame: abs(frame.stamp_ns - stamp)) for stamp in stamps_ns)

    def _executed(self, now_ns: int) -> tuple[NDArray[np.float64], tuple[Frame, ...]]:
        """Targets sent since the last observation, one row a step of the policy, and the frames seen meanwhile."""
        info = self._info
        stamps = range(self._observed_ns + info.step_ns, now_ns + 1, info.step_ns)
        ticks = [(stamp - self._begin_ns) / self.bridge.period_ns for stamp in stamps]
        rows = [self._commanded[round(tick) - 1][self._order] for tick in ticks]
        every = info.key_frame_steps
        return np.array(rows).reshape(-1, len(info.action)), self._seen(stamps[every - 1 :: every])

    def _running(self, now_ns: int, latency_ns: int) -> RunningPlan | None:
        """What is executed, for real-time chunking; joints in the policy's order."""
        plan, followed = self.bridge.controller.plan, self.bridge.controller.followed
        if self._settings.blending != "rtc" or followed is None:
            return None
        step_ns = followed.step_ns
        count = max(0, (plan.end_ns - now_ns) // step_ns + 1)
        actions = np.array([plan.sample(now_ns + k * step_ns)[0] for k in range(count)])
        return RunningPlan(actions[:, self._order], min(count, -(-latency_ns // step_ns) + 1)) if count else None

    def _outcome(self, seed: int, at: float, progress: Progress, failure: str) -> EpisodeResult:
        grasps = sum(count > 0 for count in progress.grasps.values())
        inference = float(np.median(self._inference_ms))
        touched = self._simulation.contacts
        return EpisodeResult(seed, not failure, at, failure, grasps, progress.distance, inference, touched)
