"""`fastwam check-recording`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, add_robot, new_file, write_figures

NAME, GROUP = "check-recording", "check"
HELP = "what is wrong with recordings of the robot, before they are converted"
EXAMPLE = "./fastwam check-recording bags/towel_fold_sample"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("recordings", type=Path, nargs="+", help="rosbag2 folders, .mcap or .db3")
    parser.add_argument("--quick", action="store_true", help="decode no picture")
    parser.add_argument("--html", type=new_file, metavar="PATH", help="write a page with pictures of the worst")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """1 where something is wrong."""
    from fastwam_policy.common.console import printable
    from fastwam_policy.reports.data_checks import check_recording, write_check_page
    from fastwam_policy.reports.findings import lines
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot = RobotConfig.load(given.robot)
    checked = [check_recording(path, robot, quick=given.quick) for path in given.recordings]
    print(printable("\n".join(lines(checked))))
    if given.html:
        write_check_page(given.html, checked, "Recordings")
    write_figures(given.json, [each.figures() for each in checked])
    return int(any(each.findings for each in checked))
