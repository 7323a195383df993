"""Trials: plan, resumption, statistics and report; then whole sessions with the real nodes."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fastwam_msgs.msg import ActionChunk, BridgeStatus, DropCount, RobotContact, SimulationStatus
from fastwam_policy.cli.main import main
from fastwam_policy.common.processes import has_simulator
from fastwam_policy.common.statistics import difference_interval, paired_p, quartiles, success_interval, unpaired_p
from fastwam_policy.reports.session import Session as Recorded
from fastwam_policy.reports.summary import rows as summary_rows
from fastwam_policy.reports.summary import summarise as summarise_session
from fastwam_policy.trials.plan import TrialOutcome, TrialSession, TrialSettings, make_plan, with_policies
from fastwam_policy.trials.report import comparison_text, row_of, summarise, texts, write_reports
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .pseudo_terminal import Terminal

ROBOT = RobotConfig.load()
TWO = TrialSettings(("/bundles/one", "/bundles/other"), ("1 byte", "2 bytes"), 10, "sim", "", 20.0, "objects", 100)
# Two shared cores are not a robot's: what is tested here is not its timing.
PATIENT = {
    "watchdog.feedback_age.limit": 2.0, "watchdog.overrun.limit": 1.0, "watchdog.feedback_jump.limit": 3.0,
    "watchdog.chunk_age.limit": 10.0,
}  # fmt: skip

LOADING = 240.0  # s for a command, and for the policy node of a trial


def random(seed=0):
    return np.random.default_rng(seed)


def test_each_block_of_the_plan_holds_every_bundle_once_and_the_order_is_drawn():
    plan = make_plan(TWO, random())
    assert [trial.number for trial in plan] == list(range(1, 21))
    blocks = [plan[k : k + 2] for k in range(0, 20, 2)]
    assert all({trial.policy for trial in block} == {0, 1} for block in blocks)
    assert [{trial.seed for trial in block} for block in blocks] == [{100 + k} for k in range(10)], "equal scenes"
    assert {block[0].policy for block in blocks} == {0, 1}
    assert plan != make_plan(TWO, random(1))
    alone = make_plan(replace(TWO, policies=TWO.policies[:1]), random())
    assert [(trial.policy, trial.seed) for trial in alone] == [(0, 100 + k) for k in range(10)]


def test_a_session_goes_on_where_it_was_cut_off_and_loses_nothing(tmp_path):
    session = TrialSession(tmp_path / "session", TWO, random())
    first, second, *_ = session.missing()
    session.begin(first)
    session.finish(first, TrialOutcome(True, 7.5, "folded"))
    for attempt in range(2):
        folder = session.begin(second)
        (folder / "recording").mkdir()
        (folder / "trial.tmp").write_text('{"success": tr')  # the disk was full
        again = TrialSession(tmp_path / "session", TWO, random(attempt + 1))
        assert again.trials == session.trials, "the plan is not drawn again"
        assert again.missing() == session.trials[1:]
    session.begin(second)
    session.finish(second, TrialOutcome(False, 20.0, "misplaced", 1))
    assert [outcome for _, outcome in session.outcomes()] == [
        TrialOutcome(True, 7.5, "folded"), TrialOutcome(False, 20.0, "misplaced", 1),
    ]  # fmt: skip
    kept = sorted(path.name for path in (tmp_path / "session" / "trials").iterdir())
    assert kept == ["0001", "0002", "0002_unfinished1", "0002_unfinished2"]
    assert (tmp_path / "session" / "trials" / "0002_unfinished1" / "recording").is_dir()
    assert session.unfinished == 2


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    TrialSession(tmp_path / "session", TWO, random())
    other = replace(TWO, time_limit=30.0, weights=("1 byte", "3 bytes"))
    with pytest.raises(ConfigError, match=r"(?s)weights\[1\]: 2 bytes -> 3 bytes.*time_limit: 20.0 -> 30.0"):
        TrialSession(tmp_path / "session", other, random())
    (tmp_path / "thesis").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty and was not written by trials"):
        TrialSession(tmp_path, TWO, random())


def test_a_session_of_another_version_is_read(tmp_path):
    """Older ones did not count interventions; newer ones say more."""
    session = TrialSession(tmp_path, TWO, random())
    session.begin(session.trials[0])
    session.finish(session.trials[0], TrialOutcome(True, 7.5, "folded", 2))
    path = session.folder_of(session.trials[0]) / "trial.json"
    written = json.loads(path.read_text())
    del written["interventions"]
    path.write_text(json.dumps(written | {"weather": "fine"}))
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["trials"][0]["weather"] = "fine"
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    again = TrialSession(tmp_path, TWO, random())
    assert again.outcomes() == [(session.trials[0], TrialOutcome(True, 7.5, "folded", 0))]


def test_bundles_are_checked_before_anything_starts(random_bundle, tmp_path):
    settings = with_policies(TWO, [str(random_bundle)], ROBOT)
    assert settings.policies == (str(random_bundle),)
    assert re.fullmatch(r"sha256 [0-9a-f]{64} [0-9a-f]{12}", settings.weights[0])
    with pytest.raises(ConfigError, match="does not know the instruction 'dance', but: .*fold the towel"):
        with_policies(replace(TWO, instruction="dance"), [str(random_bundle)], ROBOT)
    with pytest.raises(ConfigError, match="not a policy bundle"):
        with_policies(TWO, [str(tmp_path)], ROBOT)


def test_statistics():
    # Wilson's formula for 8 of 10 with z = 1.95996.
    assert success_interval(8, 10) == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert success_interval(0, 10)[0] == 0
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == [2.0, 3.0, 4.0]
    assert quartiles([]) is None
    assert paired_p(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert paired_p(0, 0) == 1.0
    # The example of scipy's documentation, there one-sided: 7 and 12 of 15.
    assert unpaired_p(7, 12, 15) == pytest.approx(2 * 0.0341, abs=2e-4)


def test_the_difference_of_two_rates_has_an_interval_of_trainings_and_trials():
    random = np.random.default_rng(0)
    one, other = random.random((1, 400)) < 0.7, random.random((1, 400)) < 0.5
    low, high = difference_interval(one, other, draws=2000)
    width = 1.96 * float(np.sqrt(np.var(one[0].astype(int) - other[0]) / 400))
    assert (low, high) == pytest.approx(
        (one.mean() - other.mean() - width, one.mean() - other.mean() + width), abs=0.01
    )
    assert difference_interval(one, one, draws=9) == [0, 0], "paired: the same trials"
    lucky = np.stack([np.ones(400, bool), np.zeros(400, bool)])  # one training in two does everything
    assert difference_interval(lucky, other, draws=2000) == pytest.approx([-other.mean(), 1 - other.mean()], abs=0.06)


def rows(first, second):
    """Ten trials of each bundle; these seeds succeed, after as many s."""
    figures = {
        "interventions": {"502 acceleration": 2}, "watchdogs": {"301 stale": 1}, "chunks": 9,
        "latency": {"total": {"p50": 40.0, "p99": 80.0}}, "random_weights": False,
        "contacts": {"arm-arm": {"count": 1}, "finger-table": {"count": 2}, "link-table": {"count": 0}},
    }  # fmt: skip
    result = []
    for trial in make_plan(TWO, random()):
        success = trial.seed in (first, second)[trial.policy]
        result.append(row_of(trial, TrialOutcome(success, trial.seed, "" if success else "lost"), figures))
    return result


def test_two_bundles_are_compared_scene_by_scene_in_the_simulator():
    first, second = {100, 101, 102, 103, 104}, {104, 105}
    figures = summarise(TWO, rows(first, second), 0)
    a, b = figures["policies"]["A"], figures["policies"]["B"]
    assert (a["successes"], b["successes"], a["trials"]) == (5, 2, 10)
    assert a["time_quartiles"] == [101.0, 102.0, 103.0]
    assert (a["failures"], a["limits"], a["watchdogs"]) == ({"lost": 5}, {"502 acceleration": 20}, {"301 stale": 10})
    assert (a["latency_p50"], a["latency_p99"]) == (40.0, 80.0)
    assert (a["own_contacts"], a["table_contacts"]) == ({"arm-arm": 10}, {"finger-table": 20})
    assert dict(texts(figures))["robot touched itself"] == ["10 x arm-arm"] * 2
    comparison = figures["comparison"]
    assert (comparison["alone"], comparison["difference"]) == ([4, 1], pytest.approx(0.3))
    assert comparison["p"] == pytest.approx(paired_p(4, 1))
    assert "McNemar" in comparison_text(figures)
    real = summarise(replace(TWO, mode="real"), rows(first, second), 0)
    assert real["comparison"]["p"] == pytest.approx(unpaired_p(5, 2, 10))
    assert "robot touched itself" not in dict(texts(real)), "nobody knows"


def test_the_report_needs_no_recording(tmp_path, capsys):
    session = TrialSession(tmp_path / "session", replace(TWO, trials=2), random())
    for trial in session.missing():
        session.begin(trial)
        session.finish(trial, TrialOutcome(trial.number == 1, 7.25, "folded" if trial.number == 1 else "<misplaced>"))
    write_reports(session, ROBOT)
    assert "its outcome counts, its recording cannot be used" in capsys.readouterr().out
    page = (session.folder / "report.html").read_text()
    assert "A: one" in page
    assert "&lt;misplaced&gt;" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    with (session.folder / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["success"] for row in table] == ["True", "False", "False", "False"]
    assert Counter(row["policy"] for row in table) == {"A": 2, "B": 2}


def test_limits_and_watchdogs_are_counted_from_the_recording_on():
    def status(state, reason, limits):
        return BridgeStatus(
            state=state, reason=reason, interventions=[DropCount(reason=502, text="acceleration", count=limits)]
        )

    tracking, stale = (State.TRACKING, Reason.NONE), (State.STOPPING, Reason.FEEDBACK_STALE)
    told = [(State.DISARMED, Reason.FEEDBACK_STALE), tracking, stale, stale, tracking, stale, tracking]
    data = Recorded(1.0, bridge_status=[status(*one, 7 + k) for k, one in enumerate(told)])
    figures = summarise_session(data, ROBOT)
    assert figures["interventions"] == {"502 acceleration": 6}
    assert figures["watchdogs"] == {f"301 {Reason.FEEDBACK_STALE.text}": 2}


def test_what_the_simulated_robot_touched_is_in_the_summary():
    touched = RobotContact(kind="arm-body", first="left_arm_link4", second="torso_link3", depth=4.24, count=2)
    figures = summarise_session(Recorded(1.0, simulation=[SimulationStatus(contacts=[touched])]), ROBOT)
    assert figures["contacts"]["arm-body"]["count"] == 2
    lines = dict(summary_rows(figures))
    assert lines["robot touched itself"] == "2 x arm-body (deepest 4.2 mm, left_arm_link4 with torso_link3)"
    assert lines["robot touched the table"] == "never"
    without = summarise_session(Recorded(1.0), ROBOT)
    assert without["contacts"] == {}
    assert "robot touched itself" not in dict(summary_rows(without))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--n", "0"], "--n: must be at least 1"),
        (["--time-limit", "0"], "--time-limit: must be above 0"),
        (["--policy", "b", "--policy", "c"], "--policy is given once, or twice"),
    ],
)
def test_wrong_options_are_refused(random_bundle, tmp_path, option, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["trials", str(tmp_path / "session"), "--mode", "real", "--policy", str(random_bundle), *option])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "session").exists()


def processes_of(folder):
    """Node processes whose command line names `folder`."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read()
        except OSError:
            continue
        if str(folder).encode() in line and b"_node" in line:
            found.append(int(entry))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not has_simulator(), reason="MuJoCo 4 has no wheel for Python 3.10")
