"""`make demo`: the processes of a mode under a supervisor, then a summary and a report of what they did."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastwam_policy.common.console import PlainConsole
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import write_json
from fastwam_policy.common.processes import Argument, processes, require_viewer, shipped_bundle
from fastwam_policy.launching.checks import check_start
from fastwam_policy.launching.domain import private_domain
from fastwam_policy.launching.process_group import ProcessGroup
from fastwam_policy.reports.report import report_session
from fastwam_policy.reports.summary import table
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
from galaxea_r1lite_sim.tasks import TASKS


def run_demo(
    mode: str,
    bag: Path,
    policy: str,
    output: Path,
    seed: int,
    randomization: str,
    duration: float,
    *,
    task: str = "",
    robot_file: Path | None = None,
    view: bool = False,
    imagine: bool = False,
) -> dict[str, Any]:
    """Run the demo to its end, write the report, and return the figures.

    Mode replay plays `bag`; mode sim runs `seed` of a `task` until it is done, for `duration` s at most: empty is the
    fold, with the policy's own instruction. Bag and policy are checked before anything starts.

    Raises:
        ConfigError: bag or policy do not fit.
        RunError: a process failed.
    """
    console = PlainConsole()
    if view:
        require_viewer()
    robot = RobotConfig.load(robot_file)
    policy = policy or str(shipped_bundle())
    source = bag if mode == "replay" else None
    check_start(policy, robot, source, imagine=imagine)
    session = _new_folder(output / "sessions")
    arguments: dict[str, Argument] = {
        "bag": str(source or ""),
        "seed": seed,
        "randomization": randomization,
        "duration": duration,
        **({"task": task, "instruction": TASKS[task].instruction} if task else {}),
        "policy": policy,
        "arm": True,
        "imagine": imagine,
        "robot_config": str(robot_file or ""),
        "record": True,
        "record_images": mode == "sim",
        "session": str(session),
    }
    commands = {process.name: process.command() for process in processes(mode, arguments)}
    if view:
        commands["viewer"] = _viewer(robot_file)

    try:
        name, status = _first_to_end(commands, console, session)
    except (KeyboardInterrupt, SystemExit):
        console.print(f"interrupted; what was recorded is in {session / 'recording'}")
        raise
    if status != 0:
        raise RunError(f"{name} ended with status {status}; its last lines are above")
    title = f"a recording of the R1 Lite: {source.name}" if source else f"the simulated R1 Lite, seed {seed}"
    summary = report_session(session, robot, f"Fast-WAM on {title}", source)
    console.print(table(summary))
    write_json(session / "summary.json", summary)
    console.print(f"report: {session / 'report.html'}")
    if (video := session / "video.mp4").exists():
        console.print(f"video: {video}")
    return summary


def _first_to_end(commands: Mapping[str, Sequence[str]], console: PlainConsole, session: Path) -> tuple[str, int]:
    """Run all until one ends, and then end the others; that one's name and exit status."""
    with private_domain() as domain, ProcessGroup() as group:
        console.print(f"ROS_DOMAIN_ID {domain}, on this machine only; session in {session}")
        for name, command in commands.items():
            group.start(name, command)
        return group.wait()


def _viewer(robot_file: Path | None) -> list[str]:
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    command = [sys.executable, "-m", "fastwam_policy.cli", "view", *([] if screen else ["--web"])]
    return command + (["--robot", str(robot_file)] if robot_file else [])


def _new_folder(parent: Path) -> Path:
    """A new folder named by the time; two demos that start in the same second get two folders."""
    name = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(100):
        folder = parent / (name if number == 0 else f"{name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise ConfigError(f"{parent}: no free name for a new session")
