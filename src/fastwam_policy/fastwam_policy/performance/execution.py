"""`fastwam bench-execution`: the same disagreeing chunks through every blending mode, at several latencies.

The policy is a flow with a known distribution: its mean is what a recording did next, and around it chunks vary
smoothly and independently from one inference to the next, as those of a policy that cannot decide. Its velocity field
is exact (a Gaussian process under flow matching), so real-time chunking runs on it with the same code as on a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table
from torch import Tensor

from fastwam_policy.data.recordings import open_recording, stamp_ns, usable
from fastwam_policy.model.flow import TRAIN_TIMESTEPS, initial_noise, make_schedule
from fastwam_policy.model.realtime import guided_velocity, soft_mask
from fastwam_policy.reports.session import Series
from galaxea_r1lite_bridge.execution.blending import BLENDINGS, Blending
from galaxea_r1lite_bridge.execution.joints import Joints
from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Command
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointsRefusedError
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_S = 1_000_000_000
_STEP_NS = _S // 15
_HORIZON, _DENOISE_STEPS = 32, 10
_REPLAN = 0.5  # s
_SERVO = 0.05  # s, lag of the simulated joints
_DEVIATION = {"rad": 0.15, "mm": 3.0}  # how far chunks differ from each other
_CORRELATION = 0.6  # s, and how slowly


@dataclass(frozen=True)
class Flow:
    """Flow matching with exact velocities for chunks ~ N(mean, covariance over time), each joint on its own.

    Attributes:
        mean: [H, D] in units of `scale`.
        covariance: [H, H].
    """

    mean: Tensor
    covariance: Tensor

    def velocity(self, x: Tensor, sigma: float) -> Tensor:
        """E[noise - sample | x] at noise level `sigma`, for x [1, H, D]."""
        keep = 1.0 - sigma
        spread = keep**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=x.dtype)
        white = torch.linalg.solve(spread, x - keep * self.mean)
        return sigma * white - (self.mean + keep * self.covariance @ white)

    def sample(self, seed: int, running: Tensor | None = None, committed: int = 0) -> Tensor:
        """A chunk [H, D]; with `running` [M, D], one that continues it (arXiv 2506.07339)."""
        schedule = make_schedule(_DENOISE_STEPS, 1.0, torch.float64)
        x = initial_noise((1, *self.mean.shape), seed, torch.float64, torch.device("cpu"))
        target = torch.zeros_like(x)
        if running is not None:
            target[0, : len(running)] = running
            mask = soft_mask(committed, len(running), len(self.mean)).double()
        for t, delta in zip(schedule.timesteps.tolist(), schedule.deltas.tolist(), strict=True):
            sigma = t / TRAIN_TIMESTEPS
            if running is None:
                x = x + delta * self.velocity(x, sigma)
            else:
                x = x + delta * guided_velocity(partial(self.velocity, sigma=sigma), x, sigma, target, mask)
        if running is not None:
            x[0, :committed] = running[:committed]
        return x[0]


@dataclass(frozen=True)
class Reference:
    """What a recording did: the policy's mean."""

    groups: dict[str, Series]
    duration: float

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Targets [len(times), D], held before the first and after the last."""
        rows = []
        for series in self.groups.values():
            inside = np.clip(times, series.times[0], series.times[-1])
            rows.append(series.at(inside))
        return np.concatenate(rows, axis=1)


def read_reference(bag: Path, robot: RobotConfig) -> Reference:
    """Recorded targets of all commanded groups; ConfigError where one is missing."""
    topics = {f"/{group.target}": name for name, group in robot.commanded.items()}
    samples: dict[str, list[tuple[float, NDArray[np.float64]]]] = {name: [] for name in topics.values()}
    with closing(open_recording(bag)) as reader:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        for connection, _, data in reader.messages(wanted):
            message = usable(reader, connection, data)
            if message is None:
                continue
            name = topics[connection.topic]
            with suppress(JointsRefusedError):
                values = robot.gates[name].positions(message.name, message.position)
                samples[name].append((stamp_ns(message) / _S, values))
    missing = [topic for topic, name in topics.items() if len(samples[name]) < 2]
    if missing:
        raise ConfigError(f"{bag}: no recorded targets on {', '.join(missing)}")
    begin = min(rows[0][0] for rows in samples.values())
    groups = {}
    for name, rows in samples.items():
        groups[name] = Series(np.array([at for at, _ in rows]) - begin, np.array([row for _, row in rows]))
    return Reference(groups, max(series.times[-1] for series in groups.values()))


def bench_execution(robot: RobotConfig, bag: Path, latencies: Sequence[float], seeds: int) -> list[dict[str, Any]]:
    """Run every mode at every latency (s), `seeds` times with other chunks; figures as plain data."""
    reference = read_reference(bag, robot)
    cases = [(latency, mode) for latency in latencies for mode in BLENDINGS]
    results = []
    for latency, mode in track(cases, description="execution"):
        runs = [_Run(robot, reference, mode, latency, seed).figures() for seed in range(seeds)]
        row: dict[str, Any] = {"latency_ms": round(1e3 * latency), "mode": mode}
        for key in runs[0]:
            values = [run[key] for run in runs]
            row[key] = float(max(values) if key.startswith(("peak", "worst")) else np.mean(values))
        results.append(row)
    return results


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The figures for a terminal."""
    shown = Table(title="Execution of disagreeing chunks")
    for name in (
        "latency", "mode", "seam mean / worst [rad]", "peak velocity [of limit]", "rms / peak jerk [rad/s³]",
        "without a plan", "plan lag [s]", "off the plan, rms [rad]",
    ):  # fmt: skip
        shown.add_column(name)
    for row in results:
        shown.add_row(
            f"{row['latency_ms']} ms", row["mode"], f"{row['seam_mean']:.3f} / {row['worst_seam']:.3f}",
            f"{row['peak_velocity']:.2f}", f"{row['jerk_rms']:.0f} / {row['peak_jerk']:.0f}",
            f"{100 * row['without_plan']:.1f} %", f"{row['plan_lag']:.3f}", f"{row['tracking_rms']:.3f}",
        )  # fmt: skip
    return shown


