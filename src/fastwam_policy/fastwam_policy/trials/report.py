"""Figures of a session of trials: for the terminal, as CSV and JSON, and as one HTML page."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from fastwam_policy.common.files import write_json
from fastwam_policy.common.progress import counted
from fastwam_policy.common.statistics import paired_p, quartiles, success_interval, unpaired_p
from fastwam_policy.reports.page import png, style_figures, write_page
from fastwam_policy.reports.report import report_session
from fastwam_policy.trials.plan import LETTERS, Trial, TrialOutcome, TrialSession, TrialSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.contacts import TOUCHED, counts

_FIGURES = "summary.json"
_COUNTS = {"limits": "interventions", "watchdogs": "watchdogs"}
"""Counters of a trial, and what a session's summary calls them."""
_CONTACTS = {"own_contacts": "robot touched itself", "table_contacts": "robot touched the table"}
"""Those of the simulated robot's contacts, and what TOUCHED calls them."""
_COUNTERS = (*_COUNTS, *_CONTACTS)


def write_reports(session: TrialSession, robot: RobotConfig) -> dict[str, Any]:
    """Write trials.csv, trials.json, report.html, and the report of each trial that has none; return the figures."""
    rows = []
    with counted() as progress:
        task = progress.add_task("reports", total=len(session.trials))
        for trial, outcome in session.outcomes():
            rows.append(row_of(trial, outcome, _figures(session, trial, robot)))
            progress.advance(task)
    figures = summarise(session.settings, rows, session.unfinished)
    write_json(session.folder / "trials.json", figures)
    with (session.folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        columns = [name for name in rows[0] if name not in _COUNTERS]
        writer = csv.DictWriter(file, [*columns, *(f"{name}_events" for name in _COUNTERS)], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **{f"{name}_events": sum(row[name].values()) for name in _COUNTERS}} for row in rows)
    _write_html(session, figures)
    return figures


def _figures(session: TrialSession, trial: Trial, robot: RobotConfig) -> dict[str, Any]:
    """Summary of a trial's recording, computed once; an unreadable one leaves the outcome as it is."""
    folder = session.folder_of(trial)
    path = folder / _FIGURES
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    try:
        figures = report_session(folder, robot, f"Trial {trial.number} of {len(session.trials)}")
    except ConfigError as error:
        print(f"trial {trial.number}: its outcome counts, its recording cannot be used: {error}")
        return {}
    write_json(path, figures)
    return figures


def row_of(trial: Trial, outcome: TrialOutcome, figures: dict[str, Any]) -> dict[str, Any]:
    """One trial: plan, outcome, and what its recording says (`figures`, empty without one)."""
    latency = figures.get("latency", {}).get("total", {})
    return {
        **asdict(trial),
        "policy": LETTERS[trial.policy],
        **asdict(outcome),
        **{name: figures.get(theirs, {}) for name, theirs in _COUNTS.items()},
        **{name: counts(figures.get("contacts", {}), TOUCHED[theirs]) for name, theirs in _CONTACTS.items()},
        "chunks": figures.get("chunks"),
        "latency_p50": latency.get("p50"),
        "latency_p99": latency.get("p99"),
        "random_weights": figures.get("random_weights"),
    }


def summarise(settings: TrialSettings, rows: Sequence[dict[str, Any]], unfinished: int) -> dict[str, Any]:
    """All figures: times in s, latencies in ms, p50 as the median of the trials' and p99 as the largest of them."""
    letters = LETTERS[: len(settings.policies)]
    by_policy = {letter: [row for row in rows if row["policy"] == letter] for letter in letters}
    return {
        "settings": asdict(settings),
        "unfinished_attempts": unfinished,
        "policies": {
            letter: {"policy": policy, **_of_policy(by_policy[letter])}
            for letter, policy in zip(letters, settings.policies, strict=True)
        },
        "comparison": _compare(settings, *by_policy.values()) if len(letters) > 1 else None,
        "trials": list(rows),
    }


