"""Rows of a LeRobot dataset that one core loads a second, with the pictures of all cameras: our reader, or LeRobot's.

    python scripts/loader_throughput.py ours FOLDER
    .venv-interop/lerobot/bin/python scripts/loader_throughput.py lerobot FOLDER

FOLDER has the version 3.0. Rows are read in order, as an episode's pictures are encoded, and one by one at random.
Decoders get one thread. What is opened once (the index, a file's times) is not counted.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def ours(folder: Path) -> tuple[int, Callable[[Sequence[int]], object]]:
    """Number of rows, and a function that loads some of them, ascending."""
    from fastwam_policy.data.bounded import read_json
    from fastwam_policy.data.lerobot_reader import Reader
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot = RobotConfig.load()
    reader = Reader(folder, robot, read_json(folder / "meta" / "info.json")["fps"], list(robot.cameras))
    reader.leave_out_unusable()
    ends = np.cumsum([episode.length for episode in reader.episodes])

    def load(rows: Sequence[int]) -> object:
        number = int(np.searchsorted(ends, rows[0], side="right"))
        episode = reader.episodes[number]
        own = [row - int(ends[number]) + episode.length for row in rows]
        return reader.vectors(episode), [reader.images(episode, camera, own) for camera in robot.cameras]

    return int(ends[-1]), load


def lerobot(folder: Path) -> tuple[int, Callable[[Sequence[int]], object]]:
    """As :func:`ours`, an item for each row."""
    import torch
    from lerobot.datasets import LeRobotDataset

    torch.set_num_threads(1)
    dataset = LeRobotDataset(folder.name, root=folder)
    return len(dataset), lambda rows: [dataset[row] for row in rows]


def rate(load: Callable[[Sequence[int]], object], pieces: Sequence[Sequence[int]]) -> float:
    """Rows a second of this process's CPU time."""
    load(pieces[0])
    begin = time.process_time()
    for rows in pieces:
        load(rows)
    return sum(map(len, pieces)) / (time.process_time() - begin)


def main() -> None:
    """Print both rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loader", choices=("ours", "lerobot"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300, help="that are read in either way (default 300)")
    given = parser.parse_args()
    os.environ |= dict.fromkeys(THREADS, "1")
    count, load = {"ours": ours, "lerobot": lerobot}[given.loader](given.folder)
    in_order = range(min(count, given.rows))
    random = np.random.default_rng(0).integers(count, size=given.rows).tolist()
    ordered, single = rate(load, [in_order]), rate(load, [[row] for row in random])
    print(f"{given.loader}: {ordered:.1f} rows/s in order, {single:.1f} at random")


if __name__ == "__main__":
    main()
