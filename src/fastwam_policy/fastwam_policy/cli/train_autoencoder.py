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

    from fastwam_policy.training.autoencoder import AutoencoderSettings, train_autoencoder
    from fastwam_policy.training.config import read_config
    from fastwam_policy.training.datasets import open_datasets

    config = read_config(given.config, given.set)
    if given.threads:
        torch.set_num_threads(given.threads)
    readers = open_datasets(config, given.robot)
    print("".join(f"{note}\n" for reader in readers for note in reader.notes), end="", file=sys.stderr)
    settings = AutoencoderSettings(steps=given.steps)
    error = train_autoencoder(readers, config.policy.layout, config.autoencoder, settings)
    print(f"wrote {config.autoencoder}: mean error {error:.2f} of 255 on images left out")
    print(f"wrote {config.autoencoder}.png: some of them, and what is left: what is not there, a policy does not see")
    write_figures(given.json, {"autoencoder": str(config.autoencoder), "mean_error": error})
    return 0
