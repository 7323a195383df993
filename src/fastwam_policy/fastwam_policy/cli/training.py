"""The commands of data, training and closed-loop evaluation: collect, convert, train-autoencoder, train, eval-sim."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fastwam_policy.common.arguments import new_file
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

_SMALLEST_IMAGE = 90  # pixels of height


def add_commands(commands: Any) -> None:
    """Add them to the parser of `fastwam`."""
    collect = commands.add_parser(
        "collect", help="episodes of the scripted expert in the simulator, as a LeRobot dataset"
    )
    collect.add_argument("folder", type=Path, help="dataset to write, or to continue")
    collect.add_argument("--episodes", type=int, default=500)
    collect.add_argument("--task", default="fold the towel")
    _add_randomization(collect)
    collect.add_argument("--noise", type=float, default=0.015, help="rad, of the executed targets (default 0.015)")
    collect.add_argument("--height", type=int, default=180, help="of the 16:9 images (default 180)")
    collect.add_argument("--first-seed", type=int, default=10_000, help="evaluations use seeds below 10000")
    collect.add_argument("--policy", type=Path, help="bundle that drives first; the expert takes over (DAgger)")
    collect.add_argument("--workers", type=int, default=0, help="processes; 0 for one a core")
    _add_version(collect)
    collect.set_defaults(run=_collect)

    convert = commands.add_parser("convert", help="recordings of the robot as a LeRobot dataset")
    convert.add_argument("recordings", type=Path, nargs="+", help="rosbag2 folders, .mcap or .db3: an episode each")
    convert.add_argument("--output", type=Path, required=True, help="dataset to write, or to append to")
    convert.add_argument("--task", default="fold the towel")
    convert.add_argument("--fps", type=int, default=15)
    convert.add_argument("--max-skew", type=float, default=0.05, metavar="S", help="of a message to its frame")
    convert.add_argument("--height", type=int, default=0, help="scale images to it; 0 leaves them (default)")
    convert.add_argument("--workers", type=int, default=0, help="processes; 0 for one a core")
    _add_version(convert)
    convert.set_defaults(run=_convert)

    autoencoder = commands.add_parser("train-autoencoder", help="a small image autoencoder for a bundle of one's own")
    _add_training_config(autoencoder)
    autoencoder.add_argument("--steps", type=int, default=3000, help="batches of 32 crops (default 3000)")
    autoencoder.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    autoencoder.set_defaults(run=_train_autoencoder)

    train = commands.add_parser("train", help="from LeRobot datasets to a bundle; see docs/training.md")
    _add_training_config(train)
    train.add_argument("output", type=Path, help="folder to write, or to go on in after an interruption")
    train.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 lets torch choose")
    train.set_defaults(run=_train)

    compare = commands.add_parser("compare", help="train and evaluate every variant alike: hours, resumable")
    _add_training_config(compare)
    compare.add_argument("output", type=Path, help="folder to write, or to go on in")
    compare.add_argument("--episodes", type=int, default=100, help="of each evaluation")
    _add_randomization(compare)
    compare.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 lets torch choose")
    compare.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    compare.set_defaults(run=_compare)

    evaluate = commands.add_parser("eval-sim", help="how often a bundle folds the towel in the simulator")
    evaluate.add_argument(
        "bundle", help="folder, or the address of a policy that `fastwam serve` runs: http://HOST:PORT"
    )
    evaluate.add_argument("--episodes", type=int, default=100)
    evaluate.add_argument("--first-seed", type=int, default=0, help="training uses seeds from 10000")
    _add_randomization(evaluate)
    evaluate.add_argument("--latency", type=float, default=0.15, metavar="S", help="from image to chunk (default 0.15)")
    evaluate.add_argument("--replan", type=float, default=0.5, metavar="S", help="between inferences (default 0.5)")
    evaluate.add_argument("--blending", choices=["switch", "ensemble", "rtc"], default="switch")
    evaluate.add_argument("--time-limit", type=float, default=20.0, metavar="S", help="of an episode (default 20)")
    evaluate.add_argument("--workers", type=int, default=0, help="processes; 0 for one a core")
    evaluate.add_argument(
        "--nodes", action="store_true", help="through the ROS 2 nodes, one after the other, with the latency they have"
    )
    evaluate.add_argument("--log", type=new_file, default="eval_sim.log", help="output of the nodes (with --nodes)")
    evaluate.add_argument("--videos", type=Path, metavar="FOLDER", help="write a video of each failure")
    evaluate.add_argument(
        "--json", type=new_file, metavar="PATH",
        help="write the figures as JSON, from the first episode on; the same evaluation goes on from there",
    )  # fmt: skip
    evaluate.set_defaults(run=_eval_sim)


def _add_randomization(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--randomization", choices=["none", "towel", "full"], default="full")


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=["v2.1", "v3.0"], default="v2.1", help="LeRobot version (default v2.1)")


def _add_training_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="such as config/training/towel.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one entry, such as policy.variant=idm"
    )


def _collect(given: argparse.Namespace) -> int:
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    from fastwam_policy.simulation.collect import CollectSettings, collect

    if given.episodes < 1 or given.height < _SMALLEST_IMAGE or given.height % 18:
        raise ConfigError(f"--episodes must be at least 1, and --height a multiple of 18 from {_SMALLEST_IMAGE}")
    if given.noise < 0 or given.first_seed < 0 or given.workers < 0:
        raise ConfigError("--noise, --first-seed and --workers must not be negative")
    settings = CollectSettings(
        given.task,
        given.randomization,
        given.noise,
        given.height,
        given.first_seed,
        given.format,
        str(given.policy.resolve()) if given.policy else "",
    )
    failures = collect(given.folder, given.episodes, settings, given.workers)
    print(f"wrote {given.folder}: {given.episodes} episodes; the expert failed on {failures} other seeds")
    return 0


def _convert(given: argparse.Namespace) -> int:
    from fastwam_policy.data.convert import ConvertSettings, convert

    if given.fps < 1 or given.max_skew <= 0 or given.height < 0 or given.height % 2 or given.workers < 0:
        raise ConfigError("--fps and --max-skew must be above 0, --height even, and --workers not negative")
    settings = ConvertSettings(given.task, given.fps, given.max_skew, given.height, given.format)
    skipped = convert(given.recordings, given.output, settings, given.workers)
    print(f"{len(given.recordings) - len(skipped)} of {len(given.recordings)} recordings are in {given.output}")
    for reason in skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    return int(bool(skipped))


def _train_autoencoder(given: argparse.Namespace) -> int:
    import torch

    from fastwam_policy.data.lerobot_reader import Reader
    from fastwam_policy.training.autoencoder import AutoencoderSettings, train_autoencoder

    config = _training_config(given)
    if given.threads:
        torch.set_num_threads(given.threads)
    robot, policy = RobotConfig.load(), config.policy
    cameras = [tile.camera for tile in policy.layout.tiles]
    readers = [Reader(folder, robot, policy.fps, cameras) for folder in config.datasets]
    error = train_autoencoder(readers, policy.layout, config.autoencoder, AutoencoderSettings(steps=given.steps))
    print(f"wrote {config.autoencoder}: mean error {error:.2f} of 255 on images left out")
    return 0


def _train(given: argparse.Namespace) -> int:
    import torch

    from fastwam_policy.training.trainer import train

    if given.threads:
        torch.set_num_threads(given.threads)
    result = train(_training_config(given), given.output)
    print(f"wrote {given.output / 'bundle'}; last: {result}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    import torch
    from rich.console import Console

    from fastwam_policy.simulation.compare import compare, table
    from fastwam_policy.simulation.episode import EpisodeSettings

    if given.episodes < 1:
        raise ConfigError("--episodes must be at least 1")
    if given.threads:
        torch.set_num_threads(given.threads)
    rows = compare(_training_config(given), given.output, range(given.episodes), EpisodeSettings(given.randomization))
    Console().print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def _training_config(given: argparse.Namespace) -> Any:
    from fastwam_policy.training.config import TrainingConfig

    try:
        data = yaml.safe_load(given.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{given.config}: cannot be read as YAML: {error}") from None
    return validate(changed(data, given.set), TrainingConfig, given.config.name)


def changed(data: Any, entries: Sequence[str]) -> Any:
    """`data` with KEY=VALUE entries put in; a key is a path with dots, a value is YAML."""
    for entry in entries:
        key, separator, value = entry.partition("=")
        *parents, last = key.split(".")
        place = data
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not separator or not isinstance(place, dict):
            raise ConfigError(f"--set {entry}: expected KEY=VALUE with a key of the configuration")
        place[last] = yaml.safe_load(value)
    return data


def _eval_sim(given: argparse.Namespace) -> int:
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    from rich.console import Console

    from fastwam_policy.simulation.episode import CHUNK_AGE, EpisodeSettings
    from fastwam_policy.simulation.evaluate import evaluate, table

    if given.episodes < 1 or given.first_seed < 0 or given.workers < 0 or given.replan <= 0 or given.time_limit <= 0:
        raise ConfigError(
            "--episodes must be at least 1, --first-seed and --workers not negative, --replan and --time-limit above 0"
        )
    if not 0 <= given.latency < CHUNK_AGE:
        raise ConfigError(f"--latency must be from 0 to below {CHUNK_AGE:g} s, from which on the bridge drops a chunk")
    settings = EpisodeSettings(given.randomization, given.latency, given.replan, given.blending, given.time_limit)
    seeds = range(given.first_seed, given.first_seed + given.episodes)
    remote = "://" in given.bundle
    bundle = given.bundle if remote else Path(given.bundle).resolve()
    if given.nodes and (remote or given.videos):
        raise ConfigError("--nodes runs a policy node of its own: name a bundle, not an address, and no --videos")
    if given.videos:
        try:
            given.videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--videos {given.videos}: cannot be written: {error.strerror}") from None
    if given.nodes:
        from fastwam_policy.launching.domain import private_domain

        with private_domain():
            from fastwam_policy.simulation.through_nodes import evaluate_nodes

            summary = evaluate_nodes(bundle, seeds, settings, given.log, given.json)
    else:
        summary = evaluate(bundle, seeds, settings, given.workers, given.videos, figures=given.json)
    Console().print(table(summary, f"{bundle if remote else bundle.name}, randomization {given.randomization}"))
    return 0
