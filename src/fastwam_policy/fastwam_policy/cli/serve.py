"""`fastwam serve`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_policy, number

NAME, GROUP = "serve", "run"
HELP = "run a policy for another machine, where http://HOST:PORT takes its place"
EXAMPLE = "./fastwam serve bundles/towel_small --port 8200"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_policy(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=number(int, least=0, below=2**16), default=8200, help="0 for a free one")
    parser.add_argument("--device", help="of a bundle: auto (default), cpu, cuda or cuda:1")


def run(given: argparse.Namespace) -> int:
    """Answer until the process is ended."""
    from fastwam_policy.policies.loading import load_policy
    from fastwam_policy.policies.remote.server import serve

    policy = load_policy(given.policy, {"device": given.device} if given.device else {})
    name = policy.info.name
    serve(policy, given.host, given.port, lambda port: print(f"{name}: http://{given.host}:{port}", flush=True))
    return 0
