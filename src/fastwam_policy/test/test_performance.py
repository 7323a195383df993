"""The measuring commands measure, and count what is known."""

import json

import numpy as np
import pytest
import torch

from fastwam_policy.cli.main import main
from fastwam_policy.performance import engine_options
from fastwam_policy.performance.execution import Flow, read_reference
from fastwam_policy.performance.inference import Setup, count_gflop
from galaxea_r1lite_bridge.robot.config import RobotConfig

pytestmark = pytest.mark.integration


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


@pytest.mark.slow
def test_counted_arithmetic_of_the_full_model():
    """Known of the published code: 1221 GFLOP prefill, 105.7 a step, 571 for the autoencoder's frame."""
    setup = Setup("full", "fastwam", "eager", torch.bfloat16, 10, torch.device("cpu"))
    counted = count_gflop(setup, against_plain=True)
    assert counted["plain inference"] == pytest.approx(1221 + 10 * 105.7, rel=0.02)
    assert counted["plain vae"] == pytest.approx(571, rel=0.01)
    assert counted["inference"] <= 1600
    assert counted["vae"] <= 200.5


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("variant", ["joint", "idm"])
def test_imagining_the_future_costs_several_times_as_much(variant):
    setups = [Setup("tiny", name, "eager", torch.float32, 10, torch.device("cpu")) for name in ("fastwam", variant)]
    acting, imagining = (count_gflop(setup, against_plain=False)["inference"] for setup in setups)
    assert imagining > 4 * acting


def test_bench_writes_figures(tmp_path, capsys):
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    status = run(
        "bench", "--size", "tiny", "--dtype", "float32", "--steps", 2, "--repeats", 2, "--against", "plain",
        "--json", figures, "--plot", picture,
    )  # fmt: skip
    assert status == 0
    (result,) = json.loads(figures.read_text())
    stages = {
        "decode",
        "preprocess",
        "vae",
        "prompt",
        "prefill",
        "denoise",
        "each step",
        "postprocess",
        "image to chunk",
    }
    assert stages <= set(result["ms"])
    assert result["largest_difference"] < 1e-4
    assert result["vae_difference"] < 1e-4
    assert set(result["ratio"]) == {"vae", "inference", "image to chunk"}
    assert picture.stat().st_size > 1000
    assert "engine/plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("--repeats", 0), "at least 1"), (("--variant", "imagined"), "invalid choice: 'imagined'")],
)
def test_wrong_input(arguments, expected, capsys):
    assert run("bench", "--size", "tiny", *arguments) == 2
    assert expected in capsys.readouterr().err


def test_check_engine_prints_the_difference_of_every_option(random_bundle, tmp_path, monkeypatch):
    options = {name: engine_options.CHECKED[name] for name in engine_options.CHECKED if "compiled" not in name}
    monkeypatch.setattr(engine_options, "CHECKED", options)  # the compiler is tested with the engine
    figures = tmp_path / "check.json"
    assert run("check-engine", random_bundle, "--json", figures, "--denoise-steps", 1, 4) == 0
    result = json.loads(figures.read_text())
    assert set(result) == {*options, "1 denoise step", "4 denoise steps"}
    assert result["eager, float32"]["max_rad"] == 0
    assert 0 < result["eager, bfloat16"]["max_rad"] < 0.5
    assert result["4 denoise steps"]["mean_rad"] > 0


def test_samples_of_the_flow_have_its_distribution():
    steps = np.arange(8) / 15
    covariance = torch.from_numpy(np.exp(-0.5 * ((steps[:, None] - steps) / 0.3) ** 2) + 1e-6 * np.eye(8))
    mean = torch.linspace(0, 1, 8).double()[:, None].expand(8, 200)
    chunks = Flow(mean, covariance).sample(0)
    assert (chunks - mean).mean(dim=1).abs().max() < 0.25
    measured = torch.cov(chunks)
    assert (measured - covariance).abs().max() < 0.35, "ten Euler steps are not exact"


@pytest.mark.slow
def test_real_time_chunking_is_not_worse_than_switching(tmp_path):
    figures = tmp_path / "execution.json"
    assert run("bench-execution", "--latency", 0, 200, "--seeds", 2, "--json", figures) == 0
    rows = {(row["latency_ms"], row["mode"]): row for row in json.loads(figures.read_text())}
    assert set(rows) == {(latency, mode) for latency in (0, 200) for mode in ("switch", "ensemble", "rtc")}
    assert rows[200, "switch"]["seam_mean"] > 0.1, "the chunks disagree"
    assert rows[200, "rtc"]["seam_mean"] < 0.5 * rows[200, "switch"]["seam_mean"]
    assert all(row["peak_velocity"] <= 1 + 1e-6 for row in rows.values())
    assert all(0 <= row["without_plan"] < 0.2 for row in rows.values())


def test_a_recording_without_targets_is_named(short_bag, tmp_path, capsys):
    reference = read_reference(short_bag, RobotConfig.load())
    assert reference.at(np.array([-1.0, 0.0, 99.0])).shape == (3, 14)
    assert run("bench-execution", "--bag", tmp_path / "none") == 2
    assert "no such recording" in capsys.readouterr().err
    assert run("bench-execution", "--latency", 750) == 2


@pytest.mark.slow
@pytest.mark.alone
def test_bench_loop_measures_all_loops(tmp_path):
    figures, picture = tmp_path / "loop.json", tmp_path / "loop.png"
    assert run("bench-loop", "--rate", 100, "--seconds", 2, "--json", figures, "--plot", picture) == 0
    written = json.loads(figures.read_text())
    assert 0 < written["step"]["p50"] <= written["step"]["p99"]
    (result,) = written["rates"]
    assert set(result["loops"]) == {"deadline thread", "rclpy timer", "rclpy timer, decoding"}
    assert all(len(loop["periods"]) > 50 and loop["p99"] <= loop["longest"] for loop in result["loops"].values())
    assert picture.stat().st_size > 5000


def test_bench_wire_measures_both_forms(tmp_path, capsys):
    assert run("bench-wire", "--requests", 3, "--json", tmp_path / "wire.json") == 0
    raw, jpeg = json.loads((tmp_path / "wire.json").read_text())
    assert (raw["pictures"], jpeg["pictures"], raw["requests"]) == ("raw", "JPEG", 3)
    assert raw["bytes"] > 3 * 320 * 180 * 3 > jpeg["bytes"]
    assert 0 < raw["p50_ms"] <= raw["p99_ms"] <= raw["longest_ms"]
    assert "320 x 180" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.alone
def test_bench_nodes_measures_three_nodes_of_a_moving_robot(tmp_path, capsys):
    assert run("bench-nodes", "--seconds", 2, "--json", tmp_path / "nodes.json") == 0
    written = json.loads((tmp_path / "nodes.json").read_text())
    assert set(written["nodes"]) == {"bridge_node", "recorder_node", "monitor_node"}
    assert all(0 < node["cpu"] < 2 and node["memory"] > 10 for node in written["nodes"].values())
    assert written["tracking"] > 0.5
    assert "bridge_node: " in capsys.readouterr().out
