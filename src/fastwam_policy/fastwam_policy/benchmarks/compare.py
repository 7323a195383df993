"""`fastwam compare`: the paper's question at small scale: every variant with the same data, size, steps and order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from fastwam_policy.benchmarks.base import Benchmark, Task
from fastwam_policy.benchmarks.figures import summarise
from fastwam_policy.benchmarks.results import Results
from fastwam_policy.benchmarks.run import how, run, unknown_instructions
from fastwam_policy.common.console import PlainConsole
from fastwam_policy.common.files import alone_in
from fastwam_policy.common.parallel import EVERY_CORE, Where
from fastwam_policy.common.statistics import difference_interval, success_interval
from fastwam_policy.model.variants import VARIANTS, VariantName
from fastwam_policy.policies.fastwam.bundle import POLICY_FILE
from fastwam_policy.training.config import TrainingConfig
from fastwam_policy.training.datasets import open_datasets
from fastwam_policy.training.initialization import check_start, is_start
from fastwam_policy.training.output_folder import check_output
from fastwam_policy.training.trainer import SUMMARY_FILE, train
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def compare(
    config: TrainingConfig,
    output: Path,
    benchmark: Benchmark,
    tasks: Sequence[Task],
    trials: int | None,
    variants: Sequence[VariantName] = tuple(VARIANTS),
    trainings: int = 1,
    where: Where = EVERY_CORE,
    robot: Path | None = None,
) -> list[dict[str, Any]]:
    """Train each of `variants` `trainings` times, and evaluate each in each of its modes on the same trials.

    Training k of every variant has the seed `config.seed + k`: the same batches in the same order. What is done is not
    done again; an interrupted training or evaluation continues. All variants are trained once before any is trained
    again. Where `start_from` is the output of an earlier comparison, each continues from its own weights there.

    Returns:
        A row for each variant and mode, with its trainings and the figures of their episodes.

    Raises:
        ConfigError: as :func:`train`; also where a folder was trained with another configuration or other data.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    all_trainings = [(number, name) for number in range(trainings) for name in dict.fromkeys(variants)]
    for number, name in all_trainings:  # before hours of work
        own = of_variant(config, name, number)
        check_output(own, output / name / str(number))
        check_start(own.start_from)
    _check_benchmark(config, benchmark, tasks, robot)
    for number, name in all_trainings:
        folder = output / name / str(number)
        if not (folder / SUMMARY_FILE).exists():
            PlainConsole().print(Text(f"{name}, training {number + 1} of {trainings}", "bold"))
            begun = (output / other / str(k) / "bundle" for k, other in all_trainings)
            like = next((bundle for bundle in begun if (bundle / POLICY_FILE).exists()), None)
            train(of_variant(config, name, number), folder, robot, where, like)
        trained = _summary(folder / SUMMARY_FILE)
        for mode in VARIANTS[name].modes:
            row = rows.setdefault((name, mode), {"variant": name, "mode": mode, "trainings": []})
            about = how(benchmark, str(folder / "bundle"), mode=mode)
            with alone_in(folder / f"benchmark_{mode}"):
                results = Results(folder / f"benchmark_{mode}", about)
                run(benchmark, results, tasks, trials, where)
                figures = summarise(benchmark, about, tasks, results.of(tasks, trials))
            row["trainings"].append({"training": trained, **figures})
    return list(rows.values())


def of_variant(config: TrainingConfig, name: VariantName, number: int = 0) -> TrainingConfig:
    """`config` for training `number` of one variant."""
    steps = 1 if VARIANTS[name].regression else config.policy.denoise_steps
    policy = config.policy.model_copy(update={"variant": name, "name": name, "denoise_steps": steps})
    start = config.start_from
    if start is not None and not is_start(start):
        start = start / name / str(number) / "bundle"
    return config.model_copy(update={"policy": policy, "start_from": start, "seed": config.seed + number})


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The comparison for a terminal: how often they succeed, and what they cost; differences are from the first row."""
    shown = Table(
        *("variant", "success (95 %)", "each training", "difference (95 %)"), title="Variants, evaluated alike",
        caption="success: Wilson, of all episodes together. difference: bootstrap of trainings and of trials, paired",
    )  # fmt: skip
    costs = Table(
        *("variant", "steps", "inference", "open-loop error", "training"), title="The same, trained alike",
        caption="steps: of successes, mean. inference: median of the episodes. open-loop error: on held-out episodes",
    )  # fmt: skip
    for row in rows:
        success, episodes = successes(row), [e for training in row["trainings"] for e in training["episodes"]]
        low, high = success_interval(int(success.sum()), success.size)
        steps = [episode["steps"] for episode in episodes if episode["success"]]
        trained = [training["training"] for training in row["trainings"]]
        modes = VARIANTS[row["variant"]].modes
        name = row["variant"] + f", {row['mode']}" * (len(modes) > 1)
        shown.add_row(
            name, f"{100 * success.mean():.0f} % ({100 * low:.0f} to {100 * high:.0f})",
            ", ".join(f"{100 * each:.0f}" for each in success.mean(axis=1)),
            "-" if row is rows[0] else _difference(row, rows[0]),
        )  # fmt: skip
        costs.add_row(
            name, f"{np.mean(steps):.0f}" if steps else "-",
            f"{np.median([episode['inference_ms'] for episode in episodes]):.0f} ms",
            f"{np.mean([_error(each) for each in trained]):.4f}" if row["mode"] == modes[0] else "-",
            f"{np.mean([each['seconds'] for each in trained]) / 60:.0f} min",
        )  # fmt: skip
    return [shown, costs]


def successes(row: dict[str, Any]) -> NDArray[np.bool_]:
    """Which trials of a row succeeded, [trainings, trials]."""
    return np.array([[episode["success"] for episode in training["episodes"]] for training in row["trainings"]])


def _difference(row: dict[str, Any], first: dict[str, Any]) -> str:
    one, other = successes(row), successes(first)
    low, high = difference_interval(one, other)
    return f"{100 * (one.mean() - other.mean()):+.0f} ({100 * low:+.0f} to {100 * high:+.0f})"


def _check_benchmark(config: TrainingConfig, benchmark: Benchmark, tasks: Sequence[Task], robot: Path | None) -> None:
    """ConfigError where what is trained cannot be evaluated: it does not fit, or the datasets lack a task."""
    policy = config.policy
    known = {task for reader in open_datasets(config, robot) for episode in reader.episodes for task in episode.tasks}
    info = policy.info(policy.prompt_of(task) for task in known | {policy.prompt.default_instruction})
    benchmark.check(info, "what is trained")
    if unknown := unknown_instructions(info, tasks):
        raise ConfigError(
            "the datasets have no episode of the tasks below: choose others with --suite and --tasks, or name more "
            "datasets:\n" + "\n".join(unknown)
        )


def _summary(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        _error(found)
    except (AttributeError, ValueError, TypeError, StopIteration):
        raise ConfigError(f"{path} is damaged: remove it, and the training writes it again") from None
    return found


def _error(trained: dict[str, Any]) -> float:
    return float(next(value for key, value in trained.items() if key.startswith("validation/")))
