"""The layout for Foxglove, config/foxglove/towel_fold.json, with the topics of the robot file: the views of RViz.

    .venv/bin/python -m pip install foxglove-sdk
    . scripts/env.sh && python scripts/foxglove_layout.py

Panels are those of foxglove-sdk's classes, which know their fields. The file has the form in which Foxglove, and
Lichtblick, export a layout and import it; the SDK's own is for notebooks only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import foxglove.layouts as fl

from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig

TARGET = Path(__file__).parents[1] / "config" / "foxglove" / "towel_fold.json"
COLORS = {
    State.INACTIVE: "#9ca3af", State.DISARMED: "#6b7280", State.HOLDING: "#eab308",
    State.TRACKING: "#16a34a", State.STOPPING: "#f97316",
    State.FAULT: "#dc2626", State.ESTOP: "#991b1b", State.TAKEOVER: "#9333ea",
}  # fmt: skip
TYPES = {"ThreeDee": "3D", "DiagnosticsSummary": "DiagnosticSummary"}  # of the SDK, and in a file
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
    return fl.PlotPanel(
        title=title,
        config=fl.PlotConfig(
            paths=paths, y_axis_label=unit, is_synced=True, legend_display="left", sidebar_dimension=155
        ),
    )


def layout(robot: RobotConfig) -> fl.Layout:
    """Scene, cameras, an arm's joints, latency, states and diagnostics."""
    names = robot.interfaces
    # As RViz's, whose yaw is 0.45 rad and pitch 0.5: theta is -(90 degrees + yaw), phi 90 - pitch.
    eye = fl.ThreeDeeCameraState(distance=1.9, phi=61.4, theta_offset=244.2, target_offset=(0.3, 0.0, 1.08))
    frames = fl.BaseRendererTransforms(visible=False, show_label=False, axis_size=0.0, line_width=0.0)
    shown = fl.BaseRendererRosMarkerTopicSettings(visible=True)
    scene = fl.ThreeDeeConfig(
        camera_state=eye, fixed_frame=robot.workspace.frame, follow_tf=robot.workspace.frame, follow_mode="follow-none",
        scene=fl.BaseRendererSceneSettings(background_color="#303030", transforms=frames),
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
    why = fl.StateTransitionsSeries(value=f"/{names.bridge_status}.reason", label="reason", enabled=True)
    transitions = fl.StateTransitionsPanel(
        title="bridge", config=fl.StateTransitionsConfig(paths=[bridge, why], is_synced=True)
    )
    diagnostics = fl.DiagnosticsSummaryPanel(
        title="diagnostics", config=fl.DiagnosticsSummaryConfig(topic_to_render="/diagnostics")
    )
    left = column((3.0, fl.ThreeDeePanel(title="R1 Lite", config=scene)), (2.0, row(*cameras)))
    right = column((1.0, joint), (1.0, latency), (1.0, transitions), (1.0, diagnostics))
    return fl.Layout(content=row((3.0, left), (2.0, right)))


def exported(made: fl.Layout) -> dict[str, Any]:
    """As a file that can be imported: the panels by their names, and a binary tree of the names."""
    panels: dict[str, Any] = {}

    def tree(part: dict[str, Any]) -> Any:
        if part["type"] == "panel":
            kind = TYPES.get(part["panelType"], part["panelType"])
            name = f"{kind}!{len(panels) + 1}"
            titles = {f"{app}PanelTitle": part["title"] for app in ("foxglove", "lichtblick")}
            panels[name] = part["config"] | titles
            return name
        first, *others = part["items"]
        if not others:
            return tree(first["content"])
        share = first["proportion"] / sum(item["proportion"] for item in part["items"])
        ends = {"first": tree(first["content"]), "second": tree(part | {"items": others})}
        return {"direction": part["direction"], **ends, "splitPercentage": round(100 * share, 2)}

    shape = tree(json.loads(made.to_json())["content"])
    for panel in panels.values():
        if transforms := panel.get("scene", {}).get("transforms"):
            transforms["axisScale"] = transforms["axisSize"]  # Lichtblick's name for it
    return {
        "configById": panels, "globalVariables": {}, "userNodes": {}, "playbackConfig": {"speed": 1}, "layout": shape
    }  # fmt: skip


if __name__ == "__main__":
    TARGET.write_text(json.dumps(exported(layout(RobotConfig.load())), indent=1) + "\n", encoding="utf-8")
    print(TARGET)
