"""The faults that `fastwam check-safety` injects, and what the bridge must do about each. A line adds one."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fastwam_policy.fault_injection import injections as do
from fastwam_policy.fault_injection.world import BRIDGE, POLICY, ROBOT, Kind
from galaxea_r1lite_bridge.execution.reasons import Reason, State

AT_ONCE, BEAT, STALE = 1.0, 1.5, 3.0
"""s within which the arms must rest: for what stops them at once, for heartbeats, and for chunks."""
R = Reason


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        name: for people.
        inject: does it to a world whose arms move.
        state: of the bridge in the end, one of these.
        reason: at least one of these is given, or counted as a drop, meanwhile.
        within: s in which the arms must come to rest; None: the motion may go on.
        watch: s until it is judged.
        kind: of the world.
        beats: heartbeats come from this process, which must then go on.
        last: what it leaves cannot be undone: a killed node is seen by others for 20 s more.
    """

    name: str
    inject: do.Injection
    state: set[State]
    reason: set[Reason]
    within: float | None = AT_ONCE
    watch: float = 2.0
    kind: Kind = "smooth"
    last: bool = False
    beats: bool = False


HELD, ON, FAULT, ESTOP = {State.HOLDING}, {State.TRACKING}, {State.FAULT}, {State.ESTOP}
OFF = {State.DISARMED, State.INACTIVE}
ENDED = OFF | {State.STOPPING}  # the last that a node says before it ends
SAFE = HELD | ON
BLOCKED = {R.STOP_REQUESTED, R.TRACKING_ERROR}  # whichever is first
AGED, LATE, ANY = {R.FEEDBACK_STALE, R.FEEDBACK_INVALID}, {R.PLAN_STALE, R.STARVED}, set(R)
STEPPED = {R.NONE, R.FEEDBACK_CLOCK_STEPPED}
TWO_ROBOTS = {R.FEEDBACK_INTERLEAVED, R.FEEDBACK_JUMPED}  # they are in different places
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)

