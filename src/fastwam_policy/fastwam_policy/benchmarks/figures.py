"""Figures of a benchmark: success by task and suite with intervals, beside what others published.

A success rate alone does not show that a policy looks: where things lie in the same places, it can know them by heart.
So what it reaches with its things moved, and blind, stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fastwam_policy.benchmarks.base import MOVED, Benchmark, Episode, Task
from fastwam_policy.benchmarks.results import How
from fastwam_policy.common.statistics import success_interval
from fastwam_policy.reports.page import write_page

PAGE = "report.html"
_HOUR = 3600.0  # s
COMPARED = "A policy that does as well blind has not looked. Blind, it saw the mean of its training pictures."


def summarise(
    benchmark: Benchmark, how: How, tasks: Sequence[Task], episodes: Sequence[Episode], blind: Sequence[Episode] = ()
) -> dict[str, Any]:
    """All figures of these tasks' episodes: times in s and ms, success as a share, intervals of 95 % (Wilson).

    `blind` are those in which the policy of `how` was blind.
    """
    suites = _suites(tasks, episodes)
    official = [found["success"] for found in _official(suites).values()]
    return {
        "how": asdict(how),
        "benchmark": benchmark.title,
        "note": benchmark.note,
        "average": float(np.mean(official)) if official else None,
        "suites": suites,
        "blind": _suites(tasks, blind),
        "remarks": benchmark.remarks(episodes),
        "simulators": sorted({episode.simulator for episode in episodes or blind if episode.simulator}),
        "published": [{**asdict(row), "suites": dict(row.suites)} for row in benchmark.published],
        "episodes": [asdict(episode) for episode in episodes],
        "blind_episodes": [asdict(episode) for episode in blind],
    }


def _suites(tasks: Sequence[Task], episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of each suite that has episodes, and of its tasks."""
    suites = {}
    for suite in dict.fromkeys(task.suite for task in tasks):
        rows = []
        for task in tasks:
            own = [episode for episode in episodes if episode.key[:2] == (task.suite, task.number)]
            if task.suite == suite and own:
                rows.append({"task": task.number, "instruction": task.instruction, **_success(own)})
        own = [episode for episode in episodes if episode.suite == suite]
        if own:
            protocol = sum(task.trials for task in tasks if task.suite == suite)
            suites[suite] = {**_success(own), "protocol_episodes": protocol, "tasks": rows}
    return suites


