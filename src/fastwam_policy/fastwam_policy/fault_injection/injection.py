"""`fastwam check-safety`: faults are injected into the real nodes, over real ROS 2, while the arms move.

The robot is emulator_node. Where the policy itself is the fault it is the real policy_node with random weights;
otherwise chunks of one smooth motion come from this process, so that they can be delayed, reordered and damaged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.progress import counted
from fastwam_policy.fault_injection.fault_table import Row, extremes, time_to_hold
from fastwam_policy.fault_injection.faults import FAULTS, Fault
from fastwam_policy.fault_injection.world import Kind, World
from fastwam_policy.launching.domain import private_domain
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays

_MAX_DT = 0.02  # s, two control periods
_LAST = 20  # status messages, one second of them, that the state afterwards is taken from


def check_safety(robot_file: Path | None = None, faults: Sequence[Fault] = FAULTS) -> list[Row]:
    """Inject every fault in turn and return the table's rows.

    `robot_file` is another robot file than the installed one.

    Raises:
        RunError: the nodes did not come up, or the arms did not begin to move.
    """
    robot = RobotConfig.load(robot_file)
    rows: list[Row] = []
    with TemporaryDirectory() as folder, counted() as progress:
        bundle, log = Path(folder) / "bundle", Path(folder) / "nodes.log"
        write_random_bundle(bundle, robot, "fold the towel")
        task = progress.add_task("faults", total=len(faults))
        failed: Fault | None = None
        for kind, group in _worlds(faults):
            while group:
                with _world(kind, robot, bundle, log, robot_file) as world:
                    try:
                        while group:
                            progress.update(task, description=group[0].name)
                            rows.append(_inject(world, group[0]))
                            progress.advance(task)
                            del group[0]
                    except RunError:  # a machine that is too busy for a moment: once more, with new nodes
                        if group[0] is failed:
                            raise
                        failed = group[0]
    return rows


def _worlds(faults: Sequence[Fault]) -> Iterator[tuple[Kind, list[Fault]]]:
    """The faults in groups that one world serves."""
    group: list[Fault] = []
    for fault, after in zip(faults, [*faults[1:], None], strict=True):
        group.append(fault)
        if fault.last or after is None or after.kind != fault.kind:
            yield fault.kind, group
            group = []


@contextmanager
def _world(kind: Kind, robot: RobotConfig, bundle: Path, log: Path, robot_file: Path | None) -> Iterator[World]:
    """In a domain of its own: nodes that were killed are seen in theirs for a while."""
    with private_domain() as domain:
        rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C is the command's
        world = World(kind, robot, bundle, log, robot_file)
        try:
            yield world
        finally:
            world.close()
            rclpy.shutdown()


def _inject(world: World, fault: Fault) -> Row:
    world.begin(beats=fault.beats)
    before, since, first = world.dropped(), time.monotonic(), max(0, len(world.sent) - 2)
    fault.inject(world)
    time.sleep(max(0.0, since + fault.watch - time.monotonic()))
    sent, until = list(world.sent), time.monotonic()
    statuses = [status for at, status in world.statuses if at >= since]
    dropped = {reason for reason, count in world.dropped().items() if count > before.get(reason, 0)}
    if not fault.last:
        world.end()
    limits = limit_arrays(world.robot.commanded)
    # Stamps of a clock that does not keep real time say nothing of it: there two periods are allowed for each command.
    stamps = [0 if fault.kind == "clock" else s.stamp_ns for s in sent]
    positions, velocities = (np.array([getattr(s, name) for s in sent]) for name in ("positions", "velocities"))
    whole = extremes(np.array(stamps), positions, velocities, limits, _MAX_DT)
    seen = {Reason(status.reason) for status in statuses} | dropped
    state = State(Counter(status.state for status in statuses[-_LAST:]).most_common(1)[0][0])
    if statuses[-1].state == State.INACTIVE:  # said once, at the end
        state = State.INACTIVE
    after = sent[first:]
    rest = time_to_hold([s.arrival for s in after], [np.abs(s.velocities).max() for s in after], since, until)
    in_time = fault.within is None or (rest is not None and rest <= fault.within)
    return Row(
        fault=fault.name,
        state=state.name,
        reasons=", ".join(f"{int(r)} {r.name}" for r in sorted(seen) if r != Reason.NONE) or "none",
        as_expected=state in fault.state and bool(seen & fault.reason) and in_time,
        to_hold=rest,
        velocity=whole.velocity,
        acceleration=whole.acceleration,
        violations=whole.violations,
    )
