"""The Rerun viewer on a recorded session."""

import importlib.util
import subprocess
import sys

import pytest

from fastwam_policy.cli.main import main

NEEDS_RERUN = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed; make demo VIEW=1 installs it"
)


@NEEDS_RERUN
def test_a_recording_is_written_for_the_viewer(sample_bag, tmp_path, capsys):
    target = tmp_path / "session.rrd"
    with pytest.raises(SystemExit) as ended:
        main(["view", str(sample_bag), "--save", str(target)])
    assert ended.value.code == 0
    assert int(capsys.readouterr().out.split()[-2]) > 1000
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(target)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    for entity in ("joints/left_arm_joint1/measured", "cameras/head", "scene/executed", "scene/transforms"):
        assert entity in listed


@NEEDS_RERUN
def test_without_a_screen_it_says_what_to_do(sample_bag, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["view", str(sample_bag)])
    assert ended.value.code == 2
    assert "use --web, or --save" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("rerun") is not None, reason="rerun-sdk is installed")
def test_without_rerun_it_says_how_to_install_it(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["view", "--web"])
    assert ended.value.code == 2
    assert "requirements-view.txt" in capsys.readouterr().err
