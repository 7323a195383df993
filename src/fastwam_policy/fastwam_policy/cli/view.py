"""`fastwam view`."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from fastwam_policy.common.arguments import add_robot, new_file, number

NAME, GROUP = "view", "run"
HELP = "the running nodes, or a recorded session, in the Rerun viewer"
EXAMPLE = "./fastwam view bags/towel_fold_sample --web"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "session", type=Path, nargs="?", help="folder of a session, or a recording; none: the live nodes"
    )
    parser.add_argument("--web", action="store_true", help="in a browser, on this machine only")
    parser.add_argument("--save", type=new_file, metavar="RRD", help="write a file for the viewer instead")
    parser.add_argument(
        "--begin", type=number(float, least=0), default=0.0, metavar="S", help="leave out the session's first seconds"
    )
    parser.add_argument("--namespace", default="", help="namespace of the live nodes")
    add_robot(parser)


def run(given: argparse.Namespace) -> int:
    """Show it until the recording, the nodes or the user end."""
    from fastwam_policy.common.processes import require_viewer
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    require_viewer()
    from fastwam_policy.visualization.view import shown, view_session

    robot = RobotConfig.load(given.robot)
    with shown(given.save, web=given.web) as recording:
        if given.session is None:
            from fastwam_policy.visualization.live_view import live_view

            live_view(recording, robot, given.namespace)
        else:
            print(f"{view_session(given.session, robot, recording, given.begin)} messages")
            if given.web:
                print("Ctrl-C ends the viewer")
                signal.pause()
    return 0
