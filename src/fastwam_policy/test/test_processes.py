"""One description, two starters: the demo's command lines and the launch file."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import rclpy
import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rclpy.lifecycle import LifecycleNode

from fastwam_policy.common.processes import (
    ARGUMENTS,
    MODES,
    _entries,
    node_command,
    parse_argument,
    processes,
    sample_bag,
)
from fastwam_policy.launching.checks import checked_processes
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

SHARE = Path(get_package_share_directory("fastwam_policy"))


@pytest.fixture(autouse=True)
def _there_is_a_simulator(monkeypatch):
    """MuJoCo has no wheel for Python 3.10; nothing is started here."""
    monkeypatch.setattr("fastwam_policy.common.processes.has_simulator", lambda: True)


def test_each_mode_starts_what_it_needs():
    arguments = {"bag": "/bag", "policy": "/bundle", "arm": True, "record": True, "session": "/session"}
    started = {p.name: p for p in processes("replay", arguments)}
    assert list(started) == ["policy_node", "bridge_node", "recorder_node", "replay_node"]
    assert started["policy_node"].parameters == {"policy": "/bundle"}
    assert started["bridge_node"].parameters == {"arm_on_start": True}
    assert started["replay_node"].params_file.name == "replay.yaml"
    assert [p.name for p in processes("real", {})] == ["policy_node", "bridge_node"]
    imagining = processes("real", {"imagine": True, "policy": "/bundle"})
    assert {p.name: p.parameters for p in imagining}["imagination_node"] == {"policy": "/bundle"}


@pytest.mark.parametrize("mode", MODES)
def test_another_robot_reaches_every_node(mode):
    given = {"robot_config": "/robot.yaml", "rviz": True, "imagine": True, "record": True}
    assert {process.parameters["robot_config"] for process in processes(mode, given)} == {"/robot.yaml"}
    assert not any("robot_config" in process.parameters for process in processes(mode, given | {"robot_config": ""}))


def test_a_real_robot_is_never_armed_by_default():
    (bridge,) = (p for p in processes("real", {}) if p.name == "bridge_node")
    assert bridge.parameters == {"arm_on_start": False}
    assert "arm_on_start" not in bridge.params_file.read_text()


def test_command_lines():
    command = processes("replay", {"bag": "/b"})[-1].command("r1")
    assert Path(command[0]).is_file()
    assert command[1:6] == ["--ros-args", "-r", "__node:=replay_node", "-r", "__ns:=/r1"]
    assert command[-2:] == ["-p", 'bag:="/b"']
    assert node_command("fastwam_policy", "policy_node", {"on": True, "seed": 3, "duration": 0.5})[-5::2] == [
        "on:=true", "seed:=3", "duration:=0.5",
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@example("/home/a/mine #2")
@example("out: new")
@example("yes")
@example("1e3")
@example("~")
@example("a \"quoted\" 'name' \\n\n😀\x7f")
def test_what_is_named_is_what_the_node_gets(text):
    """By the parser that a node has: rcl's, of YAML."""
    *_, word = node_command("fastwam_policy", "policy_node", {"policy": text})
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", word], context=context)
    try:
        node = LifecycleNode(
            "node", context=context, enable_rosout=False, start_parameter_services=False, enable_logger_service=False,
        )  # fmt: skip
        assert node.declare_parameter("policy", "").value == text
        node.destroy_node()
    finally:
        context.shutdown()


def test_a_name_that_ros_2_cannot_take_is_refused():
    with pytest.raises(ConfigError, match="is not in UTF-8"):
        node_command("fastwam_policy", "policy_node", {"policy": os.fsdecode(b"caf\xe9")})


@pytest.mark.parametrize("mode", MODES)
def test_params_files_name_only_parameters_that_exist(mode):
    for pattern, block in yaml.safe_load((SHARE / "config" / f"{mode}.yaml").read_text()).items():
        known = {"use_sim_time"}
        if pattern != "/**":
            node = pattern.removeprefix("/**/")
            package = next(process.package for process in processes(mode, {}) if process.name == node)
            path = Path(get_package_share_directory(package)) / "config" / f"{node}.yaml"
            known |= set(yaml.safe_load(path.read_text()))
        assert set(block["ros__parameters"]) <= known


def test_an_argument_that_there_is_not_is_named(tmp_path):
    (tmp_path / "processes.yaml").write_text("node: {package: p, modes: [sim], arguments: {seed: sed}}")
    with pytest.raises(ConfigError, match=r"processes.yaml: node: sed is not an argument; known are bag, "):
        _entries(tmp_path)


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match="mode must be one of real, sim, replay, got 'fly'"):
        processes("fly", {})
    with pytest.raises(ConfigError, match="argument bundle is now called policy: policy:=/mine"):
        processes("sim", {"bundle": "/mine"})
    with pytest.raises(ConfigError, match="argument seed must be a number such as 0, got 'many'"):
        parse_argument("seed", "many")
    assert [parse_argument(*pair) for pair in (("seed", "3"), ("duration", "2"), ("arm", "True"), ("bag", "x"))] == [
        3, 2.0, True, "x",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="unknown argument speed"):
        processes("replay", {"speed": "1"})


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [
        ("sim", {"randomization": "wild"}, "parameter randomization must be one of none, objects, full; got 'wild'"),
        ("sim", {"seed": -1}, "parameter seed must be 0 to 2000000000; got -1"),
        ("sim", {"policy": "/nowhere"}, "/nowhere: no such folder"),
        ("sim", {"instruction": "dance"}, "does not know the instruction 'dance'"),
        ("replay", {"bag": "/nowhere"}, "/nowhere: no such recording"),
        ("real", {}, "mode real needs a policy that was trained for this robot"),
        ("real", {"policy": "ws://127.0.0.1:9", "imagine": True}, "what is imagined is shown of a bundle"),
    ],
)
def test_what_cannot_run_is_said_before_anything_starts(mode, given, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        checked_processes(mode, given)


def test_rviz_that_is_not_installed_is_named(monkeypatch):
    def find(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("fastwam_policy.launching.checks.get_package_prefix", find)
    with pytest.raises(ConfigError, match="rviz:=true needs rviz2: sudo apt install ros-"):
        checked_processes("sim", {"rviz": True})


def test_what_can_run_is_let_through():
    assert checked_processes("replay", {"bag": str(sample_bag())})
    assert checked_processes("real", {"policy": "ws://127.0.0.1:9"}), "its server may come later"


@pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None, reason="launch_ros comes with a ROS 2 installation only"
)
@pytest.mark.parametrize("mode", ["real", "sim", "replay"])
def test_the_launch_file_starts_the_same(mode, monkeypatch):
    from launch_ros.actions import Node

    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location("towel_fold", SHARE / "launch" / "towel_fold.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "checked_processes", processes)  # there is no /bag
    context = LaunchContext()
    given = {"bag": "/bag", "policy": "/bundle", "record": "true"}
    for action in module.generate_launch_description().entities[:-1]:
        default = ARGUMENTS.get(action.name, ("", ""))[0]
        context.launch_configurations[action.name] = given.get(action.name, str(default).lower())
    context.launch_configurations["mode"] = mode
    nodes = [action for action in module.start(context) if isinstance(action, Node)]
    expected = processes(mode, {"bag": "/bag", "policy": "/bundle", "record": True})
    assert [node.node_executable for node in nodes] == [process.executable for process in expected]
