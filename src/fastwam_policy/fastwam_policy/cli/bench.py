"""`fastwam bench`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, new_file, number, write_figures

NAME, GROUP = "bench", "evaluate"
HELP = "time of every stage of an inference, with random weights; see docs/results/engine-options.md"
EXAMPLE = "./fastwam bench --size tiny --dtype float32 --repeats 3"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--size", nargs="+", choices=["tiny", "mid", "full"], default=["mid"])
    parser.add_argument(
        "--variant",
        nargs="+",
        choices=["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"],
        default=["fastwam"],
    )
    parser.add_argument("--engine", nargs="+", choices=["eager", "compiled"], default=["eager"])
    parser.add_argument(
        "--dtype", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32", "bfloat16"]
    )
    parser.add_argument("--steps", nargs="+", type=number(int, least=1), default=[10], help="denoise steps")
    parser.add_argument("--against", choices=["plain"], help="measure the plain arithmetic alternately, print ratios")
    parser.add_argument("--repeats", type=number(int, least=1), default=10)
    parser.add_argument("--threads", type=number(int, least=1), default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=new_file, metavar="PNG", help="write a figure")
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure each combination, and print its table."""
    import itertools

    import torch

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.performance.inference import Setup, plot, run_benchmark, table
    from fastwam_policy.policies.fastwam.bundle import torch_device

    against = given.against == "plain"
    torch.set_num_threads(given.threads)
    device, console, results = torch_device(given.device), PlainConsole(), []
    try:
        for size, variant, engine, dtype, steps in itertools.product(
            given.size, given.variant, given.engine, given.dtype, given.steps
        ):
            setup = Setup(size, variant, engine, getattr(torch, dtype), steps, device)
            results.append(run_benchmark(setup, given.repeats, against_plain=against))
            console.print(table(results[-1]))
            if against:
                ratio = results[-1]["ratio"]
                console.print("engine/plain: " + ", ".join(f"{name} {value:.2f}" for name, value in ratio.items()))
                console.print(f"largest difference of the actions: {results[-1]['largest_difference']:.1e}")
    finally:  # what was measured is kept
        write_figures(given.json, results)
    if given.plot:
        plot(results, given.plot)
    return 0
