"""`fastwam train-autoencoder`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import (
    add_json,
    add_robot,
    add_threads,
    add_training_config,
    number,
    write_figures,
)

NAME, GROUP = "train-autoencoder", "train"
HELP = "a small image autoencoder for your own bundle"
EXAMPLE = './fastwam train-autoencoder config/training/towel.yaml --set "datasets=[data/mine]"'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_training_config(parser)
    parser.add_argument(
        "--steps", type=number(int, least=1), default=3000, help="batches of 32 crops (default %(default)s)"
    )
    add_threads(parser, default=1)
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Train it and write it where the configuration says."""
    import sys

    import torch

    from fastwam_policy.data.lerobot_reader import Reader
    from fastwam_policy.training.autoencoder import AutoencoderSettings, train_autoencoder
    from fastwam_policy.training.config import read_config
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    config = read_config(given.config, given.set)
    if given.threads:
        torch.set_num_threads(given.threads)
    robot, policy = RobotConfig.load(given.robot), config.policy
    cameras = [tile.camera for tile in policy.layout.tiles]
    readers = [Reader(folder, robot, policy.fps, cameras) for folder in config.datasets]
    for reader in readers:
        reader.leave_out_unusable()
        print("".join(f"{note}\n" for note in reader.notes), end="", file=sys.stderr)
    error = train_autoencoder(readers, policy.layout, config.autoencoder, AutoencoderSettings(steps=given.steps))
    print(f"wrote {config.autoencoder}: mean error {error:.2f} of 255 on images left out")
    write_figures(given.json, {"autoencoder": str(config.autoencoder), "mean_error": error})
    return 0
