"""Benchmarks: the frame that all share, with a simulator of our own in another process; and the towel in it."""

import importlib
import io
import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from rich.console import Console

from fastwam_policy.benchmarks import simulator
from fastwam_policy.benchmarks.apart.pipe import receive, send
from fastwam_policy.benchmarks.base import MOVED, Episode, SimulatorDiedError, Task
from fastwam_policy.benchmarks.blind import blinded
from fastwam_policy.benchmarks.figures import comparison, notes, summarise, tables, write_report
from fastwam_policy.benchmarks.results import BLIND_EPISODES, EPISODES, Results
from fastwam_policy.benchmarks.run import LOG, Job, how, play, run
from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.parallel import THIS_PROCESS, Where
from fastwam_policy.common.processes import shipped_bundle
from fastwam_policy.policies.base import Channel
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .point_benchmark import INFO, INTERFACE, TRIALS, Center, Looker, PointBenchmark, Remembering, start

CENTER = f"{Path(__file__).parent / 'point_benchmark.py'}:Center"
LOOKER = CENTER.replace("Center", "Looker")


def status_of(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def benchmark(tmp_path):
    return PointBenchmark(tmp_path)


def jobs_of(benchmark, tmp_path, source="noop", trials=(0, 1), film=False):
    return Job(benchmark, source, benchmark.tasks(["near"])[1], trials, tmp_path, film)


def test_messages_keep_numbers_and_arrays():
    message = {"ask": "step", "look": True, "actions": np.arange(6.0).reshape(2, 3), "deep": [{"a": np.uint8([[1]])}],
               "count": np.int64(3), "empty": np.zeros((0, 7))}  # fmt: skip
    stream = io.BytesIO()
    send(stream, message)
    send(stream, {"last": 1})
    stream.seek(0)
    got = receive(stream.read)
    np.testing.assert_array_equal(got.pop("actions"), message.pop("actions"))
    assert got["deep"][0]["a"].dtype == np.uint8
    assert got["empty"].shape == (0, 7)
    assert got["count"] == 3
    assert receive(stream.read) == {"last": 1}
    with pytest.raises(EOFError):
        receive(stream.read)
    for refused in ({"a": {1}}, {"a": np.array([None])}):
        with pytest.raises(TypeError, match="plain data and arrays of numbers"):
            send(stream, refused)


def test_a_simulator_is_isolated_and_says_what_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    simulator = start(tmp_path / LOG)
    found = simulator.ask("modules")
    assert not [name for name in found["modules"] if name.startswith(("fastwam", "galaxea", "torch", "pydantic"))]
    assert "/somewhere/else" not in found["path"]
    with pytest.raises(RunError, match="the simulator refused: two numbers, not 3"):
        simulator.ask("step", actions=np.zeros((1, 3)), look=False)
    simulator.ask("open", folder=str(tmp_path))
    simulator.ask("begin", trial=0, look=True)
    assert "trial 0 begins" in (tmp_path / LOG).read_text(), "what it prints is no message"
    (tmp_path / "sleeps").touch()
    with pytest.raises(SimulatorDiedError, match="did not answer within 0.1 s"):
        simulator.ask("begin", patience=0.1, trial=0, look=False)
    simulator.close()


def test_a_policy_and_a_simulator_in_lockstep(benchmark, tmp_path):
    first, second = play(jobs_of(benchmark, tmp_path, CENTER))
    assert (first.suite, first.task, first.trial, second.trial) == ("near", 1, 0, 1)
    assert first.success
    assert 0 < first.steps < 30
    assert first.inference_ms > 0
    assert first.simulator == "point 1"
    assert all((first.initial, first.actions, first.final, first.picture))
    again = list(play(jobs_of(benchmark, tmp_path, CENTER)))
    assert [replace(each, seconds=0, inference_ms=0) for each in again] == [
        replace(each, seconds=0, inference_ms=0) for each in (first, second)
    ]
    nothing, _ = play(jobs_of(benchmark, tmp_path))
    assert (nothing.success, nothing.failure, nothing.steps, nothing.picture) == (False, "not done in time", 30, "")
    assert nothing.initial == nothing.final == first.initial
    assert next(play(jobs_of(benchmark, tmp_path, "expert"))).success


def test_a_policy_sees_what_it_asks_for(benchmark, tmp_path):
    task = benchmark.tasks(["near"])[0]
    policy = Center()
    benchmark.open(task, policy, tmp_path / LOG, film=False).play(2, None)
    stamps = [observation.stamp_ns for observation in policy.seen]
    assert stamps == [k * 300_000_000 for k in range(len(stamps))], "it replans every third step"
    assert policy.seen[0].images["above"].shape == (8, 8, 3)
    assert policy.seen[0].instruction == "go home 0"
    policy = Remembering()
    benchmark.open(task, policy, tmp_path / LOG, film=False).play(2, None)
    assert len(policy.told) == len(policy.seen) - 1
    actions, frames = policy.told[0]
    assert actions.shape == (3, 2)
    assert [frame.stamp_ns for frame in frames] == [200_000_000]
    assert policy.seen[1].earlier[0].stamp_ns == 100_000_000
    assert policy.seen[0].earlier[0].stamp_ns == 0


def test_what_does_not_fit_is_named():
    INTERFACE.check(INFO, "any")
    odd = replace(INFO, state=(Channel("x", "mm"),), action=INFO.action[:1], action_kind="absolute")
    with pytest.raises(ConfigError) as refused:
        INTERFACE.check(odd, "odd")
    text = str(refused.value)
    assert "odd does not fit the benchmark" in text
    for line in ("absolute; the simulator takes delta", "state: x (mm); there is x (m), y (m)", "action: dy (m); the"):
        assert line in text


def test_all_instructions_that_a_policy_lacks_are_named_at_once(benchmark, tmp_path):
    told = [Task("near", k, f"go  home {k}", TRIALS, told=True) for k in range(3)]
    tasks = [*told, Task("near", 3, "as the scene says", TRIALS), replace(told[2], number=4)]
    results = Results(tmp_path, how(benchmark, CENTER.replace("Center", "Knowing")))
    with pytest.raises(ConfigError) as error:
        run(benchmark, results, tasks, None, 1)
    assert str(error.value).endswith("BUNDLE --file FILE`:\ngo home 0\ngo home 2")
    assert not results.of(tasks, None), "before anything is played"


def test_a_simulator_that_dies_is_started_again_once(benchmark, tmp_path):
    (tmp_path / "dies").write_text("1 1")
    episodes = list(play(jobs_of(benchmark, tmp_path, trials=(0, 1, 2))))
    assert [(each.trial, each.broken) for each in episodes] == [(0, False), (1, False), (2, False)]
    (tmp_path / "dies").write_text("1 2")
    episodes = list(play(jobs_of(benchmark, tmp_path, trials=(0, 1, 2))))
    assert [(each.trial, each.broken) for each in episodes] == [(0, False), (1, True), (2, False)]
    assert "the simulator died twice: the simulator ended (status 3: " in episodes[1].failure
    assert "out of luck" in episodes[1].failure
    assert "all of it is in" in episodes[1].failure


def test_a_simulator_that_dies_while_it_loads_is_started_again_once(tmp_path, monkeypatch):
    begun = []

    class Dying:
        def __init__(self, python, place, log, environment):
            begun.append(self)
            self.closed = False

        def ask(self, question, **about):
            if about["what"] == "refused":
                raise RunError("the simulator refused: no")
            if len(begun) <= about["what"]:
                raise SimulatorDiedError("out of memory")
            return {"ok": question}

        def close(self):
            self.closed = True

    monkeypatch.setattr(simulator, "SimulatorProcess", Dying)
    monkeypatch.setenv("FASTWAM_POINT_PYTHON", sys.executable)
    start = partial(simulator.started, "point", "Point", "a:B", tmp_path / "log", {}, "open")
    assert start(what=1) == (begun[1], {"ok": "open"})
    begun.clear()
    with pytest.raises(RunError, match=f"Point does not start with {sys.executable}: out of memory"):
        start(what=2)
    assert len(begun) == 2
    with pytest.raises(RunError, match="refused: no"):
        start(what="refused")
    assert begun[-1].closed


def test_an_interrupted_run_goes_on(benchmark, tmp_path, capsys):
    folder, about, tasks = tmp_path / "out", how(benchmark, "noop"), benchmark.tasks(["near"])
    run(benchmark, Results(folder, about), tasks, 1, where=THIS_PROCESS)
    with (folder / EPISODES).open("a") as file:
        file.write('{"suite": "near", "task": 0, "tri')  # it was killed while it wrote
    (tmp_path / "dies").write_text("1 99")
    results = Results(folder, about)
    run(benchmark, results, tasks[:1], 3, where=THIS_PROCESS)
    shown = capsys.readouterr().out
    assert "1 of 3 episodes are in" in shown
    assert "near, task 0, trial 1: the simulator died twice" in shown
    assert [each.broken for each in results.of(tasks[:1], 3)] == [False, True, False]
    (tmp_path / "dies").unlink()
    results = Results(folder, about)
    assert results.missing(tasks[0], None) == [1, 3], "what is broken is tried again"
    run(benchmark, results, tasks, None, where=THIS_PROCESS)
    episodes = Results(folder, about).of(tasks, None)
    assert [each.key for each in episodes] == [("near", task, trial) for task in range(2) for trial in range(TRIALS)]
    assert not any(each.broken for each in episodes)
    whole = Results(tmp_path / "whole", about)
    run(benchmark, whole, tasks, None, where=THIS_PROCESS)
    assert [replace(each, seconds=0, inference_ms=0) for each in whole.of(tasks, None)] == [
        replace(each, seconds=0, inference_ms=0) for each in episodes
    ], "the same as in one go"
    with pytest.raises(ConfigError, match="begun with other settings:\n  policy: noop -> expert 1"):
        Results(folder, how(benchmark, "expert"))
    with pytest.raises(ConfigError, match="is not empty and was not written by benchmark"):
        Results(tmp_path, about)


def test_what_is_not_as_it_was_written_is_left_alone(benchmark, tmp_path):
    folder, about, tasks = tmp_path / "out", how(benchmark, "noop"), benchmark.tasks(["near"])
    run(benchmark, Results(folder, about), tasks, 1, where=THIS_PROCESS)
    file = folder / EPISODES
    good = file.read_bytes()
    damaged = b"\n".join([*good.split(b"\n")[:2], 20 * b"\0", b"\xff\xfe" + good[:30]])
    for content, message in (
        (damaged, r"episodes.jsonl, line 3 holds no episode: remove the line to play that episode again"),
        (b'{"episode_index": 0}\n{"episode_index": 1}', "was not written by benchmark; name another output folder"),
        (b"text without an end", "was not written by benchmark"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            Results(folder, about)
        assert file.read_bytes() == content
    file.write_bytes(b"\n".join([*good.split(b"\n")[:2], b"\xff\xfe" + good[:30]]))
    assert len(Results(folder, about).of(tasks, 1)) == 1, "the end of the last line is missing"
    assert file.read_bytes() == b"\n".join(good.split(b"\n")[:2]) + b"\n"
    file.write_bytes(b"")  # a full disk
    Results(folder, about)
    assert file.read_bytes() == good[: good.index(b"\n") + 1]


def test_a_policy_that_fails_is_named(benchmark, tmp_path):
    for name, message in (
        ("NotFinite", "the policy center gave actions that are not finite"),
        ("Failing", "the policy center failed: KeyError: 'boom'"),
        ("Misnamed", "the policy center failed: ValueError: .* is not in list"),
    ):
        with pytest.raises(RunError, match=message):
            list(play(jobs_of(benchmark, tmp_path, CENTER.replace("Center", name))))


@pytest.mark.nodes
def test_several_processes_share_the_tasks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the other processes must find it
    benchmark = importlib.import_module("point_benchmark").PointBenchmark(tmp_path)
    about, tasks = how(benchmark, CENTER), benchmark.tasks(["near", "far"])
    results = Results(tmp_path / "out", about)
    run(benchmark, results, tasks, 1, where=Where(workers=2))
    assert [each.key for each in results.of(tasks, 1)] == [(task.suite, task.number, 0) for task in tasks]
    source = CENTER.replace("Center", "Killer")
    with pytest.raises(RunError, match="one of 2 worker processes was killed"):
        run(benchmark, Results(tmp_path / "killed", how(benchmark, source)), tasks, 1, where=Where(workers=2))


def test_figures_stand_beside_those_of_others(benchmark, tmp_path):
    tasks, folder = benchmark.tasks(["near", "far"]), tmp_path / "out"
    (tmp_path / "dies").write_text("0 2")
    about = how(benchmark, "noop")
    results = Results(folder, about)
    run(benchmark, results, tasks, 2, where=THIS_PROCESS, film=True)
    figures = summarise(benchmark, about, tasks, results.of(tasks, 2))
    suite = figures["suites"]["near"]
    assert (suite["episodes"], suite["successes"], suite["protocol_episodes"]) == (4, 0, 8)
    assert suite["success_interval"] == pytest.approx([0.0, 0.4899], abs=1e-4)  # Wilson, 0 of 4
    assert [row["task"] for row in suite["tasks"]] == [0, 1]
    lines = notes(figures)
    assert lines[0] == "a stand-in"
    assert "Others (nowhere): 90 % (near 95, far 85)" in lines
    assert any(line.startswith("8 of these tasks' 16 episodes; extrapolated") for line in lines)
    assert any("died twice, counted as failures" in line and "near 0 trial 0" in line for line in lines)
    shown = io.StringIO()
    Console(file=shown, width=200).print(*tables(figures))
    assert "0 of 4: 0 %" in shown.getvalue()
    assert len(tables(figures)) == 1, "nothing was moved, nobody was blind"
    page = write_report(folder, figures).read_text()
    assert "a stand-in" in page
    assert 'href="failures/near_1_001.mp4"' in page
    with av.open(str(folder / "failures" / "near_1_001.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 5
    json.dumps(figures)


def test_a_blind_policy_sees_what_it_saw_in_training_on_average(benchmark, tmp_path):
    policy, task = Looker(), benchmark.tasks(["near"])[0]
    blind = blinded(policy, "looker")
    assert not blind.info.cameras
    benchmark.open(task, blind, tmp_path / LOG, film=False).play(2, None)
    mean = policy.mean_pictures()
    frames = [frame for seen in policy.seen for frame in (seen, *seen.earlier)]
    frames += [frame for _, key_frames in policy.told for frame in key_frames]
    assert len(frames) > len(policy.seen) > 1
    assert len(policy.told) == len(policy.seen) - 1
    assert all(np.array_equal(frame.images["above"], mean["above"]) for frame in frames)
    assert all(frame.joints for frame in frames), "it feels where it is"
    with pytest.raises(ConfigError, match="--blind: expert looks at no pictures anyway"):
        blinded(None, "expert")
    with pytest.raises(ConfigError, match="--blind: noop looks at no pictures anyway"):
        blinded(benchmark.policy("noop"), "noop")
    with pytest.raises(ConfigError, match="--blind: center does not say what the mean of its training pictures is"):
        blinded(Center(), "center")


def test_what_it_did_blind_is_kept_apart(benchmark, tmp_path):
    folder, tasks = tmp_path / "out", benchmark.tasks(["near"])[:1]
    about = how(benchmark, LOOKER, blind=True)
    seeing = Results(folder, replace(about, blind=False))
    assert seeing.how == how(benchmark, LOOKER)
    run(benchmark, seeing, tasks, 2, where=THIS_PROCESS)
    blind = Results(folder, about)
    assert blind.missing(tasks[0], 2) == [0, 1], "what it did seeing is not done blind"
    run(benchmark, blind, tasks, 2, where=THIS_PROCESS, film=True)
    assert len(list((folder / "failures").glob("blind_near_0_*.mp4"))) == 2
    again = [Results(folder, replace(about, blind=flag)).of(tasks, 2) for flag in (False, True)]
    assert again == [seeing.of(tasks, 2), blind.of(tasks, 2)]
    assert [each.success for each in again[0]] == [True, True]
    assert [each.success for each in again[1]] == [False, False]
    assert all(each.picture for each in again[0])
    page = write_report(folder, summarise(benchmark, seeing.how, tasks, *again)).read_text()
    assert 'href="failures/blind_near_0_001.mp4"' in page
    assert "Does it look?" in page
    (folder / EPISODES).rename(folder / BLIND_EPISODES)
    with pytest.raises(ConfigError, match="begun with other settings:\n  blind: False -> True"):
        Results(folder, about)


def test_official_moved_and_blind_stand_side_by_side(benchmark):
    def played(suite, successes):
        return [
            Episode(suite=suite, task=0, trial=k, success=k < successes, failure="", steps=1, seconds=1.0)
            for k in range(4)
        ]

    tasks = [Task(suite, 0, "go", 4) for suite in ("near", "near" + MOVED, "far")]
    figures = summarise(
        benchmark, how(benchmark, "noop"), tasks, played("near", 4) + played("near" + MOVED, 1) + played("far", 2),
        played("near", 3),
    )  # fmt: skip
    assert figures["average"] == 0.75, "of what others have figures of"
    assert comparison(figures) == (
        ["suite", "official", "things moved", "blind"],
        [
            ["near", "4 of 4: 100 % (51 to 100)", "1 of 4: 25 % (5 to 70)", "3 of 4: 75 % (30 to 95)"],
            ["far", "2 of 4: 50 % (15 to 85)", "", ""],
        ],
    )
    shown = io.StringIO()
    for table in tables(figures):
        Console(file=shown, width=200).print(table)
    assert "near, blind" in shown.getvalue()
    assert "1 of 4: 25 % (5 to 70)" in shown.getvalue()


def test_our_simulator_in_the_same_frame(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.benchmarks.sim import Sim

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    figures = tmp_path / "figures.json"
    assert status_of("benchmark", "sim", "expert", "--suite", "none", "--tasks", "1", "--trials", "1",
                     "--json", figures) == 0  # fmt: skip
    (episode,) = json.loads(figures.read_text())["episodes"]
    assert episode["success"]
    assert episode["task"] == 1
    assert 60 < episode["steps"] < 130
    assert "1 of 1: 100 %" in capsys.readouterr().out
    assert (tmp_path / "output" / "benchmark" / "sim" / "expert" / "report.html").exists()
    short = Sim(time_limit=0.4)
    task = short.tasks(["full"])[0]
    opened = short.open(task, short.policy("noop"), tmp_path / LOG, film=True)
    one, other = opened.play(7, tmp_path / "failure.mp4"), opened.play(7, None)
    assert not one.success
    assert (tmp_path / "failure.mp4").exists()
    assert (one.initial, one.actions, one.final) == (other.initial, other.actions, other.final)
    assert one.initial != one.final
    assert status_of("benchmark", "sim", shipped_bundle(), "--suite", "none") == 2, "before the first task is played"
    assert "does not know the instructions below" in (said := capsys.readouterr().err)
    assert "\nput the cube on the mat" in said
    assert "\nfold the towel" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chess", "noop"], "argument benchmark: invalid choice"),
        (["sim", "noop", "--suite", "silk"], "--suite silk: Simulated R1 Lite has none, objects, full"),
        (["sim", "noop", "--tasks", "0-3"], "--tasks 2: the last task is 1"),
        (["sim", "noop", "--tasks", "3-1"], "argument --tasks: must be numbers below 100000 such as 0,3-5, got '3-1'"),
        (["sim", "noop", "--tasks", "0-3000000000"], "must be numbers below 100000 such as 0,3-5, got '0-3000000000'"),
        (["sim", "noop", "--json", "kept/episodes.jsonl"], "such a file keeps episodes, and would be lost"),
        (["sim", "noop", "--protocol", "openpi"], "--protocol is for libero and libero-pro, not for sim"),
        (["sim", "noop", "--blind"], "--blind: noop looks at no pictures anyway"),
        (["libero", "noop"], "FASTWAM_LIBERO_PYTHON: /nowhere: no such program"),
        (["libero", "noop", "--robot", __file__], "--robot is for sim, not for libero"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    if arguments[0] == "sim":
        pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    monkeypatch.setitem(os.environ, "FASTWAM_LIBERO_PYTHON", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert status_of("benchmark", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
