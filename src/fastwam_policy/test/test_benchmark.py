"""The measuring commands measure, and count what is known."""

import json

import pytest
import torch

from fastwam_policy.cli.main import main
from fastwam_policy.performance import engine_options
from fastwam_policy.performance.inference import Setup, count_gflop


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
    [(("--repeats", 0), "at least 1"), (("--variant", "idm", "--against", "plain"), "--against plain is for")],
)
def test_wrong_input(arguments, expected, capsys):
    assert run("bench", "--size", "tiny", *arguments) == 2
    assert expected in capsys.readouterr().err


def test_check_engine_prints_the_difference_of_every_option(random_bundle, tmp_path, monkeypatch):
    options = {name: engine_options.CHECKED[name] for name in engine_options.CHECKED if "compiled" not in name}
    monkeypatch.setattr(engine_options, "CHECKED", options)  # the compiler is tested with the engine
    figures = tmp_path / "check.json"
    assert run("check-engine", random_bundle, "--json", figures) == 0
    result = json.loads(figures.read_text())
    assert set(result) == set(options)
    assert result["eager, float32"]["max_rad"] == 0
    assert 0 < result["eager, bfloat16"]["max_rad"] < 0.5
    assert result["4 denoise steps"]["mean_rad"] > 0
