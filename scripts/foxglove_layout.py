"""The layout for Foxglove, config/foxglove/towel_fold.json, with the topics of the robot file: the views of RViz.

    .venv/bin/python -m pip install foxglove-sdk
    . scripts/env.sh && python scripts/foxglove_layout.py

Panels are those of foxglove-sdk's classes, which know their fields.
"""

from __future__ import annotations

import json
from pathlib import Path

import foxglove.layouts as fl

from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig

TARGET = Path(__file__).parents[1] / "config" / "foxglove" / "towel_fold.json"
COLORS = {
    State.INACTIVE: "#9ca3af", State.DISARMED: "#6b7280", State.HOLDING: "#eab308",
    State.TRACKING: "#16a34a", State.STOPPING: "#f97316",
    State.FAULT: "#dc2626", State.ESTOP: "#991b1b", State.TAKEOVER: "#9333ea",
}  # fmt: skip
STAGES = ("decode", "encode", "prefill", "denoise", "total")


def row(*items: tuple[float, fl.Content]) -> fl.SplitContainer:
    """Side by side, each with its share."""
    return split("row", items)


def column(*items: tuple[float, fl.Content]) -> fl.SplitContainer:
    """One below the other, each with its share."""
    return split("column", items)


def split(direction: str, items: tuple[tuple[float, fl.Content], ...]) -> fl.SplitContainer:
    """Of a share and what is shown there."""
    parts = [fl.SplitItem(proportion=share, content=content) for share, content in items]
    return fl.SplitContainer(direction=direction, items=parts)


def camera(title: str, topic: str) -> fl.ImagePanel:
    """Its pictures."""
    return fl.ImagePanel(title=title, config=fl.ImageConfig(image_mode=fl.ImageModeConfig(image_topic=topic)))


def plot(title: str, unit: str, **series: str) -> fl.PlotPanel:
    """Of message paths by their names."""
    paths = [fl.PlotSeries(value=path, label=label, enabled=True) for label, path in series.items()]
    return fl.PlotPanel(title=title, config=fl.PlotConfig(paths=paths, y_axis_label=unit, is_synced=True))


def layout(robot: RobotConfig) -> fl.Layout:
    """Scene, cameras, an arm's joints, latency, states and diagnostics."""
    names = robot.interfaces
    eye = fl.ThreeDeeCameraState(distance=1.9, phi=61.0, theta_offset=26.0, target_offset=(0.3, 0.0, 1.08))
    shown = fl.BaseRendererRosMarkerTopicSettings(visible=True)
    scene = fl.ThreeDeeConfig(
        camera_state=eye, fixed_frame=robot.workspace.frame, follow_tf=robot.workspace.frame, follow_mode="follow-none",
        topics={f"/{names.markers}": shown, "/robot_description": fl.BaseRendererUrdfTopicSettings(visible=True)},
    )  # fmt: skip
    cameras = [(1.0, camera(name, f"/{each.topic}")) for name, each in robot.cameras.items()]
    group = next(name for name in robot.commanded if name in robot.workspace.arms)
    place = list(robot.joint_names).index(robot.commanded[group].joints[1])
    joint = plot(
        robot.joint_names[place], "rad", measured=f"/{robot.groups[group].feedback}.position[1]",
        commanded=f"/{names.command}.position[{place}]",
    )  # fmt: skip
    latency = plot("latency of each chunk", "ms", **{stage: f"/{names.action_chunk}.{stage}_ms" for stage in STAGES})
    states = [
        fl.StateTransitionsDiscreteCustomState(value=str(int(state)), label=state.name, color=COLORS[state])
        for state in State
    ]
    bridge = fl.StateTransitionsSeries(
        value=f"/{names.bridge_status}.state", label="bridge", enabled=True,
        custom_states=fl.StateTransitionsDiscreteCustomStates(states=states),
    )  # fmt: skip
    why = fl.StateTransitionsSeries(value=f"/{names.bridge_status}.reason_text", label="why", enabled=True)
    transitions = fl.StateTransitionsPanel(config=fl.StateTransitionsConfig(paths=[bridge, why]))
    diagnostics = fl.DiagnosticsSummaryPanel(config=fl.DiagnosticsSummaryConfig(topic_to_render="/diagnostics"))
    left = column((3.0, fl.ThreeDeePanel(config=scene)), (2.0, row(*cameras)))
    right = column((1.0, joint), (1.0, latency), (1.0, transitions), (1.0, diagnostics))
    return fl.Layout(content=row((3.0, left), (2.0, right)))


if __name__ == "__main__":
    made = json.loads(layout(RobotConfig.load()).to_json())
    TARGET.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(TARGET)