def test_a_session_in_the_simulator_is_killed_and_goes_on(ros, random_bundle, tmp_path, capsys):
    folder = tmp_path / "session"
    arguments = ["trials", str(folder), "--n", "1", "--time-limit", "1", "--policy", str(random_bundle)]
    killed = subprocess.Popen([sys.executable, "-m", "fastwam_policy.cli", *arguments])
    try:
        ros.until(lambda: processes_of(random_bundle), LOADING)
    finally:
        killed.kill()
        killed.wait()
    ros.until(lambda: not processes_of(random_bundle))  # no node outlives the command

    def run(*more):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        return ended.value.code, capsys.readouterr()

    status, shown = run()
    assert status == 0, shown
    before = shown.out.partition("reports")[0]
    assert "trial 1 of 1" in before
    assert random_bundle.name not in before, "blinded until the report"
    assert "0 of 1: 0 % (0 to 79 %)" in shown.out
    figures = json.loads((folder / "trials.json").read_text())
    (trial,) = figures["trials"]
    assert (trial["success"], trial["ended"], trial["seed"]) == (False, "no corner grasped", 0)
    assert trial["time"] >= 1.0
    assert figures["unfinished_attempts"] == 1
    page = (folder / "report.html").read_text()
    assert re.findall(r"href=\"(?!data:)([^\"]*)", page) == ["trials/0001/report.html"]
    assert "data:image/jpeg" in (folder / "trials/0001/report.html").read_text(), "cameras are recorded"

    assert "1 of 1 trials are there already" in run()[1].out
    status, shown = run("--first-seed", "5")
    assert status == 2
    assert "first_seed: 0 -> 5" in shown.err


