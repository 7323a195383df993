"""The layout for Foxglove shows what there is, and is what its script makes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from fastwam_msgs.msg import ActionChunk, BridgeStatus
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROOT = Path(__file__).resolve().parents[3]
LAYOUT, SCRIPT = ROOT / "config" / "foxglove" / "towel_fold.json", ROOT / "scripts" / "foxglove_layout.py"
ROBOT = RobotConfig.load()


def words(found):
    """All texts in it, keys among them."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield key
            yield from words(value)
    elif isinstance(found, list):
        for value in found:
            yield from words(value)
    elif isinstance(found, str):
        yield found


def test_topics_and_fields_are_there():
    names, shown = ROBOT.interfaces, [word for word in words(json.loads(LAYOUT.read_text())) if word.startswith("/")]
    assert {f"/{camera.topic}" for camera in ROBOT.cameras.values()} <= set(shown)
    fields = {names.action_chunk: ActionChunk, names.bridge_status: BridgeStatus}
    joints = {names.command, *(group.feedback for group in ROBOT.groups.values())}
    others = {names.markers, "robot_description", "diagnostics", *(camera.topic for camera in ROBOT.cameras.values())}
    for word in shown:
        topic, _, field = word[1:].partition(".")
        if field:
            assert topic in joints | set(fields)
            known = fields[topic].get_fields_and_field_types() if topic in fields else {"position"}
            assert re.sub(r"\[\d+\]$", "", field) in known
        else:
            assert topic in others


def test_it_is_a_file_that_can_be_imported():
    """Lichtblick asks for these fields; each panel stands in the tree once."""
    made = json.loads(LAYOUT.read_text())
    assert {"configById", "globalVariables", "playbackConfig", "layout"} <= set(made)

    def leaves(part):
        return [part] if isinstance(part, str) else leaves(part["first"]) + leaves(part["second"])

    assert sorted(leaves(made["layout"])) == sorted(made["configById"])
    kinds = {"3D", "Image", "Plot", "StateTransitions", "DiagnosticSummary"}
    assert {name.partition("!")[0] for name in made["configById"]} == kinds


@pytest.mark.skipif(importlib.util.find_spec("foxglove") is None, reason="foxglove-sdk is not installed")
def test_it_is_what_its_script_makes():
    found = importlib.util.spec_from_file_location("foxglove_layout", SCRIPT)
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert script.exported(script.layout(ROBOT)) == json.loads(LAYOUT.read_text())
