"""`fastwam benchmark`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fastwam_policy.common.arguments import (
    add_json,
    add_policy,
    add_robot,
    add_workers,
    number,
    numbers,
    policy_source,
    write_figures,
)

if TYPE_CHECKING:
    from fastwam_policy.benchmarks.base import Benchmark, Task

NAME, GROUP = "benchmark", "evaluate"
HELP = "how often a policy succeeds in a benchmark's tasks, by the benchmark's own protocol; an interrupted run goes on"
EXAMPLE = "./fastwam benchmark libero noop --suite libero_object --tasks 0-1 --trials 2"
NAMES = ("libero", "libero-pro", "robotwin", "sim")
_PROTOCOLS = ("fastwam", "openpi", "lerobot")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("benchmark", choices=NAMES)
    add_policy(parser, about="; noop does nothing, expert is the benchmark's own, where it has one")
    add_tasks(parser)
    parser.add_argument(
        "--blind", action="store_true", help="the policy sees the mean of its training pictures, whatever is there"
    )
    parser.add_argument(
        "--output", type=Path, help="folder to write or continue; output/benchmark/BENCHMARK/POLICY by default"
    )
    parser.add_argument("--videos", action="store_true", help="film failures, as the policy saw them, into the folder")
    add_workers(parser)
    add_robot(parser)
    add_json(parser)


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """What :func:`chosen_benchmark` and :func:`chosen_tasks` take, but for `--robot` and the benchmark's name."""
    parser.add_argument(
        "--suite", action="append", metavar="NAME",
        help="some of its suites, of which a wrong name lists all; several may be given (default: its official ones)",
    )  # fmt: skip
    parser.add_argument("--tasks", type=numbers, metavar="LIST", help="of each suite, such as 0,3-5; all by default")
    parser.add_argument("--trials", type=number(int, least=1), metavar="N", help="the first N of each task")
    parser.add_argument("--protocol", choices=_PROTOCOLS, help="whose rules for LIBERO (default fastwam)")
    parser.add_argument(
        "--assets", type=Path, metavar="FOLDER", help="of RoboTwin; without, a stand-in that is no score"
    )


def run(given: argparse.Namespace) -> int:
    """Play the episodes that are missing, print the figures and write the page."""
    from dataclasses import replace

    from fastwam_policy.benchmarks.base import EXPERT, NOOP
    from fastwam_policy.benchmarks.figures import summarise, tables, write_report
    from fastwam_policy.benchmarks.results import BLIND_EPISODES, Results
    from fastwam_policy.benchmarks.run import how, run
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.common.files import alone_in

    benchmark = chosen_benchmark(given)
    tasks = chosen_tasks(benchmark, given)
    source = given.policy if given.policy in (NOOP, EXPERT) else policy_source(given.policy)
    about = how(benchmark, source, blind=given.blind)
    name = re.sub(r"[^\w.-]+", "_", source if "://" in source else Path(source).name)
    folder = given.output or Path("output") / "benchmark" / benchmark.name / name
    with alone_in(folder):
        results = {False: Results(folder, replace(about, blind=False))}
        if given.blind or (folder / BLIND_EPISODES).exists():
            results[True] = Results(folder, replace(about, blind=True))
        run(benchmark, results[given.blind], tasks, given.trials, given.where, film=given.videos)
        episodes = [each.of(tasks, given.trials) for each in results.values()]
        figures = summarise(benchmark, results[False].how, tasks, *episodes)
        page = write_report(folder, figures)
    console = PlainConsole()
    for table in tables(figures):
        console.print(table)
    console.print(f"report: {page}")
    write_figures(given.json, figures)
    return 0


def chosen_benchmark(given: argparse.Namespace) -> Benchmark:
    """The benchmark of that name; ConfigError where an option is another's."""
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    name, libero_names = given.benchmark, ("libero", "libero-pro")
    own = {"--protocol": libero_names, "--assets": ("robotwin",), "--robot": ("sim",)}
    for option, value in (("--protocol", given.protocol), ("--assets", given.assets), ("--robot", given.robot)):
        if value is not None and name not in own[option]:
            raise ConfigError(f"{option} is for {' and '.join(own[option])}, not for {name}")
    if name == "sim":
        from fastwam_policy.common.processes import require_simulator

        require_simulator()
        from fastwam_policy.benchmarks.sim import Sim

        return Sim(given.robot)
    if name == "robotwin":
        from fastwam_policy.benchmarks.robotwin import RoboTwin

        return RoboTwin(given.assets)
    from fastwam_policy.benchmarks.libero import libero, libero_pro

    return (libero if name == "libero" else libero_pro)(given.protocol or _PROTOCOLS[0])


def chosen_tasks(benchmark: Benchmark, given: argparse.Namespace) -> list[Task]:
    """The tasks that `--suite` and `--tasks` ask for; ConfigError names what there is not."""
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    suites = given.suite or benchmark.official
    if unknown := [suite for suite in suites if suite not in benchmark.suites]:
        raise ConfigError(f"--suite {unknown[0]}: {benchmark.title} has {', '.join(benchmark.suites)}")
    tasks = benchmark.tasks(list(dict.fromkeys(suites)))
    for index in given.tasks or ():
        if all(task.number != index for task in tasks):
            raise ConfigError(f"--tasks {index}: the last task is {max(task.number for task in tasks)}")
    return [task for task in tasks if not given.tasks or task.number in given.tasks]
