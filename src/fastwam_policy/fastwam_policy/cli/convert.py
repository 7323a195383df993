"""`fastwam convert`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_lerobot_version,
    add_robot,
    add_workers,
    number,
    sentence,
    write_figures,
)

NAME, GROUP = "convert", "data"
HELP = "recordings of the robot as a LeRobot dataset"
EXAMPLE = './fastwam convert bags/towel_fold_sample --output data/mine --task "fold the towel"'

_HIGHEST = 4097  # pixels: what a picture may have is converted, and scaled to no more


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("recordings", type=Path, nargs="+", help="rosbag2 folders, .mcap or .db3: an episode each")
    parser.add_argument("--output", type=Path, required=True, help="dataset to write, or to append to")
    parser.add_argument("--task", type=sentence, default="fold the towel")
    parser.add_argument("--fps", type=number(int, least=1), default=15)
    parser.add_argument(
        "--max-skew", type=number(float, above=0), default=0.05, metavar="S",
        help="of joints to their frame (default %(default)s); a picture may be four times as old",
    )  # fmt: skip
    parser.add_argument("--height", type=_height, default=0, help="scale images to it; 0 leaves them (default)")
    parser.add_argument("--strict", action="store_true", help="stop at the first recording that gives no episode")
    add_workers(parser)
    add_lerobot_version(parser)
    add_robot(parser)
    add_json(parser)


def _height(text: str) -> int:
    height = number(int, least=0, below=_HIGHEST)(text)
    if height % 2:
        raise argparse.ArgumentTypeError(f"must be even, as the video codec wants it, got {text}")
    return height


def run(given: argparse.Namespace) -> int:
    """Append what is missing; 1 where some recordings were skipped."""
    from fastwam_policy.data.convert import convert
    from fastwam_policy.data.recorded_episode import ConvertSettings

    settings = ConvertSettings(given.task, given.fps, given.max_skew, given.height, given.format)
    found = convert(given.recordings, given.output, settings, given.where, given.robot, strict=given.strict)
    converted = len(given.recordings) - len(found.skipped) - len(found.left)
    if given.strict and found.skipped:
        print(f"stopped at the first recording that gives no episode; what was finished is in {given.output}")
    else:
        print(f"{converted} of {len(given.recordings)} recordings are in {given.output}")
    for notes in found.notes.values():
        print("".join(f"note: {note}\n" for note in notes), end="", file=sys.stderr)
    for reason in found.skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    figures = {
        "output": str(given.output),
        "converted": converted,
        "skipped": {str(path): reason for path, reason in found.skipped.items()},
        "notes": {str(path): notes for path, notes in found.notes.items()},
    }
    write_figures(given.json, figures)
    return int(bool(found.skipped))