LEFT = "left arm's feedback"
ROBOT_FAULTS = [
    Fault(f"{LEFT} is silent", do.emulated("silent"), HELD, AGED),
    Fault("right gripper's feedback is silent", do.emulated("no_gripper"), HELD, AGED),
    Fault("torso's feedback is silent", do.emulated("no_torso"), HELD, AGED),
    Fault(f"{LEFT} is NaN", do.emulated("nan"), HELD, AGED),
    Fault(f"{LEFT} is infinite", do.emulated("infinite"), HELD, AGED),
    Fault(f"{LEFT} has two numbers", do.emulated("short"), HELD, AGED),
    Fault(f"{LEFT} is empty", do.emulated("empty"), HELD, AGED),
    Fault(f"{LEFT} has the right arm's names", do.emulated("names"), HELD, AGED),
    Fault(f"{LEFT} has its joints in another order", do.emulated("permuted"), ON, ANY, None),
    Fault(
        "left gripper's feedback is 0 to 1",
        do.then(do.emulated("fraction"), do.placed({6: 30.0})),
        FAULT,
        {R.FEEDBACK_UNIT},
        4.0,
        5.0,
    ),
    Fault("all feedback 0.5 s late", do.emulated("late"), HELD, AGED),
    Fault(f"{LEFT} always with the same stamp", do.emulated("one_stamp"), HELD, {R.FEEDBACK_STALE}),
    Fault(f"two publishers of {LEFT}", do.second_robot(100.0), HELD | FAULT, TWO_ROBOTS),
    Fault(f"{LEFT} jumps by 0.5 rad", do.emulated("jump"), FAULT, {R.FEEDBACK_JUMPED}),
    Fault("left arm's encoder is one turn off", do.emulated("turn"), FAULT, {R.FEEDBACK_JUMPED}),
    Fault("left arm's encoder says 1e9 rad", do.emulated("huge"), FAULT | HELD, {R.FEEDBACK_JUMPED, *AGED}),
    Fault("all feedback frozen", do.emulated("frozen"), FAULT, {R.FEEDBACK_FROZEN, R.TRACKING_ERROR}, 2.0, 3.0),
    # The smooth motion alone may turn back before it is far from the arm.
    Fault("left arm blocked", do.then(do.emulated("blocked"), do.AWAY, wait=0.1), FAULT, {R.TRACKING_ERROR}, 3.0, 4.0),
    Fault(f"{LEFT} without stamps", do.emulated("unstamped"), ON, ANY, None),
    Fault("robot's clock set forward by 5 s", do.emulated("stepped"), SAFE, STEPPED, None, 3.0),
    Fault("robot's clock far ahead", do.emulated("ahead"), SAFE, STEPPED, None, 3.0),
    Fault(f"second {LEFT}, NaN", do.second_robot(100.0, position=[math.nan] * 6), SAFE, ANY, None),
    Fault(f"second {LEFT}, 100,000 numbers", do.BIG_FEEDBACK, SAFE, ANY, None),
    Fault("torso moved by hand", do.emulated("torso"), SAFE, ANY, None),
    Fault("robot stands still for 1 s", do.paused(ROBOT), SAFE | FAULT, AGED, None, 3.0),
    Fault("SIGSTOP of the robot", do.signalled(ROBOT, signal.SIGSTOP), HELD, {R.FEEDBACK_STALE}),
    *(Fault(f"{n.name} to the robot", do.signalled(ROBOT, n), HELD, AGED, watch=3.0) for n in ENDS[:2]),
]
CHUNK_FAULTS = [
    Fault("latency 400 ms", do.delayed(0.4), ON, ANY, None, 3.0),
    Fault("latency 2 s", do.delayed(2.0), HELD, {R.CHUNK_TOO_OLD}, STALE, 5.0),
    Fault("chunks end", do.ended, HELD, LATE, STALE, 3.5),
    Fault("chunks reordered", do.reordered, ON, {R.CHUNK_OUT_OF_ORDER}, None, 4.0),
    Fault("chunks duplicated", do.spoilt(lambda chunk: [chunk, chunk]), ON, {R.CHUNK_OUT_OF_ORDER}, None),
    Fault("chunks with NaN", do.number(math.nan), HELD, {R.CHUNK_NOT_FINITE}, STALE, 3.5),
    Fault("chunks with 1e308", do.number(1e308), HELD, {R.CHUNK_NOT_FINITE}, STALE, 3.5),
    Fault("chunks of other joints", do.spoilt(do.renamed), HELD, {R.CHUNK_WRONG_JOINTS}, STALE, 3.5),
    Fault("chunks without steps", do.steps(lambda p: p.clear()), HELD, {R.CHUNK_WRONG_JOINTS}, STALE, 3.5),
    Fault(
        "chunks with a short step", do.steps(lambda p: p[3].positions.pop()), HELD, {R.CHUNK_WRONG_JOINTS}, STALE, 3.5
    ),
    Fault("chunks from 10 s ahead", do.stamped(lambda ns: ns + 10**10), HELD, {R.CHUNK_FROM_FUTURE}, STALE, 3.5),
    Fault("chunks without stamps", do.stamped(lambda _: 0), HELD, LATE, STALE, 3.5),
    Fault("chunks that leap by 1.5 rad", do.spoilt(do.leaping), SAFE, ANY, None),
    Fault("a plan into the table", do.towards({1: 2.6, 2: -0.6}), SAFE, ANY, None, 3.0),
    Fault("a plan that crosses the arms", do.towards({0: -1.2, 7: 1.2}), SAFE, ANY, None, 3.0),
    Fault("a plan beyond a joint's limit", do.towards({1: 6.0}), SAFE, ANY, None, 3.0),
    Fault("a second policy", do.second_policy, ON, {R.CHUNK_OTHER_SESSION}, None, 3.0),
    Fault("a second policy in the same session", do.same_session, SAFE, {R.CHUNK_OUT_OF_ORDER}, None, 3.0),
    Fault("a chunk with a far epoch", do.far_epoch, ON, {R.CHUNK_OTHER_SESSION}, None, 3.0),
    Fault("1000 chunks a second, the same", do.FLOOD, SAFE, {R.CHUNK_OUT_OF_ORDER, R.CHUNK_TOO_OLD}, None),
    Fault("chunks of 100,000 steps", do.LONG, ON, {R.CHUNK_UNREADABLE}, None),
    Fault("chunks of 100,000 names", do.MANY_NAMES, ON, {R.CHUNK_UNREADABLE}, None),
]
SILENT = do.emulated("silent")
PEOPLE_FAULTS = [
    Fault("emergency stop", do.press, ESTOP, {R.ESTOP_PRESSED}),
    Fault("emergency stop, released", do.then(do.press, do.release), ESTOP | FAULT | OFF, {R.ESTOP_PRESSED}),
    Fault("~/stop", do.stop, HELD, {R.STOP_REQUESTED}),
    Fault("~/arm with false", do.disarm, OFF, {R.NOT_ARMED}),
    Fault("~/home in motion", do.home, SAFE, ANY, None, 3.0),
    Fault(f"{LEFT} silent, emergency stop", do.then(SILENT, do.press, wait=0.15), ESTOP, {R.ESTOP_PRESSED}),
    Fault(f"{LEFT} silent, ~/stop", do.then(SILENT, do.stop, wait=0.15), HELD, AGED),
    Fault(f"{LEFT} silent, ~/arm with false", do.then(SILENT, do.disarm, wait=0.15), OFF, {R.NOT_ARMED}),
    Fault(f"{LEFT} jumps, emergency stop", do.then(do.emulated("jump"), do.press), ESTOP, {R.ESTOP_PRESSED}),
    Fault("left arm blocked, ~/stop", do.then(do.emulated("blocked"), do.stop), HELD | FAULT, BLOCKED, BEAT),
    Fault(
        "1000 old chunks a second, emergency stop", do.then(do.flood(1000.0), do.press), ESTOP, {R.ESTOP_PRESSED}, BEAT
    ),
    Fault("chunks of 100,000 steps, ~/stop", do.then(do.LONG, do.stop), HELD, {R.STOP_REQUESTED}, BEAT),
    Fault("heartbeat ends", do.beats_end, FAULT, {R.HEARTBEAT_LOST}, BEAT, beats=True),
    Fault("heartbeat says released", do.beats_released, HELD, {R.HEARTBEAT_RELEASED}, beats=True),
    Fault("another heartbeat instead", do.other_beats, FAULT, {R.HEARTBEAT_LOST}, BEAT, beats=True),
    Fault("2000 heartbeats a second", do.beats(1, 2000.0), ON, ANY, None, beats=True),
]
BRIDGE_FAULTS = [
    *(Fault(f"{n.name} to bridge_node", do.signalled(BRIDGE, n), ENDED, {R.NONE, R.NOT_ARMED}) for n in ENDS),
    Fault("bridge_node stands still for 1 s", do.paused(BRIDGE), SAFE | FAULT, ANY, None, 3.0),
    Fault("SIGKILL of the robot", do.signalled(ROBOT, signal.SIGKILL), HELD, {R.FEEDBACK_STALE}, last=True),
    Fault("bridge_node killed, and again", do.restarted(BRIDGE), OFF, {R.NOT_ARMED}, last=True),
]
FOREIGN = {R.FOREIGN_PUBLISHER}
OTHERS = [
    Fault("another node publishes left arm's targets", do.foreign_publisher, FAULT, FOREIGN, BEAT),
    Fault(
        "another node publishes left arm's targets, then ~/arm",
        do.then(do.disarm, do.foreign_publisher, do.arm),
        OFF,
        {R.NOT_ARMED},
    ),
]
LED, NO_INPUT, FAR = {State.TAKEOVER}, {R.TAKEOVER_INPUT}, {R.TAKEOVER_FAR}
INPUT = "taken over, input"
TAKEOVER_FAULTS = [
    Fault(f"{INPUT} ends", do.INPUT_ENDS, HELD, NO_INPUT),
    Fault(f"{INPUT} ends for 0.5 s", do.then(do.INPUT_ENDS, do.INPUT_GOES_ON), LED, NO_INPUT, None),
    Fault(f"{INPUT} jumps by 1 rad", do.first_joint(1.0), HELD, FAR),
    Fault(f"{INPUT} is NaN", do.first_joint(math.nan), HELD, NO_INPUT),
    Fault(
        f"{INPUT} ends, given back", do.then(do.INPUT_ENDS, do.give_back), ON, {R.TAKEOVER_ENDED, *NO_INPUT}, None, 3.0
    ),
    Fault(f"taken over, {LEFT} is silent", do.emulated("silent"), HELD, AGED),
    Fault("taken over, ~/stop", do.stop, HELD, {R.STOP_REQUESTED}),
    Fault("taken over, emergency stop", do.press, ESTOP, {R.ESTOP_PRESSED}),
    Fault("taken over, another node publishes left arm's targets", do.foreign_publisher, FAULT, FOREIGN, BEAT),
]
JUMPED = {R.CLOCK_JUMPED_BACK, R.CLOCK_JUMPED_AHEAD}
CLOCK_FAULTS = [
    Fault("/clock stops", do.clock(rate=0.0), SAFE, ANY),
    Fault("/clock stops, ~/stop", do.then(do.clock(rate=0.0), do.stop, wait=0.05), HELD, {R.STOP_REQUESTED}),
    Fault("/clock at a fifth of real time", do.clock(rate=0.2), SAFE, ANY, None),
    Fault("/clock at five times real time", do.clock(rate=5.0), SAFE | FAULT | {State.STOPPING}, ANY, None),
    Fault("/clock jumps ahead by 0.2 s", do.clock(step=0.2), SAFE, ANY, None),
    Fault("/clock jumps ahead by 5 s", do.clock(step=5.0), SAFE, {R.CLOCK_JUMPED_AHEAD}, None),
    Fault("two publishers of /clock", do.second_clock, HELD, {R.CLOCK_INTERLEAVED, *JUMPED}),
    Fault("/clock jumps back by 5 s", do.then(do.ended, do.clock(step=-5.0), wait=0), HELD, {R.CLOCK_JUMPED_BACK}),
]
POLICY_FAULTS = [
    Fault("SIGSTOP of policy_node", do.signalled(POLICY, signal.SIGSTOP), HELD, LATE, STALE, 3.5),
    Fault("head camera is silent", do.emulated("camera"), HELD, LATE, STALE, 4.0),
    Fault("head camera's images are cut off", do.emulated("cut"), HELD, LATE, STALE, 4.0),
    Fault("head camera is black", do.emulated("black"), HELD, LATE, STALE, 4.0),
    Fault("left wrist camera is frozen", do.emulated("still"), HELD, LATE, STALE, 4.0),
    *(Fault(f"{n.name} to policy_node", do.signalled(POLICY, n), HELD, LATE, STALE, 3.5) for n in ENDS),
    Fault("SIGKILL of policy_node", do.signalled(POLICY, signal.SIGKILL), HELD, LATE, STALE, 3.5, last=True),
    Fault("policy_node killed, and again", do.restarted(POLICY), HELD, LATE, STALE, 6.0, last=True),
]
STOPPED = {R.HEARTBEAT_LOST, R.STOP_REQUESTED, R.HEARTBEAT_RELEASED, R.NOT_ARMED}
LEFT_ALONE = HELD | FAULT | OFF
SIGNALS = (*ENDS, signal.SIGKILL, signal.SIGSTOP)
TASK_FAULTS = [
    *(
        Fault(f"{n.name} to fastwam operate", do.operator_signalled(n), HELD | FAULT | OFF, STOPPED, BEAT)
        for n in SIGNALS
    ),
    Fault("Ctrl-C in fastwam operate", do.key("\x03"), HELD | FAULT | OFF, STOPPED, BEAT),
    Fault("Ctrl-Z in fastwam operate", do.key("\x1a"), HELD | FAULT | OFF, STOPPED, BEAT),
    Fault("the operator's terminal is closed", do.hung_up, HELD | FAULT | OFF, STOPPED, BEAT),
    Fault("space in fastwam operate", do.key(" "), ESTOP, {R.ESTOP_PRESSED}),
    Fault("the operator's deadman switch is released", do.deadman_released, HELD, {R.HEARTBEAT_RELEASED}),
    Fault("the operator's deadman switch is unplugged", do.deadman_unplugged, HELD, {R.HEARTBEAT_RELEASED}),
]


def all_faults() -> Iterator[Fault]:
    """In the order of the table."""
    yield from (*ROBOT_FAULTS, *CHUNK_FAULTS, *PEOPLE_FAULTS, *OTHERS, *BRIDGE_FAULTS)
    yield from (replace(fault, kind="takeover") for fault in TAKEOVER_FAULTS)
    yield from (replace(fault, kind="clock") for fault in CLOCK_FAULTS)
    yield from (replace(fault, kind="task") for fault in TASK_FAULTS)
    yield from (replace(fault, kind="policy") for fault in POLICY_FAULTS)


FAULTS = list(all_faults())
