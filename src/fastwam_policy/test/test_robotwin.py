"""RoboTwin: the stand-in's files, and the adapter where its simulator is installed (make benchmark-robotwin)."""

import json
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from fastwam_policy.benchmarks.apart import robotwin_standin
from fastwam_policy.benchmarks.apart.robotwin_env import judged
from fastwam_policy.benchmarks.robotwin import INTERFACE, STANDIN, RoboTwin
from fastwam_policy.benchmarks.run import Job, play
from fastwam_policy.benchmarks.simulator import environment_python
from fastwam_policy.policies.base import ActionChunk, CameraInput, PolicyInfo
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def installed():
    try:
        environment_python("robotwin")
    except ConfigError:
        return False
    return "VK_ICD_FILENAMES" in os.environ


simulated = pytest.mark.skipif(not installed(), reason="make benchmark-robotwin, and VK_ICD_FILENAMES of a renderer")


def test_what_a_kill_left_of_the_seeds_is_read(tmp_path):
    file = tmp_path / "seeds.jsonl"
    assert judged(file) == {}
    file.write_text("[1, true]\n[2, false]\n\n7\n[1, false]\n[3, tr")
    assert judged(file) == {1: True, 2: False}


class Nod:
    """Moves both arms a little, whatever it sees; looks at all cameras."""

    def __init__(self):
        cameras = tuple(CameraInput(name) for name in INTERFACE.cameras)
        self.info = PolicyInfo("nod", cameras, INTERFACE.state, INTERFACE.action, INTERFACE.fps, 32)
        self.seen = []

    def prepare(self, instruction):
        self.instruction = instruction

    def infer(self, observation):
        self.seen.append(observation)
        names = [channel.name for channel in self.info.action]
        row = np.array([observation.joints[name] for name in names])
        move = 0.02 * np.array([not name.endswith("gripper") for name in names])
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, np.tile(row + move, (32, 1)))

    def reset(self):
        self.seen.clear()

    def close(self):
        pass


def test_the_stand_in_has_the_names_of_the_real_arms(tmp_path):
    folder = tmp_path / "assets" / "embodiments" / "aloha-agilex"
    robotwin_standin.write(folder)
    robot = ET.parse(folder / "standin.urdf").getroot()
    links = {link.get("name") for link in robot.iter("link")}
    joints = {joint.get("name"): joint for joint in robot.iter("joint")}
    assert {"left_camera", "right_camera", "footprint"} <= links
    assert {joint.find(end).get("link") for joint in joints.values() for end in ("parent", "child")} <= links
    assert {joint.find("child").get("link") for joint in joints.values()} == links - {"footprint"}
    config = json.loads((folder / "config.yml").read_text())
    for name in [*chain(*config["arm_joints_name"]), *(gripper["base"] for gripper in config["gripper_name"])]:
        assert float(joints[name].find("limit").get("upper")) > 0
    assert (tmp_path / "assets" / "objects").is_dir()


def test_without_assets_every_table_says_so(tmp_path):
    assert RoboTwin().note == STANDIN
    assert RoboTwin(tmp_path).note == ""
    assert RoboTwin().protocol() != RoboTwin(tmp_path).protocol()
    with pytest.raises(ConfigError, match="demo_randomized needs --assets: a folder with RoboTwin's"):
        RoboTwin().tasks(["demo_randomized"])


@pytest.mark.slow
@simulated
def test_the_adapter_plays_the_stand_in(tmp_path):
    benchmark = RoboTwin()
    tasks = {task.instruction: task for task in benchmark.tasks(["demo_clean"])}
    assert set(tasks) == set(robotwin_standin.TASKS)
    task, policy = tasks["stack_blocks_two"], Nod()
    episodes = []
    for _ in range(2):
        opened = benchmark.open(task, policy, tmp_path / "log", film=False)
        assert opened._limit == 800
        opened._limit = 30
        episodes.append(replace(opened.play(1, None), seconds=0.0, inference_ms=0.0))
        opened.close()
    assert episodes[0] == episodes[1]
    assert (episodes[0].success, episodes[0].steps) == (False, 30)
    assert len(policy.seen) == 2, "it replans after 24 steps"
    assert policy.seen[0].images["head"].shape == (240, 320, 3)
    assert "{" not in policy.instruction
    seeds = (tmp_path / "seeds_standin_demo_clean_stack_blocks_two.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in seeds] == [4_300_000, 4_300_001]
    nothing = next(play(Job(benchmark, "noop", task, (0,), Path(tmp_path))))
    assert nothing.steps == 800
