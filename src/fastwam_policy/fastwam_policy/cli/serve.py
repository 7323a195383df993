"""`fastwam serve`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_policy, existing_file, number

NAME, GROUP = "serve", "run"
HELP = "run a policy for others, where ws://HOST:PORT takes its place; see docs/reference/wire.md"
EXAMPLE = "./fastwam serve bundles/towel_small"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_policy(parser)
    parser.add_argument(
        "--protocol", choices=["openpi", "xpolicylab", "gr00t"], default="openpi", help="whose (default %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument(
        "--port",
        type=number(int, least=0, below=2**16),
        help="0 for a free one (default: the protocol's: 8000, xpolicylab 19000, gr00t 5555)",
    )
    parser.add_argument("--api-key-file", type=existing_file, metavar="FILE", help="the key that clients must know")
    parser.add_argument("--cert", type=existing_file, metavar="PEM", help="certificate, for TLS")
    parser.add_argument("--key", type=existing_file, metavar="PEM", help="the certificate's private key")
    parser.add_argument("--device", help="of a bundle: auto (default), cpu, cuda or cuda:1")


def run(given: argparse.Namespace) -> int:
    """Answer until the process is ended."""
    import sys

    from fastwam_policy.policies.loading import load_policy
    from fastwam_policy.policies.remote.server.access import read_access
    from fastwam_policy.policies.remote.server.serving import PORTS, Place, serve

    access = read_access(given.api_key_file, given.cert, given.key)
    port = PORTS[given.protocol] if given.port is None else given.port
    options = {"device": given.device} if given.device else {}

    def ready(name: str, address: str) -> None:
        if warning := access.warning(given.host):
            print(warning, file=sys.stderr, flush=True)
        print(f"{name}: {address}", flush=True)

    serve(lambda: load_policy(given.policy, options), Place(given.protocol, given.host, port, access), ready)
    return 0
