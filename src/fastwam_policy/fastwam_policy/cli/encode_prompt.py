"""`fastwam encode-prompt`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import existing_file, sentence

NAME, GROUP = "encode-prompt", "bundles"
HELP = "write the text embeddings of instructions into a bundle"
EXAMPLE = (
    './fastwam encode-prompt bundles/mine "fold the towel" '
    "--text-encoder models_t5_umt5-xxl-enc-bf16.pth --tokenizer umt5-xxl/"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("instruction", nargs="*", type=sentence)
    parser.add_argument("--file", type=existing_file, help="instructions, one a line, such as those of a benchmark")
    parser.add_argument("--text-encoder", type=Path, required=True, help="models_t5_umt5-xxl-enc-bf16.pth")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the UMT5 tokenizer")


def run(given: argparse.Namespace) -> int:
    """Write them."""
    from fastwam_policy.policies.fastwam.exchange import add_embeddings
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    lines = given.file.read_text(encoding="utf-8").splitlines() if given.file else []
    instructions = [*given.instruction, *(line for line in lines if line.strip())]
    if not instructions:
        raise ConfigError("name an instruction, or a --file with one a line")
    for prompt in add_embeddings(given.folder, instructions, given.text_encoder, given.tokenizer):
        print(f"wrote the embedding of: {prompt}")
    return 0