def _success(episodes: Sequence[Episode]) -> dict[str, Any]:
    successes = [episode for episode in episodes if episode.success]
    return {
        "episodes": len(episodes),
        "successes": len(successes),
        "success": len(successes) / len(episodes),
        "success_interval": success_interval(len(successes), len(episodes)),
        "steps_of_successes": float(np.mean([episode.steps for episode in successes])) if successes else None,
        "seconds": float(np.mean([episode.seconds for episode in episodes])),
        "inference_ms": float(np.median([episode.inference_ms for episode in episodes])),
        "failures": dict(Counter(episode.failure for episode in episodes if not episode.success)),
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    """The figures for a terminal; last, where things were moved or the policy blind, all that side by side."""
    shown = Table(title=_title(figures), caption="\n".join(notes(figures)))
    for name in ("task", "success", "95 %", "steps", "s each", "failures"):
        shown.add_column(name)
    for suite, found in _listed(figures).items():
        *tasks, (_, whole) = _rows(found)
        for name, cells in tasks:
            shown.add_row(name, *cells)
        shown.add_row(suite, *whole, style="bold", end_section=True)
    columns, rows = comparison(figures)
    if not rows:
        return [shown]
    compared = Table(*columns, title=_title(figures), caption=COMPARED)
    for row in rows:
        compared.add_row(*row)
    return [shown, compared]


def comparison(figures: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: of each suite the success as it is, with its things moved, and both blind, where there is any.

    No rows where there is nothing to compare.
    """
    suites, blind = figures["suites"], figures["blind"]
    kinds = {
        "official": (suites, ""), "things moved": (suites, MOVED), "blind": (blind, ""),
        "blind, things moved": (blind, MOVED),
    }  # fmt: skip
    names = list(dict.fromkeys(suite.removesuffix(MOVED) for suite in [*suites, *blind]))
    columns = {
        title: [_compared(found.get(name + end)) for name in names]
        for title, (found, end) in kinds.items()
        if any(name + end in found for name in names)
    }
    if not columns.keys() - {"official"}:
        return [], []
    return ["suite", *columns], [list(row) for row in zip(names, *columns.values(), strict=True)]


def _compared(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    success, _, *_ = _cells(row)
    low, high = row["success_interval"]
    return f"{success} ({100 * low:.0f} to {100 * high:.0f})"


def _official(suites: dict[str, Any]) -> dict[str, Any]:
    """Those that others have published figures of, too."""
    return {suite: found for suite, found in suites.items() if not suite.endswith(MOVED)}


def _listed(figures: dict[str, Any]) -> dict[str, Any]:
    """All suites, those of the blind policy last, by what they are called."""
    return figures["suites"] | {f"{suite}, blind": found for suite, found in figures["blind"].items()}


def notes(figures: dict[str, Any]) -> list[str]:
    """What belongs below the table: a sentence each."""
    suites = figures["suites"]
    lines = [figures["note"]] if figures["note"] else []
    if len(_official(suites)) > 1:
        lines.append(f"average of the suites: {100 * figures['average']:.1f} %")
    lines += [f"{row['name']} ({row['source']}): {_published(row)}" for row in figures["published"]]
    if remaining := _remaining(_listed(figures)):
        lines.append(remaining)
    lines += figures["remarks"]
    if len(figures["simulators"]) > 1:
        lines.append(f"not all by the same simulator: {'; '.join(figures['simulators'])}")
    broken = [episode for episode in figures["episodes"] + figures["blind_episodes"] if episode["broken"]]
    if broken:
        names = ", ".join(f"{each['suite']} {each['task']} trial {each['trial']}" for each in broken)
        lines.append(f"the simulator died twice, counted as failures, tried again by the same command: {names}")
    return lines


def write_report(folder: Path, figures: dict[str, Any]) -> Path:
    """Write the page with the figures; its path."""
    suites, how = _official(figures["suites"]), figures["how"]
    columns = list(dict.fromkeys([*suites, *(name for row in figures["published"] for name in row["suites"])]))
    ours = {
        "name": Path(how["source"]).name, "source": "these episodes",
        "average": None if figures["average"] is None else 100 * figures["average"],
        "suites": {name: 100 * suite["success"] for name, suite in suites.items()},
    }  # fmt: skip
    write_page(
        folder / PAGE,
        "benchmark.html.jinja",
        title=_title(figures),
        note=figures["note"],
        columns=columns,
        rows=[ours, *figures["published"]],
        compared=comparison(figures),
        compared_note=COMPARED,
        suites={name: _rows(suite) for name, suite in _listed(figures).items()},
        notes=notes(figures),
        about={
            **{name: how[name] for name in ("benchmark", "source", "policy")},
            **how["protocol"],
            "simulator": "; ".join(figures["simulators"]),
        },
        failures=[
            (prefix, episode)
            for prefix, episodes in (("", "episodes"), ("blind_", "blind_episodes"))
            for episode in figures[episodes]
            if not episode["success"]
        ],
        videos={path.stem for path in folder.glob("failures/*.mp4")},
    )
    return folder / PAGE


def _title(figures: dict[str, Any]) -> str:
    return f"{figures['benchmark']}: {Path(figures['how']['source']).name}"


def _rows(suite: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """A name and cells for each task of a suite, and for all of it."""
    return [*((f"{row['task']} {row['instruction']}", _cells(row)) for row in suite["tasks"]), ("all", _cells(suite))]


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["success_interval"]
    steps = row["steps_of_successes"]
    return [
        f"{row['successes']} of {row['episodes']}: {100 * row['success']:.0f} %",
        f"{100 * low:.0f} to {100 * high:.0f}",
        "-" if steps is None else f"{steps:.0f}",
        f"{row['seconds']:.1f}",
        "; ".join(f"{count} x {failure}" for failure, count in row["failures"].items()),
    ]


def _published(row: dict[str, Any]) -> str:
    parts = [f"{suite} {value:g}" for suite, value in row["suites"].items()]
    return f"{row['average']:g} %" + (f" ({', '.join(parts)})" if parts else "")


def _remaining(suites: dict[str, Any]) -> str:
    """What all trials of the protocol would take, where not all were played."""
    played = sum(suite["episodes"] for suite in suites.values())
    whole = sum(suite["protocol_episodes"] for suite in suites.values())
    seconds = sum(suite["protocol_episodes"] * suite["seconds"] for suite in suites.values())
    if played == whole:
        return ""
    hours = f"{seconds / _HOUR:.1f} h of one process"
    return f"{played} of these tasks' {whole} episodes; extrapolated, all would take {hours}"
