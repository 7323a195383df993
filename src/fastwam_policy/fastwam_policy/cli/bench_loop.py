"""`fastwam bench-loop`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, new_file, number, write_figures

NAME, GROUP = "bench-loop", "evaluate"
HELP = "time of the bridge's control step, and jitter of its thread compared with an rclpy timer"
EXAMPLE = "./fastwam bench-loop --rate 100 --seconds 5"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--rate", nargs="+", type=number(float, above=0), default=[100.0, 200.0], metavar="HZ")
    parser.add_argument("--seconds", type=number(float, least=1), default=15.0, help="for each rate (default 15)")
    parser.add_argument("--plot", type=new_file, metavar="PNG", help="write a histogram")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.launching.domain import private_domain
    from fastwam_policy.performance.control_step import measure_step
    from fastwam_policy.performance.loop_figures import plot, table
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    step = measure_step(RobotConfig.load(given.robot))
    PlainConsole().print(f"control step, nothing else running: p50 {step.p50:.2f} ms, p99 {step.p99:.2f} ms")
    with private_domain():
        from fastwam_policy.performance.control_loop import bench_loop

        results = bench_loop(given.rate, given.seconds, given.robot)
    PlainConsole().print(table(results))
    write_figures(given.json, {"step": vars(step), "rates": results})
    if given.plot:
        plot(results, given.plot)
    return 0
