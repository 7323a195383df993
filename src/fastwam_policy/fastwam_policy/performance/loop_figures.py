"""Table and histogram of `fastwam bench-loop`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

DEADLINE_THREAD = "deadline thread"


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The figures for a terminal; ratios are those of the deadline thread over the loop of the line."""
    shown = Table(title="Control periods under camera and inference load")
    for name in ("wanted", "loop", "rate", "mean deviation", "p99", "longest", "ratio: deviation, p99, longest"):
        shown.add_column(name)
    for result in results:
        ours = result["loops"][DEADLINE_THREAD]
        for name, row in result["loops"].items():
            ratio = ", ".join(f"{ours[key] / row[key]:.2f}" for key in ("deviation", "p99", "longest"))
            shown.add_row(
                f"{result['rate']:g} Hz", name, f"{row['rate']:.1f} Hz", f"{row['deviation']:.2f} ms",
                f"{row['p99']:.1f} ms", f"{row['longest']:.1f} ms", "" if row is ours else ratio,
            )  # fmt: skip
        shown.add_section()
    return shown


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Histogram of the periods, one picture a rate."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axis, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        wanted = 1e3 / result["rate"]
        bins = np.linspace(0, 4 * wanted, 81)
        for name, row in result["loops"].items():
            axis.hist(np.minimum(row["periods"], bins[-1]), bins, histtype="step", lw=1.5, label=name)
        axis.set(xlabel="period [ms]; the last bin holds all longer ones", ylabel="ticks", yscale="log")
        axis.set_title(f"{result['rate']:g} Hz")
        axis.legend()
    figure.savefig(path, dpi=110)
