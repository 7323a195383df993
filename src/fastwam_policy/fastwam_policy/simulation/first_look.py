"""What a policy can be shown without a robot: noise, a simulated scene, or the beginning of a recording."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastwam_policy.policies.base import Frame
from galaxea_r1lite_bridge.robot.config import RobotConfig

NOISE, SIMULATOR = "noise", "sim"
_HEIGHT, _WIDTH = 360, 640


def first_look(source: str, robot: RobotConfig, cameras: Sequence[str]) -> Frame:
    """A frame with the pictures of these cameras.

    Args:
        source: `noise` in the start pose, `sim` for the simulated table with the towel, or a recording's folder.
        robot: whose joints and cameras they are.
        cameras: those that are looked through.

    Raises:
        ConfigError: there is no such recording, or it does not show all of that.
    """
    joints = robot.home
    if source == NOISE:
        random = np.random.default_rng(0)
        images = {camera: random.integers(0, 255, (_HEIGHT, _WIDTH, 3), np.uint8) for camera in cameras}
    elif source == SIMULATOR:
        from fastwam_policy.common.processes import require_simulator

        require_simulator()
        from galaxea_r1lite_sim.camera import Cameras
        from galaxea_r1lite_sim.randomization import draw
        from galaxea_r1lite_sim.simulation import Simulation

        simulation = Simulation(robot, draw(0, "none"))
        view, joints = Cameras(simulation, _HEIGHT, _WIDTH), simulation.joints
        images = {camera: view.render(camera).copy() for camera in cameras}
    else:
        from fastwam_policy.data.convert import ConvertSettings, read_episode

        episode = read_episode(Path(source), robot, ConvertSettings(""))
        joints = np.concatenate([episode.state[group][0] for group in robot.commanded])
        images = {camera: next(iter(episode.images[camera])) for camera in cameras}
    return Frame(time.time_ns(), images, dict(zip(robot.joint_names, joints.tolist(), strict=True)))
