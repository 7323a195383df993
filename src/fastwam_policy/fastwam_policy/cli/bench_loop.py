"""`fastwam bench-loop`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, new_file, number, write_figures

NAME, GROUP = "bench-loop", "evaluate"
HELP = "jitter of the bridge's control thread beside an rclpy timer"
EXAMPLE = "./fastwam bench-loop --rate 100 --seconds 5"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--rate", nargs="+", type=number(float, above=0), default=[100.0, 200.0], metavar="HZ")
    parser.add_argument("--seconds", type=number(float, least=1), default=15.0, help="for each rate (default 15)")
    parser.add_argument("--plot", type=new_file, metavar="PNG", help="write a histogram")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the table."""
    from rich.console import Console

    from fastwam_policy.launching.domain import private_domain
    from fastwam_policy.performance.loop_figures import plot, table

    with private_domain():
        from fastwam_policy.performance.control_loop import bench_loop

        results = bench_loop(given.rate, given.seconds, given.robot)
    Console().print(table(results))
    write_figures(given.json, results)
    if given.plot:
        plot(results, given.plot)
    return 0
