"""The command line: `./fastwam COMMAND`, on ROS 2 also `ros2 run fastwam_policy fastwam COMMAND`."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

from fastwam_policy.cli.training import add_commands
from fastwam_policy.cli.trials import add_trials
from fastwam_policy.common.arguments import new_file
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_LONGEST_LATENCY = 1400  # ms: chunks of older observations are dropped


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with 2 and one clear message when the input is wrong."""
    given = _parser().parse_args(arguments)
    if arguments is None:  # a process of its own: worker processes end with it
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        status = given.run(given)
    except ConfigError as error:
        print(f"fastwam: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"fastwam: the disk is full: {error}. What is finished is kept: make room and start again", file=sys.stderr
        )
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastwam", description="Fast-WAM on the Galaxea R1 Lite")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="run the nodes on a recording or in the simulator, then print a summary and write a report"
    )
    demo.add_argument(
        "--mode", help="sim (default) or replay (default with --bag); for real see launch/towel_fold.launch.py"
    )
    demo.add_argument("--seed", type=int, default=0, help="scene of mode sim")
    demo.add_argument("--randomization", default="towel", help="what the seed varies: none, towel (default) or full")
    demo.add_argument("--duration", type=float, default=30.0, help="longest simulated time of mode sim, s (default 30)")
    demo.add_argument("--bag", type=Path, help="recording to replay; the shipped sample by default")
    demo.add_argument("--bundle", type=Path, help="policy bundle; the shipped one by default")
    demo.add_argument("--view", action="store_true", help="show it live in the Rerun viewer")
    demo.add_argument("--imagine", action="store_true", help="show what the model imagines beside what then happened")
    demo.add_argument("--output", type=Path, default=Path("output"), help="folder for sessions")
    demo.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    demo.set_defaults(run=_demo)

    view = commands.add_parser("view", help="the running nodes, or a recorded session, in the Rerun viewer")
    view.add_argument("session", type=Path, nargs="?", help="folder of a session, or a recording; none: the live nodes")
    view.add_argument("--web", action="store_true", help="in a browser, on this machine only")
    view.add_argument("--save", type=new_file, metavar="RRD", help="write a file for the viewer instead")
    view.add_argument("--namespace", default="", help="namespace of the live nodes")
    view.set_defaults(run=_view)

    operate = commands.add_parser("operate", help="arm, start, stop, home and emergency stop from a terminal")
    operate.add_argument("--instruction", default="", help="task; the policy node's by default")
    operate.add_argument("--time-limit", type=float, default=0.0, metavar="S", help="of a task; 0 for none")
    operate.add_argument("--namespace", default="", help="namespace of the nodes")
    operate.set_defaults(run=_operate)

    add_commands(commands)
    add_trials(commands)

    safety = commands.add_parser("check-safety", help="inject faults into the running nodes; needs no robot")
    safety.add_argument("--write", type=Path, metavar="MD", help="file whose fault table to replace: docs/safety.md")
    safety.add_argument("--json", type=new_file, metavar="PATH", help="write the rows as JSON")
    safety.set_defaults(run=_check_safety)

    make = commands.add_parser(
        "make-bundle", help="write a bundle with random weights, to try the path without a download"
    )
    make.add_argument("folder", type=Path)
    make.add_argument("--size", default="tiny", help="tiny (default), mid or full")
    make.add_argument("--instruction", default="fold the towel")
    make.add_argument("--seed", type=int, default=0)
    make.set_defaults(run=_make_bundle)

    check = commands.add_parser("check-bundle", help="load a bundle, compare it with the robot and run it once")
    check.add_argument("folder", type=Path)
    check.add_argument("--device", default="cpu")
    check.set_defaults(run=_check_bundle)

    serve = commands.add_parser("serve", help="run a bundle for `eval-sim http://HOST:PORT` on another machine")
    serve.add_argument("folder", type=Path)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    serve.add_argument("--port", type=int, default=8200)
    serve.add_argument("--device", default="auto")
    serve.set_defaults(run=_serve)

    imported = commands.add_parser("import", help="turn an official checkpoint into a bundle")
    imported.add_argument("checkpoint", type=Path, help="official .pt")
    imported.add_argument("folder", type=Path, help="bundle to write")
    imported.add_argument("--stats", type=Path, required=True, help="its dataset_stats.json")
    imported.add_argument("--vae", type=Path, required=True, help="Wan2.2_VAE.pth")
    imported.add_argument(
        "--sigma-shift", type=float, help="of the actions: 5.0 first released checkpoints, 1.0 later ones"
    )
    imported.add_argument("--head-dim", type=int, default=128, help="width of one attention head (default 128)")
    imported.add_argument(
        "--groups",
        default="left_arm,left_gripper,right_arm,right_gripper",
        help="joint groups in the checkpoint's order (default: %(default)s)",
    )
    imported.add_argument("--normalization", choices=["z-score", "min_max", "q01_q99"], default="z-score")
    imported.add_argument(
        "--variant", choices=["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"], default="fastwam"
    )
    imported.add_argument("--denoise-steps", type=int, default=10)
    imported.add_argument("--horizon", type=int, default=32)
    imported.add_argument("--fps", type=float, default=15.0)
    imported.add_argument("--instruction", default="fold the towel")
    imported.add_argument("--text-encoder", type=Path, help="models_t5_umt5-xxl-enc-bf16.pth, to embed the instruction")
    imported.add_argument("--tokenizer", type=Path, help="folder of the UMT5 tokenizer")
    imported.set_defaults(run=_import)

    export = commands.add_parser("export", help="write a bundle's weights as an official .pt")
    export.add_argument("folder", type=Path)
    export.add_argument("target", type=Path)
    export.set_defaults(run=_export)

    encode = commands.add_parser("encode-prompt", help="write the text embedding of an instruction into a bundle")
    encode.add_argument("folder", type=Path)
    encode.add_argument("instruction")
    encode.add_argument("--text-encoder", type=Path, required=True, help="models_t5_umt5-xxl-enc-bf16.pth")
    encode.add_argument("--tokenizer", type=Path, required=True, help="folder of the UMT5 tokenizer")
    encode.set_defaults(run=_encode_prompt)

    engine = commands.add_parser("check-engine", help="what each engine option changes in a bundle's actions")
    engine.add_argument("folder", type=Path)
    engine.add_argument("--device", default="cpu")
    engine.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    engine.set_defaults(run=_check_engine)

    bench = commands.add_parser("bench", help="time of every stage with random weights; see docs/model.md")
    bench.add_argument("--size", nargs="+", choices=["tiny", "mid", "full"], default=["mid"])
    bench.add_argument(
        "--variant",
        nargs="+",
        choices=["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"],
        default=["fastwam"],
    )
    bench.add_argument("--engine", nargs="+", choices=["eager", "compiled"], default=["eager"])
    bench.add_argument(
        "--dtype", nargs="+", choices=["float32", "bfloat16", "float16"], default=["float32", "bfloat16"]
    )
    bench.add_argument("--steps", nargs="+", type=int, default=[10], help="denoise steps")
    bench.add_argument("--against", choices=["plain"], help="measure the plain arithmetic alternately, print ratios")
    bench.add_argument("--repeats", type=int, default=10)
    bench.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    bench.add_argument("--device", default="cpu")
    bench.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    bench.add_argument("--plot", type=new_file, metavar="PNG", help="write a figure")
    bench.set_defaults(run=_bench)

    execution = commands.add_parser(
        "bench-execution", help="seams, jerk and lag of every blending mode at several latencies; see docs/safety.md"
    )
    execution.add_argument("--bag", type=Path, help="recording whose targets the chunks vary around (default: sample)")
    execution.add_argument("--latency", nargs="+", type=int, default=[0, 100, 200, 400], metavar="MS")
    execution.add_argument("--seeds", type=int, default=5, help="runs with other chunks (default 5)")
    execution.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    execution.set_defaults(run=_bench_execution)

    loop = commands.add_parser("bench-loop", help="jitter of the bridge's control thread beside an rclpy timer")
    loop.add_argument("--rate", nargs="+", type=float, default=[100.0, 200.0], metavar="HZ")
    loop.add_argument("--seconds", type=float, default=15.0, help="for each rate (default 15)")
    loop.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    loop.add_argument("--plot", type=new_file, metavar="PNG", help="write a histogram")
    loop.set_defaults(run=_bench_loop)

    report = commands.add_parser("report", help="rebuild summary and report of a session")
    report.add_argument("session", type=Path, help="folder that holds recording/")
    report.add_argument("--bag", type=Path, help="recording that was replayed, for its camera images")
    report.add_argument("--json", type=new_file, metavar="PATH", help="write the figures as JSON")
    report.set_defaults(run=_report)
    return parser


