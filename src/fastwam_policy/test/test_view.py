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
def test_a_session_is_shown_from_where_it_is_told(sample_bag, tmp_path, capsys):
    counts = []
    for begin in ("0", "3"):
        with pytest.raises(SystemExit):
            main(["view", str(sample_bag), "--begin", begin, "--save", str(tmp_path / f"{begin}.rrd")])
        counts.append(int(capsys.readouterr().out.split()[-2]))
    assert 1000 < counts[1] < 0.8 * counts[0]
    with pytest.raises(SystemExit) as ended:
        main(["view", str(sample_bag), "--begin", "300", "--save", str(tmp_path / "none.rrd")])
    assert ended.value.code == 2
    assert "none of its topics after 300 s is known" in capsys.readouterr().err


@NEEDS_RERUN
def test_what_comes_before_the_simulators_clock_is_not_half_a_century_away(tmp_path):
    import rerun

    from fastwam_msgs.msg import BridgeStatus
    from fastwam_policy.visualization.rerun_view import SessionView
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot, target, recording = RobotConfig.load(), tmp_path / "session.rrd", rerun.RecordingStream("fastwam")
    recording.save(target)
    _, show = SessionView(robot, recording).handlers()[robot.interfaces.bridge_status]
    for second in (0, 1000):
        message = BridgeStatus(reason_text=f"said at {second}")
        message.header.stamp.sec = second
        show(message)
    recording.disconnect()
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-vvv", str(target)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "said at 1000" in listed
    assert "said at 0" not in listed


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
