"""A policy and a simulator in lockstep: time stands still while the policy thinks, as most benchmarks have it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastwam_policy.benchmarks.base import NOOP, Episode, Task
from fastwam_policy.benchmarks.simulator import SimulatorProcess
from fastwam_policy.common.failure import RunError
from fastwam_policy.data.video import write_video
from fastwam_policy.policies.base import (
    ActionChunk,
    ActionKind,
    Channel,
    Frame,
    Observation,
    Pixels,
    Policy,
    PolicyInfo,
    StatefulPolicy,
)
from fastwam_policy.policies.loading import load_policy
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_NS = 1_000_000_000
_HORIZON = 32  # steps of a chunk that does nothing
TIME_IS_UP = "not done in time"


@dataclass(frozen=True)
class Interface:
    """What a simulator shows, and what it takes.

    Attributes:
        cameras: names of its pictures.
        state: numbers that it measures.
        action: numbers of an action, in its order.
        kind: of the actions.
        fps: actions a second.
        rest: the action [D] that does nothing; empty: the measured positions of its numbers.
        shown: the pictures as one, for people.
    """

    cameras: tuple[str, ...]
    state: tuple[Channel, ...]
    action: tuple[Channel, ...]
    kind: ActionKind
    fps: float
    rest: tuple[float, ...]
    shown: Callable[[Mapping[str, Pixels]], Pixels]

    def policy(self, source: str, mode: str = "") -> Policy:
        """The policy of that source, or NOOP; `mode` as :meth:`Benchmark.policy` has it.

        Raises:
            ConfigError: there is no such policy, or it does not fit.
        """
        if source == NOOP:
            return Noop(self)
        policy = load_policy(source, {"mode": mode} if mode else {})
        self.check(policy.info, source)
        return policy

    def check(self, info: PolicyInfo, source: str) -> None:
        """ConfigError with a line for each thing that the policy needs and this does not have."""
        problems = []
        if info.action_kind != self.kind:
            problems.append(f"action: {info.action_kind}; the simulator takes {self.kind} actions")
        known = {channel.name: channel.unit for channel in self.state}
        problems += [
            f"state: {channel.name} ({channel.unit}); there is {_listed(self.state)}"
            for channel in info.state
            if known.get(channel.name) != channel.unit
        ]
        if sorted(map(str, info.action)) != sorted(map(str, self.action)):
            problems.append(f"action: {_listed(info.action)}; the simulator takes {_listed(self.action)}")
        problems += [
            f"cameras: {camera.name}; there are {', '.join(self.cameras)}"
            for camera in info.cameras
            if camera.required and camera.name not in self.cameras
        ]
        if problems:
            raise ConfigError(f"{source} does not fit the benchmark:\n  " + "\n  ".join(problems))


class Noop:
    """A policy that does nothing: absolute targets are where it is."""

    def __init__(self, interface: Interface) -> None:
        self._rest = interface.rest
        state = () if self._rest else interface.action
        self.info = PolicyInfo("noop", (), state, interface.action, interface.fps, _HORIZON, interface.kind)

    def prepare(self, instruction: str) -> None:
        """Any will do."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Steps of nothing."""
        names = [channel.name for channel in self.info.action]
        row = self._rest or [observation.joints[name] for name in names]
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, np.tile(row, (_HORIZON, 1)))

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held open."""


class LockstepTask:
    """A task in a simulator that answers `begin`, `step`, `expert` and `fingerprint`.

        begin {trial, look}   -> {initial, simulator, observation}: the trial's scene, ready for the policy; and
                                 {instruction} where each trial has another
        step {actions, look}  -> {steps, done, observation}: so many actions, fewer where that is success
        expert {steps}        -> {actions, done, failure}: the simulator's own expert plays, for so many steps at most;
                                 failure, in words, where it gave up
        fingerprint {}        -> {final}

    An observation is {state, images}; without `look` it has no images.

    Args:
        process: the simulator, with the task open.
        task: which one.
        interface: what it shows and takes.
        policy: None: the expert.
        replan: steps of a chunk that are executed; None: all.
        limit: steps of an episode.
    """

    def __init__(
        self, process: SimulatorProcess, task: Task, interface: Interface, policy: Policy | None,
        replan: int | None, limit: int,
    ) -> None:  # fmt: skip
        self._process, self._task, self._interface, self._policy = process, task, interface, policy
        self._limit, self._instruction = limit, ""
        if policy is not None:
            info = policy.info
            self._replan = min(replan or info.horizon, info.horizon)
            self._sees = [camera.name for camera in info.cameras if camera.name in interface.cameras]
            self._looks_back = bool(info.history) or isinstance(policy, StatefulPolicy)

    def close(self) -> None:
        """See :class:`OpenTask`."""
        self._process.close()

    def play(self, trial: int, film: Path | None) -> Episode:
        """See :class:`OpenTask`."""
        started = time.perf_counter()
        look = self._policy is not None and bool(self._sees or film)
        begun = self._process.ask("begin", trial=trial, look=look)
        self._prepare(begun.get("instruction", self._task.instruction))
        played, gave_up = _Played(), ""
        if self._policy is None:
            answer = self._process.ask("expert", steps=self._limit)
            played.actions, played.done, gave_up = [answer["actions"]], answer["done"], answer.get("failure", "")
        else:
            self._drive(self._policy, begun["observation"], look, played)
        if film is not None and played.films and not played.done:
            frames = [self._interface.shown(images) for images in played.films]
            write_video(film, frames, max(1, round(self._interface.fps / self._stride)))
        failure = "" if played.done else gave_up or TIME_IS_UP
        actions = np.concatenate(played.actions) if played.actions else np.zeros((0, len(self._interface.action)))
        return Episode(
            suite=self._task.suite, task=self._task.number, trial=trial, success=played.done,
            failure=failure, steps=len(actions), seconds=time.perf_counter() - started,
            inference_ms=float(np.median(played.inference_ms)) if played.inference_ms else 0.0,
            initial=begun["initial"], actions=fingerprint(actions), final=self._process.ask("fingerprint")["final"],
            picture=_picture(begun["observation"]), simulator=begun["simulator"],
        )  # fmt: skip

    def _prepare(self, instruction: str) -> None:
        if self._policy is not None and instruction != self._instruction:
            self._policy.prepare(instruction)
        self._instruction = instruction

    @property
    def _stride(self) -> int:
        """Steps between two pictures."""
        return 1 if self._looks_back else self._replan

    def _drive(self, policy: Policy, observed: dict[str, Any], look: bool, played: _Played) -> None:
        policy.reset()
        frames, since, steps = [self._frame(observed, 0)], 0, 0
        while True:
            if look:
                played.films.append(observed["images"])
            if since and isinstance(policy, StatefulPolicy):
                every = policy.info.key_frame_steps
                policy.executed(np.concatenate(played.actions)[-since:], frames[-since:][every - 1 :: every])
            rows = self._infer(policy, frames, played)[: min(self._replan, self._limit - steps)]
            since = 0
            for begin in range(0, len(rows), self._stride):
                part = rows[begin : begin + self._stride]
                answer = self._process.ask("step", actions=part, look=look and steps + len(part) < self._limit)
                observed, count = answer["observation"], answer["steps"]
                played.actions.append(part[:count])
                steps, since = steps + count, since + count
                played.done = answer["done"]
                if played.done or steps >= self._limit:
                    return
                frames.append(self._frame(observed, steps))
            if not self._looks_back:
                del frames[:-1]

    def _infer(self, policy: Policy, frames: list[Frame], played: _Played) -> NDArray[np.float64]:
        """A chunk's rows [H, D], in the simulator's order."""
        now = frames[-1]
        ages = [now.stamp_ns - round(age * _NS) for age in policy.info.history]
        earlier = tuple(min(frames, key=lambda frame: abs(frame.stamp_ns - stamp)) for stamp in ages)
        observation = Observation(now.stamp_ns, now.images, now.joints, self._instruction, None, earlier)
        begin = time.perf_counter()
        try:
            chunk = policy.infer(observation)
            order = [chunk.names.index(channel.name) for channel in self._interface.action]
            rows = np.ascontiguousarray(chunk.actions[:, order], np.float64)
        except (ConfigError, RunError, OSError):
            raise
        except Exception as error:
            raise RunError(f"the policy {policy.info.name} failed: {type(error).__name__}: {error}") from error
        played.inference_ms.append(1e3 * (time.perf_counter() - begin))
        if not np.isfinite(rows).all():
            raise RunError(f"the policy {policy.info.name} gave actions that are not finite")
        return rows

    def _frame(self, observed: dict[str, Any], steps: int) -> Frame:
        names = [channel.name for channel in self._interface.state]
        images = observed.get("images", {})
        return Frame(
            round(steps * _NS / self._interface.fps),
            {name: images[name] for name in self._sees if name in images},
            dict(zip(names, observed["state"].tolist(), strict=True)),
        )


class _Played:
    """What happened in an episode so far."""

    def __init__(self) -> None:
        self.actions: list[NDArray[np.float64]] = []
        self.inference_ms: list[float] = []
        self.films: list[dict[str, Pixels]] = []
        self.done = False


def fingerprint(*arrays: NDArray[Any]) -> str:
    """Hash of arrays, to see whether two runs did the same."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _picture(observed: dict[str, Any]) -> str:
    """Hash of the first camera's picture."""
    images = observed.get("images", {})
    return fingerprint(next(iter(images.values()))) if images else ""


def _listed(channels: tuple[Channel, ...]) -> str:
    return ", ".join(f"{channel.name} ({channel.unit})" for channel in channels) or "nothing"
