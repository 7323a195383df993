"""`fastwam report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, add_robot, write_figures

NAME, GROUP = "report", "evaluate"
HELP = "rebuild summary and report of a session"
EXAMPLE = "./fastwam report output/sessions/20250101_120000"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("session", type=Path, help="folder that holds recording/")
    parser.add_argument("--bag", type=Path, help="recording that was replayed, for its camera images")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Write report.html and print the summary."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.reports.report import report_session
    from fastwam_policy.reports.summary import table
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot = RobotConfig.load(given.robot)
    summary = report_session(given.session, robot, f"Session {given.session.name}", given.bag)
    PlainConsole().print(table(summary))
    write_figures(given.json, summary)
    print(f"report: {given.session / 'report.html'}")
    return 0
