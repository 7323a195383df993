"""Servers of other projects drive the simulated robot, from environments of their own that `make interop` makes."""

import os
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from fastwam_msgs.msg import ActionChunk
from fastwam_policy.cli.main import main
from fastwam_policy.policies.loading import load_policy
from fastwam_policy.simulation.episode import EpisodeSettings, drive
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_sim.camera import Cameras
from galaxea_r1lite_sim.randomization import draw
from galaxea_r1lite_sim.simulation import Simulation

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
ROBOT, PYTHON = RobotConfig.load(), os.environ.get("INTEROP_OPENPI", "")
MAPPING = ROOT / "config" / "policies" / "pi05_aloha.yaml"
OPENED = np.array([1.0] * 6 + [100.0] + [1.0] * 6 + [100.0])  # mm of a gripper that is said to be 1
GOAL = ROBOT.home / OPENED + np.array([0.1, 0.1, -0.1, 0, 0, 0.1, 0, -0.1, 0.05, -0.1, 0, 0, 0.1, 0])
GOAL[[6, 13]] = 0.4, 0.7
PATIENCE = 60.0  # s: generous, since two cores may be busy
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="INTEROP_OPENPI names no Python with openpi-server; make interop does"
)


@pytest.fixture
def address(tmp_path):
    """Of openpi-server, with the mapping file that is shipped for it."""
    np.save(tmp_path / "goal.npy", GOAL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [PYTHON, HERE / "serve_with_openpi.py", str(port), tmp_path / "goal.npy"], env=alone
    ) as process:
        try:
            wait_for(lambda: answers(port))
            yield f"ws://127.0.0.1:{port}#{MAPPING}"
        finally:
            process.terminate()


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_openpi_server_drives_an_episode(address):
    policy = load_policy(address)
    simulation = Simulation(ROBOT, draw(0, "none"))
    settings = EpisodeSettings("none", latency=0.1, replan=0.5, height=90)
    policy.prepare(policy.info.default_instruction)
    drive(policy, ROBOT, simulation, Cameras(simulation, 90, 160), settings, 3.0)
    policy.close()
    np.testing.assert_allclose(simulation.target / OPENED, GOAL, atol=0.01)
    np.testing.assert_allclose(simulation.joints / OPENED, GOAL, atol=0.04)


def test_eval_sim_with_openpi_server(address, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval-sim", address, "--episodes", "1", "--time-limit", "2", "--workers", "1"])
    assert ended.value.code in (0, None)
    assert "no corner grasped: 1" in capsys.readouterr().out


def test_policy_node_with_openpi_server(ros, address):
    chunks = ros.collect(ActionChunk, ROBOT.interfaces.action_chunk)
    ros.start("galaxea_r1lite_bridge", "emulator_node", camera_rate=10.0, feedback_rate=60.0)
    ros.start(
        "fastwam_policy",
        "policy_node",
        policy=address,
        instruction="fold the towel",
        max_observation_age=2.0,
        max_skew=0.2,
    )
    ros.until(lambda: len(chunks) >= 2)
    trajectory = chunks[-1].trajectory
    assert list(trajectory.joint_names) == ROBOT.joint_names
    assert len(trajectory.points) == 50
    np.testing.assert_allclose(np.array(trajectory.points[-1].positions) / OPENED, GOAL, atol=1e-6)
