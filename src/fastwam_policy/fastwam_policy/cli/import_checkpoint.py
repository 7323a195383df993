"""`fastwam import`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastwam_policy.common.arguments import add_robot, existing_file, number, sentence

if TYPE_CHECKING:
    from galaxea_r1lite_bridge.robot.config import RobotConfig

NAME, GROUP = "import", "bundles"
HELP = "turn a checkpoint of the authors, or of LeRobot, into a bundle"
EXAMPLE = (
    "./fastwam import CHECKPOINT.pt bundles/mine --stats dataset_stats.json --vae Wan2.2_VAE.pth --sigma-shift 1.0"
)
# Of our robot, with --from official; a benchmark says these itself.
_BODY: dict[str, Any] = {
    "groups": "left_arm,left_gripper,right_arm,right_gripper",
    "normalization": "z-score",
    "fps": 15.0,
}
# Of --from official; a checkpoint of LeRobot says these itself, or its --about does.
_OFFICIAL: dict[str, Any] = {
    "stats": None,
    "sigma_shift": None,
    "benchmark": None,
    "head_dim": None,
    "variant": "fastwam",
    "denoise_steps": 10,
    "horizon": 32,
    "instruction": None,
} | _BODY
_INSTRUCTION = "fold the towel"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", type=Path, help="official .pt, or LeRobot's folder")
    parser.add_argument("folder", type=Path, help="bundle to write")
    parser.add_argument("--from", dest="source", choices=["official", "lerobot"], default="official")
    parser.add_argument(
        "--vae", type=Path, required=True, help="Wan2.2_VAE.pth; for LeRobot also a folder in diffusers' format"
    )
    parser.add_argument("--text-encoder", type=Path, help="models_t5_umt5-xxl-enc-bf16.pth, to embed the instruction")
    parser.add_argument("--tokenizer", type=Path, help="folder of the UMT5 tokenizer")
    add_robot(parser)
    lerobot = parser.add_argument_group("--from lerobot")
    lerobot.add_argument(
        "--about",
        type=existing_file,
        metavar="FILE",
        help="YAML of what LeRobot's files do not say; without it, what must be in it is printed",
    )
    official = parser.add_argument_group("--from official")
    official.add_argument("--stats", type=Path, help="its dataset_stats.json; required")
    official.add_argument(
        "--sigma-shift",
        type=number(float, above=0),
        help="of the actions, required: 5.0 first released checkpoints, 1.0 later ones",
    )
    official.add_argument(
        "--benchmark",
        choices=["libero", "robotwin"],
        help="it was trained for: cameras, state, actions, statistics and gripper rule as there",
    )
    official.add_argument(
        "--head-dim", type=number(int, least=1), help="width of one attention head, where it is not a published one's"
    )
    official.add_argument("--groups", help=f"joint groups in the checkpoint's order (default: {_OFFICIAL['groups']})")
    official.add_argument(
        "--normalization", choices=["z-score", "min_max", "q01_q99"], help="of state and action (default z-score)"
    )
    official.add_argument(
        "--variant",
        choices=["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"],
        help="how it was trained (default fastwam)",
    )
    official.add_argument("--denoise-steps", type=number(int, least=1), help="default 10")
    official.add_argument("--horizon", type=number(int, least=1), help="steps of a chunk (default 32)")
    official.add_argument("--fps", type=number(float, above=0), help="of those steps (default 15)")
    official.add_argument(
        "--instruction", type=sentence, help=f"default task (default: {_INSTRUCTION}, or one of the benchmark)"
    )


def run(given: argparse.Namespace) -> int:
    """Write the bundle, with the instruction's embedding where a text encoder is given."""
    from fastwam_policy.policies.fastwam.exchange import add_embeddings
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if (given.text_encoder is None) != (given.tokenizer is None):
        raise ConfigError("--text-encoder and --tokenizer go together")
    needed = (given.text_encoder, given.tokenizer)
    if missing := [place for place in needed if place is not None and not place.exists()]:
        raise ConfigError(f"{missing[0]}: no such file or folder")
    robot = RobotConfig.load(given.robot)
    instruction = (_from_lerobot if given.source == "lerobot" else _from_official)(given, robot)
    if given.text_encoder is None:
        print(f"wrote {given.folder}; next: fastwam encode-prompt {given.folder} '{instruction}' ...")
    else:
        add_embeddings(given.folder, [instruction], given.text_encoder, given.tokenizer)
        print(f"wrote {given.folder}")
    return 0


def _from_official(given: argparse.Namespace, robot: RobotConfig) -> str:
    """Returns the default instruction."""
    from fastwam_policy.policies.fastwam.embodiments import BENCHMARKS, of_robot
    from fastwam_policy.policies.fastwam.exchange import Description, import_official
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if given.about is not None:
        raise ConfigError("--about is for --from lerobot")
    if given.stats is None:
        raise ConfigError("--stats is required: the dataset_stats.json of the checkpoint")
    told = {name: default if (value := getattr(given, name)) is None else value for name, default in _OFFICIAL.items()}
    if given.benchmark is None:
        groups = told["groups"].split(",")
        body = of_robot(robot, groups, told["normalization"], told["fps"], told["instruction"] or _INSTRUCTION)
    elif excess := [f"--{name}" for name in _BODY if getattr(given, name) is not None]:
        raise ConfigError(f"{', '.join(excess)}: --benchmark {given.benchmark} says it")
    else:
        body = BENCHMARKS[given.benchmark]
    about = Description(
        given.folder.name, told["sigma_shift"], told["head_dim"], body, told["variant"], told["denoise_steps"],
        told["horizon"], told["instruction"] or body.instruction,
    )  # fmt: skip
    import_official(given.checkpoint, given.stats, given.vae, given.folder, about)
    return about.instruction


def _from_lerobot(given: argparse.Namespace, robot: RobotConfig) -> str:
    """Returns the default instruction."""
    from fastwam_policy.policies.fastwam.import_lerobot import import_lerobot
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if told := [f"--{name.replace('_', '-')}" for name in _OFFICIAL if getattr(given, name) is not None]:
        raise ConfigError(f"{', '.join(told)}: only for --from official; a LeRobot checkpoint or --about says it")
    return import_lerobot(given.checkpoint, given.about, given.vae, given.folder, robot)
