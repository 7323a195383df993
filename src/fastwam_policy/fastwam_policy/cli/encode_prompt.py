"""`fastwam encode-prompt`."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME, GROUP = "encode-prompt", "bundles"
HELP = "write the text embedding of an instruction into a bundle"
EXAMPLE = (
    './fastwam encode-prompt bundles/mine "fold the towel" '
    "--text-encoder models_t5_umt5-xxl-enc-bf16.pth --tokenizer umt5-xxl/"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("instruction")
    parser.add_argument("--text-encoder", type=Path, required=True, help="models_t5_umt5-xxl-enc-bf16.pth")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the UMT5 tokenizer")


def run(given: argparse.Namespace) -> int:
    """Write it."""
    from fastwam_policy.policies.fastwam.exchange import add_embedding

    prompt = add_embedding(given.folder, given.instruction, given.text_encoder, given.tokenizer)
    print(f"wrote the embedding of: {prompt}")
    return 0
