"""`fastwam check-policy`: a policy's info, and one inference."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from fastwam_policy.policies.base import ActionChunk, Observation, Policy, PolicyInfo
from fastwam_policy.policies.familiarity import familiarity
from galaxea_r1lite_bridge.robot.config import RobotConfig

_SIZE = (180, 320)  # of the black images that it is shown


def try_once(policy: Policy, robot: RobotConfig) -> tuple[ActionChunk, float]:
    """A chunk for the start pose and black images, and the s that it took after the warm-up.

    Raises:
        ValueError: the chunk is not what the policy says of itself.
    """
    info = policy.info
    policy.prepare(info.default_instruction)
    images = {camera.name: np.zeros((*_SIZE, 3), np.uint8) for camera in info.cameras if camera.name in robot.cameras}
    home = [value for group in robot.commanded.values() for value in group.home]
    joints = dict(zip(robot.joint_names, home, strict=True))
    observation = Observation(time.time_ns(), images, joints, info.default_instruction)
    policy.infer(observation)
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
    return chunk, seconds


def figures(info: PolicyInfo, robot: RobotConfig, chunk: ActionChunk, seconds: float) -> dict[str, Any]:
    """Plain data of a policy that fits the robot."""
    outside = [
        name
        for name, column, (lower, upper) in zip(chunk.names, chunk.actions.T, _limits(robot, chunk.names), strict=True)
        if column.min() < lower or column.max() > upper
    ]
    return {
        **asdict(info),
        "abilities": sorted(info.abilities),
        "robot": robot.robot_type,
        "inference_s": seconds,
        "outside_limits": outside,
        "start_pose": str(familiarity(info, dict(zip(robot.joint_names, robot.home.tolist(), strict=True)))),
    }


def table(found: dict[str, Any]) -> Table:
    """The figures for a terminal."""
    shown = Table(title=f"{found['name']}: fits the {found['robot']}", show_header=False)
    identity = found["identity"]
    cameras = [f"{camera['name']}{'' if camera['required'] else ' (optional)'}" for camera in found["cameras"]]
    rows = {
        "weights": f"{identity['origin']}, sha256 {identity['sha256'] or 'not known'}",
        "cameras": ", ".join(cameras) or "none",
        "joint state": f"{len(found['state'])} numbers",
        "chunk": f"{found['horizon']} steps of {len(found['action'])} joints at {found['fps']:g} a second",
        "instructions": "any" if found["instructions"] is None else "; ".join(found["instructions"]) or "none",
        "can also do": ", ".join(found["abilities"]) or "nothing else",
        "one inference": f"{1e3 * found['inference_s']:.0f} ms, black images, start pose",
        "start pose": found["start_pose"]
        if found["state_band"]
        else "the policy does not say where it knows the joints",
        "outside limits": ", ".join(found["outside_limits"]) or "no joint in this chunk",
    }
    for name, text in rows.items():
        shown.add_row(name, text)
    return shown


def _limits(robot: RobotConfig, names: list[str]) -> list[tuple[float, float]]:
    pairs = [pair for group in robot.commanded.values() for pair in group.limits.position]
    by_name = dict(zip(robot.joint_names, pairs, strict=True))
    return [by_name[name] for name in names]