def _sample_bag() -> Path:
    return Path(get_package_share_directory("fastwam_policy")) / "bags" / "towel_fold_sample"


# torch and matplotlib take seconds to import: each command imports what it needs.


def _demo(given: argparse.Namespace) -> int:
    if given.mode == "real":
        raise ConfigError(
            "the demo never moves a robot; use: ros2 launch fastwam_policy towel_fold.launch.py mode:=real"
        )
    from fastwam_policy.common.processes import has_simulator, processes

    mode = given.mode or ("sim" if has_simulator() and given.bag is None else "replay")
    processes(mode, {})
    from fastwam_policy.launching.demo import run_demo

    return run_demo(
        mode,
        (given.bag or _sample_bag()).resolve(),
        given.bundle.resolve() if given.bundle else None,
        given.output.resolve(),
        given.json,
        given.seed,
        given.randomization,
        given.duration,
        view=given.view,
        imagine=given.imagine,
    )


def _view(given: argparse.Namespace) -> int:
    from fastwam_policy.common.processes import require_viewer

    require_viewer()
    from fastwam_policy.visualization.view import shown, view_session

    with shown(given.save, web=given.web) as recording:
        if given.session is None:
            from fastwam_policy.visualization.live_view import live_view

            live_view(recording, given.namespace)
        else:
            print(f"{view_session(given.session, recording)} messages")
            if given.web:
                print("Ctrl-C ends the viewer")
                signal.pause()
    return 0


