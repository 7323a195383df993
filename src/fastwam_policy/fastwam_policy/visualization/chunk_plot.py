"""A chunk as a picture: each joint over time, its limits, and where it was when the policy looked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastwam_policy.policies.base import ActionChunk
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays

_COLUMNS = 7
_LIMIT, _TARGET = "tab:red", "tab:blue"


def plot_chunk(path: Path, chunk: ActionChunk, robot: RobotConfig, joints: Mapping[str, float], title: str) -> None:
    """Write a PNG of a chunk in the robot's units; `joints` is what the policy was told."""
    lower, upper, *_ = limit_arrays(robot.commanded)
    limits = dict(zip(robot.joint_names, zip(lower, upper, strict=True), strict=True))
    units = dict(zip(robot.joint_names, robot.units, strict=True))
    seconds = np.arange(len(chunk.actions)) * chunk.step_ns / 1e9
    rows = -(-len(chunk.names) // _COLUMNS)
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.2 * rows + 0.6), layout="constrained")
    figure.suptitle(f"{title}: targets (blue), limits (red), pose it was shown (dot)")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False).ravel()
    for panel in panels[len(chunk.names) :]:
        panel.set_visible(False)
    for panel, name, column in zip(panels, chunk.names, chunk.actions.T, strict=False):
        panel.plot(seconds, column, color=_TARGET)
        panel.plot(0.0, joints[name], "o", color="black", markersize=4)
        for limit in limits[name]:
            panel.axhline(limit, color=_LIMIT, linewidth=0.8)
        panel.set_title(f"{name} [{units[name]}]", fontsize="small")
        panel.tick_params(labelsize="x-small")
    for panel in panels[-_COLUMNS:]:
        panel.set_xlabel("s after the picture", fontsize="small")
    figure.savefig(path, format="png", dpi=100)
