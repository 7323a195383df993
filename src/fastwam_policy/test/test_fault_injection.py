"""The fault table measures what it says, and no fault breaks a limit."""

import json
from functools import partial

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.fault_injection import injection
from fastwam_policy.fault_injection.fault_table import BEGIN, END, Row, extremes, time_to_hold, write_table
from fastwam_policy.fault_injection.faults import FAULTS
from galaxea_r1lite_bridge.robot.config import LimitArrays
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

LIMITS = LimitArrays(*(np.array([value]) for value in (-1.0, 1.0, 2.0, 10.0, np.inf)))
MS = 1_000_000
KILLED = "SIGKILL of policy_node"


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


def motion(positions, periods=10):
    positions = np.array(positions)[:, None]
    periods = np.broadcast_to(np.array(periods) * MS, len(positions))
    dt = np.minimum(periods[1:] / 1e9, 0.02)[:, None]
    velocities = np.concatenate([[[0.0]], np.diff(positions, axis=0) / dt])
    return extremes(np.cumsum(periods), positions, velocities, LIMITS, 0.02)


def test_extremes_find_every_violation():
    good = motion(0.5 * 10 * (0.01 * np.arange(15)) ** 2)
    assert good.acceleration == pytest.approx(1.0)
    assert not good.violations
    assert motion(np.linspace(0, 0.5, 20)).velocity == pytest.approx(0.5 / 19 / 0.01 / 2)
    assert motion([0.0, 0.0, 0.001, 0.004, 0.004]).violations, "acceleration"
    assert motion([0.0, 0.02, 0.05]).violations, "velocity"
    assert motion([0.999, 0.9995, 1.0, 1.0005]).violations == 1, "position"
    assert motion([0.0, np.nan, 0.0]).violations
    late = motion([0.0, 0.02, 0.04, 0.06, 0.1], [10, 10, 10, 10, 60])
    assert late.velocity == pytest.approx(1.0), "a late tick may move as far as two periods allow"


def test_time_to_hold():
    times = [0.0, 0.1, 0.2, 0.3, 0.4]
    assert time_to_hold(times, [1, 1, 1, 0, 0], 0.1, 0.5) == pytest.approx(0.1)
    assert time_to_hold(times, [1, 1, 1, 1, 1], 0.1, 0.5) is None
    assert time_to_hold(times, [1, 1, 1, 1, 1], 0.1, 2.0) == pytest.approx(0.3), "nothing is sent any more"
    assert time_to_hold(times, [0, 0, 0, 0, 0], 0.1, 0.5) == 0.0


def test_the_table_replaces_what_is_between_its_marks(tmp_path):
    row = Row("a fault", "HOLDING", "201 PLAN_STALE", True, 0.5, 0.9, 1.0, 0)
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\noutdated\n{END}\nafter\n")
    for _ in range(2):
        write_table(path, [row], "Measured here.")
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "outdated" not in text
    assert text.count("| a fault | HOLDING |") == 1
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="the marks"):
        write_table(path, [row], "")


@pytest.mark.slow
@pytest.mark.alone
def test_faults_end_as_they_should_and_no_limit_is_passed(tmp_path, monkeypatch):
    """Real nodes, killed, stopped and fed with nonsense: each third fault of `fastwam check-safety`, to save time."""
    injected = [fault for index, fault in enumerate(FAULTS) if index % 3 == 0 or fault.name == KILLED]
    monkeypatch.setattr(injection, "check_safety", partial(injection.check_safety, faults=injected))
    figures = tmp_path / "faults.json"
    status = run("check-safety", "--json", figures)
    rows = json.loads(figures.read_text())
    assert [row["fault"] for row in rows] == [fault.name for fault in injected]
    assert len(rows) >= 40
    assert [row for row in rows if row["violations"]] == []
    assert [row for row in rows if not row["as_expected"]] == []
    assert status == 0
    killed = next(row for row in rows if row["fault"] == KILLED)
    assert 0 < killed["to_hold"] < 3
    assert killed["velocity"] > 0, "and no violations, which allow for the clocks' jitter"
