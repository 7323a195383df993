"""Clients of other projects ask `fastwam serve`, each from an environment of its own that `make interop` makes."""

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.loading import load_policy
from galaxea_r1lite_bridge.robot.config import RobotConfig

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
ROBOT, BUNDLE, TASK = RobotConfig.load(), ROOT / "bundles" / "towel_small", "fold the towel"
KEY = "0123456789abcdef0123456789abcdef"
PEERS = {name: os.environ.get(f"INTEROP_{name.upper()}", "") for name in ("openpi", "xpolicylab")}
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # of this project's environment


def needs(peer):
    return pytest.mark.skipif(not PEERS[peer], reason=f"INTEROP_{peer.upper()} names no Python; make interop does")


@contextmanager
def served(*options):
    """The address of the shipped policy."""
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", str(BUNDLE), "--port", "0", "--device", "cpu"]
    with subprocess.Popen([*command, *map(str, options)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            assert process.wait(20) == 0


def run(peer, script, *arguments):
    subprocess.run([PEERS[peer], HERE / script, *map(str, arguments)], check=True, env=ALONE, timeout=300)


def pictures():
    random = np.random.default_rng(0)
    return {name: random.integers(0, 255, (96, 128, 3), np.uint8) for name in ROBOT.cameras}


def chunk(images, joints):
    """In process."""
    with closing(load_policy(BUNDLE, {"device": "cpu"})) as policy:
        policy.prepare(TASK)
        return policy.infer(Observation(0, images, joints, TASK)).actions


@needs("openpi")
def test_openpi_client(tmp_path):
    given, found, key = (tmp_path / name for name in ("given.npz", "found.npz", "key"))
    images = pictures()
    np.savez(given, state=ROBOT.home, prompt=TASK, **{f"image.{name}": image for name, image in images.items()})
    key.write_text(KEY)
    with served("--api-key-file", key) as address:
        run("openpi", "ask_with_openpi.py", address, KEY, given, found)
    reply = np.load(found)
    seen = {name: reply[name].transpose(1, 2, 0) for name in images}
    expected = chunk(seen, dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True)))
    np.testing.assert_array_equal(reply["actions"], expected)
    np.testing.assert_array_equal(reply["steps"], expected)
    assert str(reply["name"]) == "towel_small"
    assert "Error in inference server:\nimages: head, wrist_left, wrist_right missing" in str(reply["refusal"])


@needs("xpolicylab")
def test_a_client_of_xpolicylab(tmp_path):
    given, found, images = tmp_path / "given.npz", tmp_path / "found.npz", pictures()
    parts = {
        "left_arm_joint_state": ROBOT.home[:6], "left_ee_joint_state": ROBOT.home[6:7] / 100,
        "right_arm_joint_state": ROBOT.home[7:13], "right_ee_joint_state": ROBOT.home[13:] / 100,
    }  # fmt: skip
    np.savez(given, prompt=TASK, **{f"image.{name}": image for name, image in images.items()}, **parts)
    with served("--protocol", "xpolicylab") as address:
        run("xpolicylab", "ask_as_xpolicylab.py", address, given, found)
    reply = np.load(found)
    opened = np.array([1.0] * 6 + [100.0] + [1.0] * 6 + [100.0])  # mm of a gripper that is said to be 1
    expected = chunk(images, dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True)))
    for found_chunk in reply["chunks"]:
        np.testing.assert_allclose(found_chunk * opened, expected, atol=1e-9)
    assert str(reply["refusal"]).startswith("infer_failed: observation.vision: head, wrist_left, wrist_right missing")