class _Run:
    """One simulated execution."""

    def __init__(self, robot: RobotConfig, reference: Reference, mode: Blending, latency: float, seed: int) -> None:
        self._robot, self._reference, self._latency = robot, reference, latency
        self._rtc = mode == "rtc"
        joints = Joints.of(robot).home.copy()
        joints[: len(robot.joint_names)] = reference.at(np.zeros(1))[0]
        settings = BridgeSettings.load({"blending": mode})
        self._bridge = OfflineBridge(robot, settings, LaggingJoints(joints, _SERVO))
        self._controller = self._bridge.controller
        self._controller.guard.workspace = self._controller.guard.leader = (
            None  # the recording may have been made on another table
        )
        self._seed = 1000 * seed
        steps = np.arange(_HORIZON) * _STEP_NS / _S
        kernel = np.exp(-0.5 * ((steps[:, None] - steps) / _CORRELATION) ** 2) + 1e-6 * np.eye(_HORIZON)
        self._covariance = torch.from_numpy(kernel)
        self._scale = np.array([_DEVIATION[unit] for unit in robot.units])
        self._seams: list[float] = []
        self._rows: list[tuple[NDArray[np.float64], float, bool, float]] = []
        self._simulate()

    def figures(self) -> dict[str, float]:
        arms, limits = self._controller.joints.angular, self._controller.limiter
        velocity, lag, planned, error = (np.array(column) for column in zip(*self._rows, strict=True))
        jerk = np.diff(velocity[:, arms], n=2, axis=0) * (_S / self._bridge.period_ns) ** 2
        return {
            "seam_mean": float(np.mean(self._seams)),
            "worst_seam": max(self._seams),
            "peak_velocity": float((np.abs(velocity) / limits.velocity)[:, arms].max()),
            "jerk_rms": float(np.sqrt((jerk**2).mean())),
            "peak_jerk": float(np.abs(jerk).max()),
            "without_plan": 1.0 - float(np.mean(planned)),
            "plan_lag": float(lag.mean()),
            "tracking_rms": float(np.sqrt(np.mean(error[planned] ** 2))),
        }

    def _simulate(self) -> None:
        bridge, plan = self._bridge, self._controller.plan
        bridge.arm()
        self._begin_ns = next_replan = bridge.clock.now_ns - bridge.period_ns  # when it was armed
        number, end = 0, self._begin_ns + round(self._reference.duration * _S)
        while (now := bridge.clock.now_ns) < end:
            if now >= next_replan:
                number += 1
                bridge.send(self._infer(number, now), round(self._latency * _S))
                next_replan = now + round(max(_REPLAN, self._latency) * _S)
            before = plan.newest
            command = bridge.tick()
            if before is not None and plan.newest is not None and plan.newest is not before:
                self._seams.append(self._controller.seam)
            self._note(command, now)

    def _note(self, command: Command, now: int) -> None:
        plan, motion = self._controller.plan, command.motion
        assert motion is not None
        # Where the plan would be had it not been slowed down, against where the joints are.
        wanted = plan.sample(now + plan.lag_ns)[0] if plan else motion.position
        off = (wanted - self._bridge.plant.measured())[self._controller.joints.angular]
        error = float(np.sqrt((off**2).mean()))
        self._rows.append((motion.velocity, command.lag, command.state == State.TRACKING, error))

    def _infer(self, number: int, now: int) -> Chunk:
        """The chunk for an observation made now; it will be in use after the latency."""
        times = (now - self._begin_ns + _STEP_NS * np.arange(_HORIZON)) / _S
        flow = Flow(torch.from_numpy(self._reference.at(times) / self._scale), self._covariance)
        plan, running, committed = self._controller.plan, None, 0
        if self._rtc and plan:
            count = min(_HORIZON, max(0, (plan.end_ns - now) // _STEP_NS + 1))
            committed = min(count, -(-round(self._latency * _S) // _STEP_NS) + 1)
            ahead = [plan.sample(now + k * _STEP_NS)[0][: len(self._scale)] for k in range(count)]
            if ahead:
                running = torch.from_numpy(np.array(ahead) / self._scale)
        actions = flow.sample(self._seed + number, running, committed).numpy() * self._scale
        return Chunk(number, 1, now, _STEP_NS, self._robot.joint_names, actions, committed)
