"""Turn recordings into a LeRobot dataset and look into it. You see its size, its numbers, and a picture of five frames.

source scripts/env.sh
python examples/convert_and_inspect.py output/small_dataset frames.png bags/towel_fold_sample
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fastwam_policy.common.parallel import THIS_PROCESS
from fastwam_policy.data.convert import convert
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.recorded_episode import ConvertSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig


def main(dataset: Path, picture: Path, recordings: list[Path]) -> None:
    """Run it again: a recording that is in the dataset already is not added twice."""
    settings = ConvertSettings(task="fold the towel", fps=15, height=180)
    done = convert(recordings, dataset, settings, THIS_PROCESS)
    for reason in done.skipped.values():
        print(f"skipped: {reason}")

    robot = RobotConfig.load()
    reader = Reader(dataset, robot, settings.fps, list(robot.cameras))
    for episode in reader.episodes:
        state, action = reader.vectors(episode)
        print(f"episode {episode.index}: state {state.shape}, action {action.shape}, {len(state) / reader.fps:.1f} s")
        for name, low, high in zip(robot.joint_names, action.min(0), action.max(0), strict=True):
            print(f"  {name:18} from {low:8.3f} to {high:8.3f}")

    first = reader.episodes[0]
    frames = np.linspace(0, len(reader.vectors(first)[0]) - 1, 5).astype(int)
    strip = [np.hstack(reader.images(first, camera, list(frames))) for camera in robot.cameras]
    width = min(row.shape[1] for row in strip)
    Image.fromarray(np.vstack([row[:, :width] for row in strip])).save(picture)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python examples/convert_and_inspect.py DATASET PICTURE.png RECORDING...")
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
