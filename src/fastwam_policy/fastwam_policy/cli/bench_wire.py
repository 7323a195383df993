"""`fastwam bench-wire`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, number, write_figures

NAME, GROUP = "bench-wire", "evaluate"
HELP = "latency that `fastwam serve` adds to an inference; see docs/results/benchmarks.md"
EXAMPLE = "./fastwam bench-wire --requests 200"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--requests", type=number(int, least=1), default=1000, help="of each form (default 1000)")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the table."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.performance.wire import bench_wire, table
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    results = bench_wire(RobotConfig.load(given.robot), given.requests)
    PlainConsole().print(table(results))
    write_figures(given.json, results)
    return 0
