"""`fastwam compare`: the paper's question at small scale: every variant with the same data, size and steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fastwam_policy.common.console import PlainConsole
from fastwam_policy.common.parallel import EVERY_CORE, Where
from fastwam_policy.common.statistics import paired_p
from fastwam_policy.model.variants import VARIANTS, VariantName
from fastwam_policy.simulation.episode import EpisodeSettings
from fastwam_policy.simulation.evaluate import evaluate
from fastwam_policy.training.config import TrainingConfig
from fastwam_policy.training.trainer import SUMMARY_FILE, check_output, train


def compare(
    config: TrainingConfig,
    output: Path,
    seeds: Sequence[int],
    settings: EpisodeSettings,
    where: Where = EVERY_CORE,
    robot: Path | None = None,
) -> list[dict[str, Any]]:
    """Train each variant into a folder of `output`, then evaluate it in each of its modes on the same seeds.

    What is done is not done again; an interrupted training continues. Where `start_from` is the output of an earlier
    comparison, each variant continues from its own weights there.

    Raises:
        ConfigError: as :func:`train`; also where a folder was trained with another configuration.
    """
    rows = []
    for name, variant in VARIANTS.items():
        folder = output / name
        own = of_variant(config, name)
        check_output(own, folder)
        if not (folder / SUMMARY_FILE).exists():
            PlainConsole().print(Text(name, "bold"))
            train(own, folder, robot, where)
        trained = json.loads((folder / SUMMARY_FILE).read_text())
        for mode in variant.modes:
            figures = folder / f"eval_{mode}.json"
            found = evaluate(str(folder / "bundle"), seeds, settings, where, mode=mode, figures=figures, robot=robot)
            rows.append({"variant": name, "mode": mode, "training": trained, **found})
    return rows


def of_variant(config: TrainingConfig, name: VariantName) -> TrainingConfig:
    """`config` for one variant."""
    policy = config.policy.model_copy(update={"variant": name, "name": name})
    start = config.start_from
    if start is not None and (start / name / "bundle").is_dir():
        start = start / name / "bundle"
    return config.model_copy(update={"policy": policy, "start_from": start})


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The comparison for a terminal; p is of equal success with the first row, on the same seeds (McNemar)."""
    shown = Table(title="Variants, trained and evaluated alike")
    columns = ("variant", "mode", "success (95 %)", "p", "time to success", "inference", "open-loop error", "training")
    for name in columns:
        shown.add_column(name)
    for row in rows:
        low, high = row["success_interval"]
        training, time = row["training"], row["time_mean"]
        shown.add_row(
            row["variant"], row["mode"], f"{100 * row['success']:.0f} % ({100 * low:.0f} to {100 * high:.0f})",
            "-" if row is rows[0] else f"{_equal(rows[0], row):.2f}",
            "-" if time is None else f"{time:.1f} s", f"{row['inference_ms_median']:.0f} ms",
            f"{training['validation/rad']:.4f} rad" if row["mode"] == VARIANTS[row["variant"]].modes[0] else "-",
            f"{training['seconds'] / 60:.0f} min",
        )  # fmt: skip
    return shown


def _equal(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The p value of equal success rates (McNemar)."""
    folded = [{each["seed"] for each in row["outcomes"] if each["success"]} for row in (one, other)]
    return paired_p(len(folded[0] - folded[1]), len(folded[1] - folded[0]))
