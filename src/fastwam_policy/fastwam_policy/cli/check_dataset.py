"""`fastwam check-dataset`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, add_workers, new_file, new_folder, write_figures

NAME, GROUP = "check-dataset", "check"
HELP = "what is wrong with LeRobot datasets: structure, units, times, pictures, outliers, duplicates"
EXAMPLE = "./fastwam check-dataset data/mine --fix data/fixed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("datasets", nargs="+", help="folders or addresses, version 2.1 or 3.0")
    parser.add_argument("--policy", metavar="POLICY", help="compare the joints with those that this policy knows")
    parser.add_argument("--quick", action="store_true", help="decode no picture")
    parser.add_argument("--html", type=new_file, metavar="PATH", help="write a page with pictures of the worst")
    parser.add_argument(
        "--fix", type=new_folder, metavar="FOLDER", help="write the episodes that can be used into a new one"
    )
    add_workers(parser, 1)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """1 where something is wrong."""
    from fastwam_policy.common.console import printable
    from fastwam_policy.reports.data_checks import check_dataset, write_check_page, write_fixed
    from fastwam_policy.reports.findings import lines
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot, info = RobotConfig.load(given.robot), None
    if given.policy:
        from fastwam_policy.policies.loading import inspect_policy

        info = inspect_policy(given.policy)
    checked = [check_dataset(place, robot, info, quick=given.quick, where=given.where) for place in given.datasets]
    print(printable("\n".join(lines(checked))))
    if given.html:
        write_check_page(given.html, checked, "Datasets")
    if given.fix:
        print(f"{write_fixed(checked, given.fix, robot)} episodes are in {given.fix}")
    write_figures(given.json, [each.figures() for each in checked])
    return int(any(each.findings for each in checked))
