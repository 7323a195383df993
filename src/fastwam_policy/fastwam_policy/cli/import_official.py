"""`fastwam import`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_robot, number

NAME, GROUP = "import", "bundles"
HELP = "turn an official checkpoint into a bundle"
EXAMPLE = (
    "./fastwam import CHECKPOINT.pt bundles/mine --stats dataset_stats.json --vae Wan2.2_VAE.pth --sigma-shift 1.0"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", type=Path, help="official .pt")
    parser.add_argument("folder", type=Path, help="bundle to write")
    parser.add_argument("--stats", type=Path, required=True, help="its dataset_stats.json")
    parser.add_argument("--vae", type=Path, required=True, help="Wan2.2_VAE.pth")
    parser.add_argument(
        "--sigma-shift",
        type=number(float, above=0),
        help="of the actions: 5.0 first released checkpoints, 1.0 later ones",
    )
    parser.add_argument(
        "--head-dim", type=number(int, least=1), default=128, help="width of one attention head (default 128)"
    )
    parser.add_argument(
        "--groups",
        default="left_arm,left_gripper,right_arm,right_gripper",
        help="joint groups in the checkpoint's order (default: %(default)s)",
    )
    parser.add_argument("--normalization", choices=["z-score", "min_max", "q01_q99"], default="z-score")
    parser.add_argument(
        "--variant", choices=["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"], default="fastwam"
    )
    parser.add_argument("--denoise-steps", type=number(int, least=1), default=10)
    parser.add_argument("--horizon", type=number(int, least=1), default=32)
    parser.add_argument("--fps", type=number(float, above=0), default=15.0)
    parser.add_argument("--instruction", default="fold the towel")
    parser.add_argument("--text-encoder", type=Path, help="models_t5_umt5-xxl-enc-bf16.pth, to embed the instruction")
    parser.add_argument("--tokenizer", type=Path, help="folder of the UMT5 tokenizer")
    add_robot(parser)


def run(given: argparse.Namespace) -> int:
    """Write the bundle, with the instruction's embedding where a text encoder is given."""
    from fastwam_policy.policies.fastwam.exchange import Description, add_embedding, import_official
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    about = Description(
        given.folder.name, given.sigma_shift, given.head_dim, tuple(given.groups.split(",")), given.normalization,
        given.variant, given.denoise_steps, given.horizon, given.fps, given.instruction,
    )  # fmt: skip
    if (given.text_encoder is None) != (given.tokenizer is None):
        raise ConfigError("--text-encoder and --tokenizer go together")
    robot = RobotConfig.load(given.robot)
    import_official(given.checkpoint, given.stats, given.vae, given.folder, robot, about)
    if given.text_encoder is None:
        print(f"wrote {given.folder}; next: fastwam encode-prompt {given.folder} '{given.instruction}' ...")
    else:
        add_embedding(given.folder, given.instruction, given.text_encoder, given.tokenizer)
        print(f"wrote {given.folder}")
    return 0