@pytest.mark.slow
@pytest.mark.alone
def test_an_operator_runs_trials_on_the_robot(ros, random_bundle, tmp_path):
    ros.start("galaxea_r1lite_bridge", "emulator_node", camera_rate=10.0, feedback_rate=60.0)
    ros.start("galaxea_r1lite_bridge", "bridge_node", home_speed=1.0, **PATIENT)
    bridge = ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)
    chunks = ros.collect(ActionChunk, ROBOT.interfaces.action_chunk)
    ros.until(lambda: bridge and all(stream.received > 20 for stream in bridge[-1].feedback))

    def state():
        return State(bridge[-1].state)

    def let_it_run():
        ros.until(lambda: state() == State.TRACKING)
        before = len(chunks)
        ros.until(lambda: len(chunks) > before + 5)  # longer than it takes the new nodes to find each other

    folder = tmp_path / "session"
    terminal = Terminal("trials", folder, "--mode", "real", "--n", "2", "--policy", random_bundle)
    try:
        ros.until(lambda: terminal.shows("trial 1 of 2(?s:.*)moves the arms"), LOADING)
        assert state() == State.DISARMED
        terminal.press(" ")
        ros.until(lambda: state() == State.ESTOP)
        terminal.press("\n")
        ros.until(lambda: terminal.shows("arm: refused, 309"))
        terminal.press("r")
        ros.until(lambda: terminal.shows("released"))
        terminal.press("\n")
        ros.until(lambda: terminal.shows("Lay out the towel"), LOADING)
        ros.until(lambda: state() == State.DISARMED, 1.0)  # nothing moves while somebody reaches into the workspace
        terminal.press("\n")
        ros.until(lambda: terminal.shows(r"trial \d+ s"))
        let_it_run()
        terminal.press("i")
        ros.until(lambda: terminal.shows("no success after .*: stopped by the operator"))
        ros.until(lambda: state() == State.DISARMED, 1.0)

        ros.until(lambda: terminal.shows(r"trial 2 of 2(?s:.*)moves the arms"))
        terminal.press("\n")
        ros.until(lambda: terminal.shows(r"trial 2 of 2(?s:.*)Lay out"), LOADING)
        terminal.press("\n")
        let_it_run()
        terminal.press("y")
        ros.until(lambda: terminal.shows("success, says the operator"))
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
    trials = json.loads((folder / "trials.json").read_text())["trials"]
    assert [(trial["success"], trial["interventions"]) for trial in trials] == [(False, 1), (True, 0)]
    assert all(trial["chunks"] and trial["latency_p50"] > 0 for trial in trials)