def _operate(given: argparse.Namespace) -> int:
    from fastwam_policy.operate.operator import operate

    if given.time_limit < 0:
        raise ConfigError(f"--time-limit must not be negative, got {given.time_limit}")
    return operate(given.instruction, given.time_limit, given.namespace)


def _check_safety(given: argparse.Namespace) -> int:
    import json
    import platform

    from rich.console import Console

    from fastwam_policy.fault_injection.fault_table import around_table, as_json, table, write_table
    from fastwam_policy.launching.domain import private_domain

    if given.write:
        around_table(given.write)
    with private_domain():
        from fastwam_policy.fault_injection.faults import check_safety

        rows = check_safety()
    Console().print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(as_json(rows), indent=2) + "\n", encoding="utf-8")
    if given.write:
        write_table(given.write, rows, f"Measured on {platform.system()} {platform.machine()}, {os.cpu_count()} cores.")
    return int(any(row.violations or not row.as_expected for row in rows))


def _make_bundle(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle

    write_random_bundle(given.folder, RobotConfig.load(), given.instruction, given.size, given.seed)
    print(f"wrote {given.folder}: random weights, its actions mean nothing")
    return 0


def _check_bundle(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.policy import FastWamPolicy

    policy = FastWamPolicy.load(given.folder, given.device)
    config = policy.bundle.config
    policy.bundle.check_robot(RobotConfig.load())
    policy.prepare(config.prompt.default_instruction)
    count = sum(parameter.numel() for parameter in policy.bundle.model.parameters())
    print(f"{config.name}: fits the {config.robot_type}; {count / 1e6:.1f} M parameters, weights: {config.origin}")
    print("instructions: " + "; ".join(sorted(policy.bundle.embeddings)))
    return 0


def _serve(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.policy import FastWamPolicy
    from fastwam_policy.policies.remote.server import serve

    policy = FastWamPolicy.load(given.folder, given.device)
    config = policy.bundle.config
    name = f"{config.name} on {given.device}"
    serve(policy, config, given.host, given.port, lambda port: print(f"{name}: http://{given.host}:{port}", flush=True))
    return 0


def _import(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.exchange import Description, add_embedding, import_official

    about = Description(
        given.folder.name, given.sigma_shift, given.head_dim, tuple(given.groups.split(",")), given.normalization,
        given.variant, given.denoise_steps, given.horizon, given.fps, given.instruction,
    )  # fmt: skip
    if (given.text_encoder is None) != (given.tokenizer is None):
        raise ConfigError("--text-encoder and --tokenizer go together")
    import_official(given.checkpoint, given.stats, given.vae, given.folder, RobotConfig.load(), about)
    if given.text_encoder is None:
        print(f"wrote {given.folder}; next: fastwam encode-prompt {given.folder} '{given.instruction}' ...")
    else:
        add_embedding(given.folder, given.instruction, given.text_encoder, given.tokenizer)
        print(f"wrote {given.folder}")
    return 0


def _export(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.bundle import Bundle
    from fastwam_policy.policies.fastwam.exchange import export_official

    export_official(given.folder, Bundle.read_config(given.folder), given.target)
    print(f"wrote {given.target}")
    return 0


def _encode_prompt(given: argparse.Namespace) -> int:
    from fastwam_policy.policies.fastwam.exchange import add_embedding

    prompt = add_embedding(given.folder, given.instruction, given.text_encoder, given.tokenizer)
    print(f"wrote the embedding of: {prompt}")
    return 0


def _check_engine(given: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fastwam_policy.performance.engine_options import check_engine, table

    result = check_engine(given.folder, given.device)
    Console().print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _bench(given: argparse.Namespace) -> int:
    import itertools
    import json

    import torch
    from rich.console import Console

    from fastwam_policy.performance.inference import Setup, plot, run_benchmark, table
    from fastwam_policy.policies.fastwam.bundle import torch_device

    if given.repeats < 1 or min(given.steps) < 1:
        raise ConfigError("--repeats and --steps must be at least 1")
    against = given.against == "plain"
    if against and set(given.variant) - {"fastwam", "fastwam_no_video"}:
        raise ConfigError("--against plain is for the variants fastwam and fastwam_no_video")
    torch.set_num_threads(given.threads)
    device, console, results = torch_device(given.device), Console(), []
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
        if given.json:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if given.plot:
        plot(results, given.plot)
    return 0


def _bench_execution(given: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fastwam_policy.performance.execution import bench_execution, table

    if given.seeds < 1 or not 0 <= min(given.latency) <= max(given.latency) <= _LONGEST_LATENCY:
        raise ConfigError(f"--seeds must be at least 1 and --latency 0 to {_LONGEST_LATENCY} ms")
    results = bench_execution(given.bag or _sample_bag(), [1e-3 * value for value in given.latency], given.seeds)
    Console().print(table(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _bench_loop(given: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fastwam_policy.launching.domain import private_domain
    from fastwam_policy.performance.loop_figures import plot, table

    if min(given.rate) <= 0 or given.seconds < 1:
        raise ConfigError("--rate must be above 0 Hz and --seconds at least 1")
    with private_domain():
        from fastwam_policy.performance.control_loop import bench_loop

        results = bench_loop(given.rate, given.seconds)
    Console().print(table(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if given.plot:
        plot(results, given.plot)
    return 0


def _report(given: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fastwam_policy.reports.report import report_session
    from fastwam_policy.reports.summary import table

    summary = report_session(given.session, RobotConfig.load(), f"Session {given.session.name}", given.bag)
    Console().print(table(summary))
    if given.json:
        given.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"report: {given.session / 'report.html'}")
    return 0


if __name__ == "__main__":
    main()
