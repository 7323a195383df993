"""The programs in examples/ do what their first lines say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nodes
ROOT = Path(__file__).resolve().parents[3]
SHORT = sorted(path for path in (ROOT / "examples").rglob("*.py") if path.name != "serve_lerobot.py")


def run(program, *arguments):
    """What a program prints."""
    command = [sys.executable, ROOT / "examples" / program, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", SHORT, ids=lambda path: path.name)
def test_examples_are_short_and_listed(path):
    assert len(path.read_text().splitlines()) <= 60
    name = path.relative_to(ROOT / "examples").as_posix()
    assert f"({name})" in (ROOT / "examples" / "README.md").read_text()


@pytest.mark.slow
def test_run_a_policy(tmp_path):
    text = run("run_a_policy.py", "bundles/towel_small", "examples/images", tmp_path / "chunk.png")
    assert text.startswith("towel_small: 32 steps of 14 joints")
    assert is_picture(tmp_path / "chunk.png")


@pytest.mark.slow
def test_ask_a_served_policy():
    command = [
        sys.executable,
        "-m",
        "fastwam_policy.cli",
        "serve",
        "examples/custom_policy/policy.py:Hold",
        "--port",
        "0",
    ]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = next(word for word in server.stdout.readline().split() if word.startswith("ws://"))
        text = run("ask_a_served_policy.py", address)
    finally:
        server.terminate()
        server.wait()
    assert "32 steps, 15 a second" in text
    assert text.count("left_arm_joint") == 6


@pytest.mark.slow
def test_evaluate_and_plot(tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    text = run("evaluate_and_plot.py", "examples/custom_policy/policy.py:Hold", "1", tmp_path / "episodes.png")
    assert "0% of 1 folded (95 %: 0% to 79%)" in text
    assert "seed 0: no corner grasped after 20.0 s" in text
    assert is_picture(tmp_path / "episodes.png")


@pytest.mark.slow
def test_read_a_recording(tmp_path):
    text = run("read_a_recording.py", "bags/towel_fold_sample", tmp_path / "arm.png")
    assert "/hdas/feedback_arm_left: array (1560, 7)" in text
    assert is_picture(tmp_path / "arm.png")


@pytest.mark.slow
def test_convert_and_inspect(tmp_path):
    text = run("convert_and_inspect.py", tmp_path / "data", tmp_path / "frames.png", "bags/towel_fold_sample")
    assert "episode 0: state (97, 14), action (97, 14), 6.5 s" in text
    assert is_picture(tmp_path / "frames.png")


@pytest.mark.slow
def test_bridge_offline(tmp_path):
    text = run("bridge_offline.py", tmp_path / "bridge.png")
    asked, sent = (float(part.split()[0]) for part in text.replace("sent ", "asked for ").split("asked for ")[1:])
    assert asked == 7.5
    assert 0.5 < sent <= 2.0, "the limit of that joint"
    assert is_picture(tmp_path / "bridge.png")


@pytest.mark.slow
def test_new_task(tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    assert run("new_task.py", tmp_path / "lifted.png").endswith("by left_arm\n")
    assert is_picture(tmp_path / "lifted.png")


def test_a_policy_of_ones_own_drives_the_simulator(tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    figures = tmp_path / "figures.json"
    command = ["eval-sim", "examples/custom_policy/policy.py:Hold", "--episodes", "1", "--workers", "1"]
    command += ["--time-limit", "1", "--json", figures]
    subprocess.run([sys.executable, "-m", "fastwam_policy.cli", *command], cwd=ROOT, check=True)
    found = json.loads(figures.read_text())
    assert found["failures"] == {"no corner grasped": 1}
    assert len(found["how"]["policy"]) == 64, "the file's hash"
