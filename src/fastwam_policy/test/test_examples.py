"""The programs in examples/ do what their first lines say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nodes
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_run_a_policy(tmp_path):
    command = ["examples/run_a_policy.py", "bundles/towel_small", "examples/images", tmp_path / "chunk.png"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("towel_small: 32 steps of 14 joints")
    assert (tmp_path / "chunk.png").read_bytes().startswith(b"\x89PNG")


def test_a_policy_of_ones_own_drives_the_simulator(tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    figures = tmp_path / "figures.json"
    command = ["eval-sim", "examples/custom_policy/policy.py:Hold", "--episodes", "1", "--workers", "1"]
    command += ["--time-limit", "1", "--json", figures]
    subprocess.run([sys.executable, "-m", "fastwam_policy.cli", *command], cwd=ROOT, check=True)
    found = json.loads(figures.read_text())
    assert found["failures"] == {"no corner grasped": 1}
    assert len(found["how"]["policy"]) == 64, "the file's hash"