def _of_policy(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    successes = [row for row in rows if row["success"]]
    typical, worst = ([row[name] for row in rows if row[name] is not None] for name in ("latency_p50", "latency_p99"))
    return {
        "trials": len(rows),
        "successes": len(successes),
        "success_interval": success_interval(len(successes), len(rows)),
        "time_quartiles": quartiles([row["time"] for row in successes]),
        "interventions": sum(row["interventions"] for row in rows),
        **{name: dict(sum((Counter(row[name]) for row in rows), Counter())) for name in _COUNTERS},
        "latency_p50": float(np.median(typical)) if typical else None,
        "latency_p99": max(worst) if worst else None,
        "failures": dict(Counter(row["ended"] for row in rows if not row["success"])),
    }


def _compare(
    settings: TrialSettings, first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Difference of the success rates, A minus B, and how likely so large a one is between equal policies."""
    a, b = (sum(row["success"] for row in rows) for rows in (first, second))
    result: dict[str, Any] = {"difference": (a - b) / settings.trials}
    if settings.mode == "real":
        return {**result, "test": "Barnard's exact test", "p": unpaired_p(a, b, settings.trials)}
    pairs = zip(*(sorted(rows, key=lambda row: int(row["seed"])) for rows in (first, second)), strict=True)
    only = Counter((bool(one["success"]), bool(other["success"])) for one, other in pairs)
    alone = (only[True, False], only[False, True])
    return {**result, "test": "exact McNemar test of the scenes", "p": paired_p(*alone), "alone": list(alone)}


def texts(figures: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The figures as rows: a name, and a text for each policy."""
    columns = list(figures["policies"].values())
    rows = {
        "success": [_success(column) for column in columns],
        "time of successes": [_times(column) for column in columns],
        "interventions": [str(column["interventions"]) for column in columns],
        "limits began to act": [_counts(column["limits"]) for column in columns],
        "watchdogs began to act": [_counts(column["watchdogs"]) for column in columns],
        **{
            text: [_counts(column[name]) for column in columns]
            for name, text in _CONTACTS.items()
            if figures["settings"]["mode"] == "sim"
        },
        "latency": [_latency(column) for column in columns],
        "failures": [_counts(column["failures"]) for column in columns],
    }
    return list(rows.items())


def comparison_text(figures: dict[str, Any]) -> str:
    """One sentence about two policies, empty for one."""
    found = figures["comparison"]
    if found is None:
        return ""
    alone = "" if "alone" not in found else " In {} scenes only A succeeded, in {} only B.".format(*found["alone"])
    return f"Success of A minus B: {100 * found['difference']:+.0f} %, p = {found['p']:.2g} ({found['test']}).{alone}"


def table(figures: dict[str, Any]) -> Table:
    """The figures for a terminal."""
    settings = figures["settings"]
    shown = Table(title=f"Trials, mode {settings['mode']}", caption=comparison_text(figures) or None)
    shown.add_column("")
    for name in labels(figures):
        shown.add_column(name)
    for name, cells in texts(figures):
        shown.add_row(name, *cells)
    return shown


def labels(figures: dict[str, Any]) -> list[str]:
    """A name for each policy."""
    return [f"{letter}: {Path(column['policy']).name}" for letter, column in figures["policies"].items()]


def _success(column: dict[str, Any]) -> str:
    low, high = column["success_interval"]
    share = column["successes"] / column["trials"]
    return f"{column['successes']} of {column['trials']}: {100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"


def _times(column: dict[str, Any]) -> str:
    if column["time_quartiles"] is None:
        return "none"
    low, median, high = column["time_quartiles"]
    return f"median {median:.1f} s (quartiles {low:.1f} and {high:.1f} s)"


def _latency(column: dict[str, Any]) -> str:
    if column["latency_p50"] is None:
        return "no chunk"
    return f"p50 {column['latency_p50']:.0f} ms, p99 {column['latency_p99']:.0f} ms"


def _counts(counts: dict[str, int]) -> str:
    return "; ".join(f"{count} x {name}" for name, count in counts.items()) or "none"


def _numbers(counts: dict[str, int]) -> str:
    """The same in short: reasons by number only."""
    return _counts({name.split()[0]: count for name, count in counts.items()})


def _write_html(session: TrialSession, figures: dict[str, Any]) -> None:
    style_figures()
    settings = session.settings
    about = {
        "mode": f"sim, randomization {settings.randomization}" if settings.mode == "sim" else "real",
        "instruction": settings.instruction or "the policy's default",
        "time limit": f"{settings.time_limit:g} s",
        "attempts that were cut off and done again": str(figures["unfinished_attempts"]),
    }
    weights = zip(labels(figures), settings.policies, settings.weights, strict=True)
    about |= {f"policy {label}": f"{policy}, weights: {size}" for label, policy, size in weights}
    write_page(
        session.folder / "report.html",
        "trials.html.jinja",
        title=f"Trials: {session.folder.name}",
        about=about,
        random=any(row["random_weights"] for row in figures["trials"]),
        labels=labels(figures),
        texts=texts(figures),
        comparison=comparison_text(figures),
        times=png(_time_figure(figures)),
        trials=[{**row, **{name: _numbers(row[name]) for name in _COUNTERS}} for row in figures["trials"]],
        simulated=settings.mode == "sim",
        links={trial.number: _link(session, trial) for trial in session.trials},
    )


def _link(session: TrialSession, trial: Trial) -> str:
    page = session.folder_of(trial) / "report.html"
    return page.relative_to(session.folder).as_posix() if page.exists() else ""


def _time_figure(figures: dict[str, Any]) -> Figure:
    """Each trial's time, one line a policy; the box holds the middle half of the successes."""
    names = labels(figures)
    figure = Figure(figsize=(9, 1.0 + 0.7 * len(names)), layout="constrained")
    axis = figure.subplots()
    for place, letter in enumerate(figures["policies"]):
        rows = [row for row in figures["trials"] if row["policy"] == letter]
        times, success = (np.array([row[name] for row in rows]) for name in ("time", "success"))
        height = place + (np.linspace(-0.15, 0.15, len(rows)) if len(rows) > 1 else np.zeros(1))
        if success.any():
            axis.boxplot(times[success], positions=[place], orientation="horizontal", widths=0.5, showfliers=False)
        for chosen, marker, color in ((success, "o", "tab:green"), (~success, "x", "tab:red")):
            axis.scatter(times[chosen], height[chosen], marker=marker, color=color, zorder=3)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="time [s]; circles: success, crosses: no success", ylim=(len(names) - 0.5, -0.5))
    axis.set_xlim(0, 1.05 * max(row["time"] for row in figures["trials"]) or None)
    return figure
