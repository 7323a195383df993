"""`fastwam serve`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import number

NAME, GROUP = "serve", "run"
HELP = "run a bundle for `eval-sim http://HOST:PORT` on another machine"
EXAMPLE = "./fastwam serve bundles/towel_small --port 8200"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=number(int, least=0, below=2**16), default=8200, help="0 for a free one")
    parser.add_argument("--device", default="auto")


def run(given: argparse.Namespace) -> int:
    """Answer until the process is ended."""
    from fastwam_policy.policies.fastwam.policy import FastWamPolicy
    from fastwam_policy.policies.remote.server import serve

    policy = FastWamPolicy.load(given.folder, given.device)
    config = policy.bundle.config
    name = f"{config.name} on {given.device}"
    serve(policy, config, given.host, given.port, lambda port: print(f"{name}: http://{given.host}:{port}", flush=True))
    return 0
