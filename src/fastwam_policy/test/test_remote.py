"""A policy served in another process gives what it gives here."""

import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.policies.base import Observation, RunningPlan
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.remote.client import RemotePolicy
from fastwam_policy.policies.remote.wire import decode_observation, encode_observation
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()


def observation(instruction="fold the towel", running=None):
    random = np.random.default_rng(0)
    images = {camera: random.integers(0, 255, (36, 64, 3), np.uint8) for camera in ROBOT.cameras}
    return Observation(5_000_000_000, images, dict.fromkeys(ROBOT.joint_names, 0.2), instruction, running)


@contextmanager
def served(bundle):
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield line.split()[-1]
        finally:
            process.terminate()


def test_observations_travel_unchanged():
    given = observation(running=RunningPlan(np.arange(28.0).reshape(2, 14), 1))
    found = decode_observation(encode_observation(given))
    assert (found.stamp_ns, found.joints, found.instruction) == (given.stamp_ns, given.joints, given.instruction)
    assert found.running.committed == 1
    np.testing.assert_array_equal(found.running.actions, given.running.actions)
    for camera, pixels in given.images.items():
        np.testing.assert_array_equal(found.images[camera], pixels)
    assert decode_observation(encode_observation(observation())).running is None
    with pytest.raises(ValueError, match="not an archive"):
        decode_observation(b"no")


@pytest.mark.nodes
def test_a_served_policy_gives_the_same_chunk_and_names_what_is_wrong(random_bundle, capsys):
    own = FastWamPolicy.load(random_bundle)
    own.prepare("fold the towel")
    expected = own.infer(observation())
    with served(random_bundle) as address:
        remote = RemotePolicy(address)
        assert remote.info == own.info
        remote.reset()
        found = remote.infer(observation())
        np.testing.assert_allclose(found.actions, expected.actions, atol=1e-5)
        assert (found.stamp_ns, found.step_ns, found.names) == (expected.stamp_ns, expected.step_ns, expected.names)
        with pytest.raises(ConfigError, match="wash the car"):
            remote.infer(observation("wash the car"))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{address}/infer", b"no archive")
        np.testing.assert_array_equal(remote.infer(observation()).actions, found.actions)
        port = address.rsplit(":", 1)[1]
        with pytest.raises(SystemExit):
            main(["serve", str(random_bundle), "--port", port])
        assert "choose another --port" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no policy answers"):
        RemotePolicy(address)


@pytest.mark.nodes
def test_an_evaluation_by_address(random_bundle, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    with served(random_bundle) as address, pytest.raises(SystemExit) as ended:
        main(["eval-sim", address, "--episodes", "1", "--time-limit", "1", "--workers", "1"])
    assert ended.value.code in (0, None)
    assert "no corner grasped: 1" in capsys.readouterr().out
