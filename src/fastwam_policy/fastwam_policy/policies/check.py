"""`fastwam check-policy`: a policy's info, and one inference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from fastwam_policy.policies.base import ActionChunk, Frame, Observation, Policy, PolicyInfo
from fastwam_policy.policies.familiarity import familiarity
from galaxea_r1lite_bridge.robot.config import RobotConfig

_SAID = 12  # entries of a server's greeting that are shown
_LETTERS = 60  # of each


@dataclass(frozen=True)
class Tried:
    """One inference: its chunk, the s that it took, and those of the one before it, the first."""

    chunk: ActionChunk
    seconds: float
    first_seconds: float


def try_once(policy: Policy, frame: Frame) -> Tried:
    """What the policy does when it is shown a frame.

    Raises:
        ValueError: the chunk is not what the policy says of itself.
    """
    info = policy.info
    policy.prepare(info.default_instruction)
    earlier = (frame,) * len(info.history)
    observation = Observation(frame.stamp_ns, frame.images, frame.joints, info.default_instruction, earlier=earlier)
    begin = time.perf_counter()
    policy.infer(observation)
    first_seconds = time.perf_counter() - begin
    policy.reset()
    begin = time.perf_counter()
    chunk = policy.infer(observation)
    seconds = time.perf_counter() - begin
    policy.reset()
    names = [channel.name for channel in info.action]
    if list(chunk.names) != names:
        raise ValueError(f"{info.name}: a chunk has the columns {chunk.names}, info.action says {names}")
    if len(chunk.actions) != info.horizon or chunk.step_ns != info.step_ns:
        raise ValueError(
            f"{info.name}: a chunk has {len(chunk.actions)} steps of {chunk.step_ns} ns, "
            f"info says {info.horizon} of {info.step_ns} ns"
        )
    if not np.isfinite(chunk.actions).all():
        raise ValueError(f"{info.name}: a chunk has numbers that are not finite")
    if chunk.stamp_ns != observation.stamp_ns:
        raise ValueError(f"{info.name}: a chunk must have the stamp of its observation")
    return Tried(chunk, seconds, first_seconds)


def figures(
    info: PolicyInfo, robot: RobotConfig, frame: Frame, tried: Tried, said: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain data of a policy that fits the robot; `said` is the greeting of the server where it runs, if any."""
    chunk = tried.chunk
    leap = np.abs(chunk.actions[0] - [frame.joints[name] for name in chunk.names])
    units = dict(zip(robot.joint_names, robot.units, strict=True))
    outside = [
        name
        for name, column, (lower, upper) in zip(chunk.names, chunk.actions.T, _limits(robot, chunk.names), strict=True)
        if column.min() < lower or column.max() > upper
    ]
    return {
        **asdict(info),
        "abilities": sorted(info.abilities),
        "robot": robot.robot_type,
        "inference_s": tried.seconds,
        "first_inference_s": tried.first_seconds,
        "first_step": {
            unit: float(leap[[units[name] == unit for name in chunk.names]].max()) for unit in units.values()
        },
        "server": {str(key): _brief(value) for key, value in list(said.items())[:_SAID]},
        "outside_limits": outside,
        "start_pose": str(familiarity(info, frame.joints)),
    }


def table(found: dict[str, Any]) -> Table:
    """The figures for a terminal."""
    shown = Table(title=f"{found['name']}: fits the {found['robot']}", show_header=False)
    identity = found["identity"]
    cameras = [f"{camera['name']}{'' if camera['required'] else ' (optional)'}" for camera in found["cameras"]]
    times = f"{1e3 * found['inference_s']:.0f} ms, the first one {1e3 * found['first_inference_s']:.0f} ms"
    leaps = ", ".join(f"{leap:.3g} {unit}" for unit, leap in sorted(found["first_step"].items()))
    rows = {
        "weights": f"{identity['origin']}, sha256 {identity['sha256'] or 'not known'}",
        "cameras": ", ".join(cameras) or "none",
        "joint state": f"{len(found['state'])} numbers",
        "chunk": f"{found['horizon']} steps of {len(found['action'])} joints at {found['fps']:g} a second",
        "instructions": "any" if found["instructions"] is None else "; ".join(found["instructions"]) or "none",
        "can also do": ", ".join(found["abilities"]) or "nothing else",
        "one inference": times,
        "its first step": f"{leaps} from the pose it was shown",
        "pose": found["start_pose"] if found["state_band"] else "the policy does not say where it knows the joints",
        "outside limits": ", ".join(found["outside_limits"]) or "no joint in this chunk",
    }
    if identity["distilled_from"]:
        rows["distilled from"] = identity["distilled_from"]
    if found["server"]:
        rows["the server says"] = ", ".join(f"{key}: {text}" for key, text in found["server"].items())
    for name, text in rows.items():
        shown.add_row(name, text)
    return shown


def _brief(value: object) -> str:
    """A few letters of what a server says of itself."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)}"
    if isinstance(value, dict):
        return f"{len(value)} entries"
    text = " ".join(str(value).split())
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."


def _limits(robot: RobotConfig, names: list[str]) -> list[tuple[float, float]]:
    pairs = [pair for group in robot.commanded.values() for pair in group.limits.position]
    by_name = dict(zip(robot.joint_names, pairs, strict=True))
    return [by_name[name] for name in names]
