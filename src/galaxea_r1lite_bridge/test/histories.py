"""Generated histories: all that a policy, the network, clocks, sensors, an operator and a person can do to the bridge.

A history is plain data: settings and a list of events, made from a seed. `run` lives through it with a controller, the
streams of its feedback, two clocks and a robot, and asks every rule of rules.py about every control tick.
"""

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np

from galaxea_r1lite_bridge.execution.blending import BLENDINGS
from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.feedback import FeedbackStream
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.execution.types import Inputs
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .rules import RULES, BrokenRuleError, Tick

S = 1_000_000_000
STEP = S // 15
TICK = S // 100
ROBOT = RobotConfig.load()
GROUPS = list(ROBOT.actuated)
TAKEN = list(ROBOT.commanded)  # groups that a person takes over
EVENTS = 35
EARLY = 0.3  # s, a little more than stamps.py lets messages come before their time
LATCHED = (State.FAULT, State.ESTOP)


@dataclass(frozen=True)
class History:
    """Attributes: seed it was made from; settings of the bridge and the robot; events, each a name and its details."""

    seed: int
    blending: str
    closed_loop: bool
    lag: float
    noise: float
    simulated: bool
    events: list
    gripper_hysteresis: float = 0.0


def generate(seed, *, takeover=False):
    """With `takeover`, a person comes and goes besides, and some grippers have a hysteresis; without, as it was."""
    random = np.random.default_rng(seed)
    simulated = bool(random.random() < 0.3)
    events = [["tick", 30, TICK], ["arm"]]
    if simulated:
        events.append(["clock_rate", float(random.choice([1.0, 0.5, 0.1, 2.0])), int(random.choice([1, 1, 2, 5]))])
    for _ in range(EVENTS):
        events.extend(_event(random, simulated))
    if takeover:
        events = _with_takeovers(events, np.random.default_rng([seed, 1]))
    return History(
        seed=seed,
        blending=str(random.choice(BLENDINGS)),
        closed_loop=bool(random.random() < 0.85),
        lag=float(random.choice([0.001, 0.03, 0.05, 0.15])),
        noise=float(random.choice([1e-5, 1e-4, 1e-3])),
        simulated=simulated,
        events=events,
        gripper_hysteresis=float(np.random.default_rng([seed, 2]).choice([0.0, 10.0])) if takeover else 0.0,
    )


def _event(random, simulated):
    """One event, and what must follow it so that most of the time something moves."""

    def pick(*values):
        return values[random.integers(len(values))]

    kind = random.random()
    ticks = ["tick", int(random.integers(1, 16)), pick(TICK, TICK, TICK, TICK, TICK, TICK // 2, 3 * TICK, 12 * TICK)]
    if kind < 0.5:
        chunk = {
            "seed": int(random.integers(2**16)),
            "style": pick("wave", "wave", "wave", "edge", "far"),
            "reach": pick(0.05, 0.3, 1.0, 4.0),
            "noise": pick(0.0, 0.02, 0.5),
            "age": pick(0.0, 0.0, 0.0, 0.1, 0.4, 1.4, 2.5, -0.04, -1.0),
            "rows": pick(1, 2, 10, 32, 32),
            "step": pick(STEP, STEP, STEP // 10, 3 * STEP),
            "committed": pick(0, 4, 32),
            "id": pick("next", "next", "next", "next", "same", "old"),
            "epoch": pick(0, 0, 0, 0, 1, -1, 10**6),
            "session": pick(*[7] * 9, 8),
            "bad": pick(*[""] * 9, "nan", "inf", "names", "huge", "enormous", "columns"),
        }
        return [["chunk", chunk], ticks]
    if kind < 0.72:
        return [ticks]
    group, again = pick(*GROUPS), [["heal"], ["tick", 30, TICK], ["arm"], ["chunk", wave(random)], ["tick", 20, TICK]]
    trouble = [
        [pick("stop", "stop", "disarm", "home", "home_torso", "arm")],
        [pick("home", "home", "home_torso", "disarm")],
        ["estop", True],
        ["driver", pick("hot", "")],
        ["silent", group, True],
        ["unusable", group, pick(1, 1, 3, 30), pick("nan", "short")],
        ["late", group, pick(0.02, 0.06, 0.15, 0.4, 1.0)],
        ["zero_stamps", group, True],
        ["second_publisher", group, pick(-0.3, -0.03, 0.4)],
        ["sensor_step", pick(-3.0, -0.3, 0.2, 2.0)],
        ["frozen", True],
        ["jump", int(random.integers(17)), pick(0.1, 0.5)],
        ["encoder", int(random.integers(17)), pick(2 * np.pi, -2 * np.pi, 1e9, -1e300)],
        ["blocked", True],
        ["clock_step", pick(-3.0, -0.01, 0.02, 0.1, 0.2, 0.24, 2.0)],
        ["clock_rate", pick(0.0, 0.1, 0.5, 1.0), pick(1, 1, 2, 5)] if simulated else ["clock_step", pick(0.2, 0.24)],
        ["torso", pick(-0.02, 0.02, 0.3)],
    ]
    events = [trouble[random.integers(len(trouble))], ["tick", int(random.integers(1, 40)), TICK]]
    if events[0][0].startswith("home"):  # only from rest
        events = [["stop"], ["tick", 30, TICK], *events]
    if events[0][0] == "encoder":  # then to be believed, or not
        events += [*pick([["disarm"], ["tick", 40, TICK], ["arm"]], []), [pick("home", "home_torso")], ticks]
    if random.random() < 0.3:  # and something else before it is over
        events += [trouble[random.integers(len(trouble))], ticks]
    if random.random() < 0.8:
        events += again
    return events


def _with_takeovers(events, random):
    found = events[:2]
    for event in events[2:]:
        found.append(event)
        if random.random() < 0.1:
            found.extend(_takeover(random))
    return found


def _takeover(random):
    """A person comes, takes over, moves, and perhaps gives back; something may happen to their input meanwhile."""

    def pick(*values):
        return values[random.integers(len(values))]

    trouble = [
        ["person_silent", True],
        ["person_unusable", pick(1, 3, 30)],
        ["person_late", pick(0.05, 0.15, 0.3, 1.0)],
        ["person_every", pick(3, 10, 30)],
        ["person_unstamped", True],
        ["person_leaps", int(random.integers(14)), pick(0.2, 1.0, -1.0, 9.0)],
        ["person", pick(0.0, 0.12, 1.0)],
        ["takeover", pick(True, False)],
        [pick("stop", "disarm", "home")],
        ["estop", True],
    ]
    events = [["person", pick(0.0, 0.0, 0.0, 0.0, 0.05, 0.12)], ["tick", 1, TICK], ["takeover", True]]
    events += [["person_moves", pick(0.2, 1.0, 1.0, 5.0), pick(0.1, 0.5, 2.0)]]
    events += [["tick", int(random.integers(1, 60)), pick(TICK, TICK, TICK, TICK // 2, 3 * TICK)]]
    if random.random() < 0.6:
        events += [trouble[random.integers(len(trouble))], ["tick", int(random.integers(1, 60)), TICK]]
        events += pick([], [["person_heals"], ["tick", int(random.integers(1, 20)), TICK]])
    if random.random() < 0.5:  # near again, wherever the arms are held
        events += [["person", 0.0], ["tick", int(random.integers(1, 40)), TICK]]
    if random.random() < 0.6:
        events += [["chunk", wave(random)], ["takeover", False], *pick([], [["chunk", wave(random)]])]
        events += [["tick", int(random.integers(1, 20)), TICK]]
    return events


def wave(random):
    return {
        "seed": int(random.integers(2**16)), "style": "wave", "reach": 1.0, "noise": 0.0, "age": 0.0, "rows": 32,
        "step": STEP, "committed": 0, "id": "next", "epoch": 1, "session": 7, "bad": "",
    }  # fmt: skip


@dataclass
class Link:
    """How one group's messages come to the bridge."""

    latency: float = 0.002
    late: float = 0.0
    silent: bool = False
    zero_stamps: bool = False
    unusable: int = 0
    how: str = "nan"
    second: float | None = None
    delivered_ns: int = 0
    sent: int = 0


@dataclass
class Truth:
    """What is so about a group's feedback, whatever the bridge thinks: for the rules."""

    arrival_ns: int = 0
    lateness: float = 0.0
    """s more than usual, of the newest usable message."""
    least: tuple = (0, np.inf)
    """When, and the least delay since a clock was set or for 30 s, s."""
    stepped_ns: int = -(10**12)
    interleaved_ns: int = -1
    """Since when two publishers are heard, -1: they are not."""
    positions: np.ndarray | None = None
    """Of the newest usable message, of all groups."""


@dataclass
class Person:
    """Who takes over: their input is at `positions` [14], and moves at `speed` within `reach` of `centre`."""

    random: np.random.Generator
    positions: np.ndarray | None = None
    centre: np.ndarray | None = None
    goal: np.ndarray | None = None
    speed: float = 0.0
    reach: float = 0.0
    every: int = 1

    def move(self, seconds):
        if self.speed == 0:
            return
        way = self.goal - self.positions
        furthest = np.abs(way[ROBOT.is_arm]).max()
        if furthest < 1e-3:
            self.goal = self.centre + self.random.uniform(-1, 1, 14) * np.where(ROBOT.is_arm, self.reach, 30)
        self.positions = self.positions + way * min(1.0, self.speed * seconds / max(furthest, 1e-3))


class World:
    """Attributes are what the rules look at."""

    def __init__(self, history, reached=None):
        self.reached = Counter() if reached is None else reached
        self.shorter_ns = -(10**12)  # since when delays seem shorter
        self.history = history
        changes = {name: getattr(history, name) for name in ("blending", "closed_loop", "gripper_hysteresis")}
        # A jump may be configured to hold only: then the motion goes on from wherever the feedback is.
        self.settings = BridgeSettings.load(changes | {"watchdog.feedback_jump.reaction": "hold"})
        self.controller = MotionController(ROBOT, self.settings)
        self.random = np.random.default_rng(history.seed)
        self.joints = self.controller.joints.home.copy()
        self.shown = self.joints.copy()
        self.offsets = np.zeros(17)
        self.streams = {
            name: FeedbackStream(len(group.joints), simulated=history.simulated)
            for name, group in ROBOT.actuated.items()
        }
        self.links = {name: Link() for name in GROUPS}
        self.truth = {name: Truth() for name in GROUPS}
        self.samples = deque(maxlen=256)  # steady time, stamp, positions
        self.person = Person(np.random.default_rng([history.seed, 2]))
        self.person_streams = {
            name: FeedbackStream(len(ROBOT.groups[name].joints), simulated=history.simulated) for name in TAKEN
        }
        self.person_link, self.person_truth, self.person_samples = Link(), Truth(), deque(maxlen=256)
        self.taken = False  # whether the person has taken over
        self.steady_ns, self.node_ns, self.robot_ns = 5 * S, 100 * S, 777 * S
        self.rate, self.every, self.count, self.owed_ns = 1.0, 1, 0, 0
        self.regular_since_ns = 0  # since when the node's clock goes at `rate`, without steps
        self.irregular = False  # whether it has stepped since the last tick
        self.frozen = self.blocked = False
        self.chunk_id, self.epoch, self.ticks, self.ticked_ns = 0, 1, 0, 0
        self.stepped = history.simulated  # whether stamps and arrivals cannot be compared by the rules
        self.must_brake = ""  # why, since an event
        self.before = None  # last tick with a command, None after arming
        self.start = self.joints  # the pose at arming
        self.counted_ns = 0  # real time, as far as limits count it
        self.torso_moved_ns = -S  # by others, in that time
        self.rules = [rule() for rule in RULES]
        self.happened = deque(maxlen=12)

    # Events

    def do(self, name, *details):
        self.happened.append([name, *details])
        getattr(self, f"on_{name}")(*details)

    def on_tick(self, count, period_ns):
        for _ in range(count):
            self.tick(period_ns)

    def on_chunk(self, given):
        random = np.random.default_rng(given["seed"])
        self.chunk_id += given["id"] == "next"
        self.epoch += given["epoch"] == 1
        rows, limiter = given["rows"], self.controller.limiter
        goal = random.uniform(-1, 1, 14) * np.where(ROBOT.is_arm, given["reach"], 60)
        curve = np.sin(np.linspace(0, random.uniform(0.5, 6), rows))[:, None]
        start = self.controller.joints.home[:14]
        if given["style"] == "edge":
            start = self.joints[:14]
            goal = np.where(random.random(14) < 0.5, limiter.lower[:14], limiter.upper[:14]) - start
            curve = np.linspace(0, 1, rows)[:, None] ** random.choice([0.2, 1, 4])
        if given["style"] == "far":
            goal *= 3
        positions = start + curve * goal + random.normal(0, given["noise"], (rows, 14))
        if given["bad"] in ("nan", "inf"):
            positions[rows // 2, 3] = float(given["bad"])
        if given["bad"] == "huge":
            positions *= 1e6
        if given["bad"] == "enormous":
            positions *= 1e305
        if given["bad"] == "columns":
            positions = positions[:, :13]
        names = ["x"] * 14 if given["bad"] == "names" else ROBOT.joint_names
        chunk = Chunk(
            max(0, self.chunk_id - 3) if given["id"] == "old" else self.chunk_id,
            max(0, self.epoch + (given["epoch"] if given["epoch"] != 1 else 0)),
            self.node_ns - round(given["age"] * S), given["step"], names, positions, given["committed"],
            given["session"],
        )  # fmt: skip
        armed = self.controller._in_charge
        reason = self.controller.accept(chunk, self.node_ns)
        if armed:
            for rule in self.rules:
                rule.offered(self, chunk, reason)
        if reason == Reason.NONE and self.must_brake == "stop":
            self.must_brake = ""

    def on_arm(self):
        controller = self.controller
        was_armed, measured = controller._in_charge, self.shown.copy()
        reason = controller.arm()
        for rule in self.rules:
            rule.asked(self, "arm again" if was_armed else "arm", reason, measured)
        if reason == Reason.NONE and not was_armed:
            self.must_brake, self.before, self.start = "", None, controller._motion.position

    def on_home(self, torso=False):
        reason = self.controller.home(self.node_ns, torso=torso)
        for rule in self.rules:
            rule.asked(self, "home", reason, self.shown)
        if reason == Reason.NONE:
            self.must_brake, self.taken = "", False

    def on_home_torso(self):
        self.on_home(torso=True)

    def on_stop(self):
        self.controller.stop()
        for rule in self.rules:
            rule.asked(self, "stop", Reason.NONE, self.shown)
        self.must_brake, self.taken = self.must_brake or "stop", False

    def on_takeover(self, wanted):
        if wanted:
            was_on, reason = self.taken, self.controller.take_over(self._input())
            for rule in self.rules:
                rule.asked(self, "take over again" if was_on else "take over", reason, self.shown)
            if reason == Reason.NONE:
                self.must_brake, self.taken = "", True
            return
        self.controller.give_back()
        if self.taken:
            for rule in self.rules:
                rule.asked(self, "give back", Reason.NONE, self.shown)
            self.must_brake, self.taken = self.must_brake or "stop", False

    def on_person(self, off):
        """The person's input comes, from where the arms are but for one joint."""
        self.person.positions = self.shown[:14].copy()
        self.person.positions[self.person.random.choice(np.flatnonzero(ROBOT.is_arm))] += off
        self.person.centre = self.person.goal = self.person.positions
        self.person.speed, self.person.every = 0.0, 1

    def on_person_moves(self, speed, reach):
        self.person.speed, self.person.reach = speed, reach

    def on_person_leaps(self, joint, by):
        if self.person.positions is not None:
            self.person.positions = self.person.positions + np.eye(14)[joint] * by

    def on_person_silent(self, silent):
        self.person_link.silent = silent

    def on_person_unusable(self, count):
        self.person_link.unusable = count

    def on_person_late(self, seconds):
        self.person_link.late = seconds

    def on_person_every(self, ticks):
        self.person.every = ticks

    def on_person_unstamped(self, zero):
        self.person_link.zero_stamps = zero

    def on_person_heals(self):
        self.person_link, self.person.every = Link(delivered_ns=self.person_link.delivered_ns), 1

    def on_disarm(self):
        self.controller.disarm()
        self.must_brake, self.taken = "disarm", False

    def on_estop(self, pressed):
        self.controller.set_estop(pressed)
        if pressed:
            self.must_brake, self.taken = "e-stop", False

    def on_driver(self, error):
        self.controller.set_driver_error("left", error)
        if error and self.controller.commanding:
            self.must_brake, self.taken = "driver error", False

    def on_silent(self, group, silent):
        self.links[group].silent = silent

    def on_unusable(self, group, count, how):
        self.links[group].unusable, self.links[group].how = count, how

    def on_late(self, group, seconds):
        self.links[group].late = seconds

    def on_zero_stamps(self, group, zero):
        self.links[group].zero_stamps = zero

    def on_second_publisher(self, group, offset):
        self.links[group].second, self.stepped = offset, True

    def on_sensor_step(self, seconds):
        if not self.history.simulated:
            self.stepped = True
            self.robot_ns += round(seconds * S)
            self._stepped(seen=seconds <= -0.2, shorter=seconds > 0)

    def on_clock_step(self, seconds):
        self.node_ns += round(seconds * S)
        self.irregular = self.stepped = True
        if seconds < 0:
            for rule in self.rules:
                rule.asked(self, "clock", Reason.NONE, self.shown)
        if not self.history.simulated:
            self._stepped(seen=seconds > 0.1, shorter=seconds < 0)  # less may be one late message, where ticks are long

    def _stepped(self, *, seen, shorter):
        """What was late cannot be told any more; where delays seem longer from now on, regular streams show it.

        Not so while messages seem to come early, because a clock was set the other way just before.
        """
        seen &= self.steady_ns - self.shorter_ns > EARLY * S
        if shorter:
            self.shorter_ns = self.steady_ns
        self.person_truth.least = 0, np.inf
        for name, truth in self.truth.items():
            truth.least = 0, np.inf
            link = self.links[name]
            healthy = link == Link(delivered_ns=link.delivered_ns, sent=link.sent)
            if seen and healthy and self.steady_ns - truth.arrival_ns < 3 * TICK:
                truth.stepped_ns = self.steady_ns

    def regular(self, seconds):
        """Whether the node's clock has gone at its rate for that long."""
        return self.every == 1 and self.steady_ns - self.regular_since_ns > seconds * S

    def on_clock_rate(self, rate, every):
        self.rate, self.every, self.irregular = rate, every, True

    def on_frozen(self, frozen):
        self.frozen = frozen

    def on_blocked(self, blocked):
        self.blocked = blocked

    def on_jump(self, joint, by):
        self.joints[joint] += by
        self.torso_moved_ns = self.counted_ns if joint >= 14 else self.torso_moved_ns

    def on_torso(self, by):
        self.joints[14:] += by
        self.torso_moved_ns = self.counted_ns

    def on_encoder(self, joint, offset):
        self.offsets[joint] = offset
        self.torso_moved_ns = self.counted_ns if joint >= 14 else self.torso_moved_ns

    def on_heal(self):
        """All is well again; what cannot be is put where it should be."""
        self.links = {name: Link(delivered_ns=link.delivered_ns) for name, link in self.links.items()}
        self.on_person_heals()
        self.frozen = self.blocked = False
        if self.offsets[14:].any():
            self.torso_moved_ns = self.counted_ns
        self.offsets[:] = 0.0
        self.rate = self.rate or 1.0
        self.controller.set_estop(False)
        self.controller.set_driver_error("left", "")
        limiter = self.controller.limiter
        self.joints = np.clip(self.joints, limiter.lower, limiter.upper)
        if np.abs(self.joints[14:] - self.controller.joints.home[14:]).max() > 0.05:
            self.joints[14:] = self.controller.joints.home[14:]
            self.torso_moved_ns = self.counted_ns

    # Time

    def tick(self, period_ns):
        self.steady_ns += period_ns
        self.counted_ns += min(period_ns, round(self.settings.max_dt * S))
        self.robot_ns += period_ns
        self.owed_ns += round(period_ns * self.rate)
        self.count += 1
        if self.count % self.every == 0:
            self.node_ns, self.owed_ns = self.node_ns + self.owed_ns, 0
        if self.irregular:
            self.regular_since_ns, self.irregular = self.steady_ns, False
        self._measure()
        for name in GROUPS:
            self._deliver(self.links[name], self.truth[name], self.samples, {name: self.streams[name]})
        if self.person.positions is not None:
            self._lead(period_ns)
        feedback = {name: stream.newest(self.steady_ns) for name, stream in self.streams.items()}
        command = self.controller.step(Inputs(self.node_ns, self.steady_ns, feedback, person=self._input()))
        self.ticks += 1
        self.ticked_ns = self.node_ns
        self.reached.update((command.state.name, command.reason.name))
        self._judge(command, period_ns)
        target = None if command.motion is None else command.motion.position
        if target is not None and not self.blocked:
            own = slice(0, 17 if command.all_groups else 14)
            share = 1 - np.exp(-period_ns / S / self.history.lag)
            self.joints[own] += (target - self.joints)[own] * share

    def _judge(self, command, period_ns):
        if command.reason == Reason.CONTROL_FAILED:
            raise AssertionError(command.detail)
        if command.motion is None or command.state in LATCHED:
            self.taken = False
        if command.motion is None:
            if self.must_brake == "disarm":
                self.must_brake = ""
            self.before = None
            return
        tick = Tick.of(self, command, period_ns)
        for rule in self.rules:
            rule.check(self, tick)
        self.before = tick
        if self.must_brake == "stop" and not tick.velocity.any():
            self.must_brake = ""

    def _measure(self):
        stamp = self.node_ns if self.history.simulated else self.robot_ns
        positions = self.joints + self.offsets
        if not self.frozen:
            self.shown = positions + self.random.uniform(-self.history.noise, self.history.noise, 17)
        self.samples.append((self.steady_ns, stamp, self.shown))

    def _lead(self, period_ns):
        self.person.move(period_ns / S)
        if self.ticks % self.person.every == 0:
            stamp = self.node_ns if self.history.simulated else self.robot_ns
            self.person_samples.append((self.steady_ns, stamp, self.person.positions))
        self._deliver(self.person_link, self.person_truth, self.person_samples, self.person_streams)

    def _input(self):
        return {name: stream.newest(self.steady_ns) for name, stream in self.person_streams.items()}

    def _deliver(self, link, truth, samples, streams):
        """The newest message that has had its way; as the bridge's queue, one is kept."""
        if link.silent:
            return
        due = self.steady_ns - round(link.late * S)
        sample = next((s for s in reversed(samples) if s[0] <= due), None)
        if sample is None or sample[0] <= link.delivered_ns:
            return
        gap_ns, link.delivered_ns = sample[0] - link.delivered_ns, sample[0]
        link.sent += 1
        if link.unusable:
            link.unusable -= 1
            truth.interleaved_ns = -1
            for stream in streams.values():
                stream.store(None, sample[1], self.node_ns, self.steady_ns)
            return
        stamp = 0 if link.zero_stamps else sample[1]
        if link.second is not None and link.sent % 2:
            stamp = sample[1] + round(link.second * S)
        for name, stream in streams.items():
            place = self.controller.joints.groups[name]
            stream.store(sample[2][place].copy(), stamp, self.node_ns, self.steady_ns)
        truth.positions = sample[2]
        self._note(link, truth, stamp, (self.steady_ns - sample[0]) / S, gap_ns)

    def _note(self, link, truth, stamp, delay, gap_ns):
        truth.arrival_ns, truth.lateness = self.steady_ns, 0.0
        if link.second is None or link.zero_stamps or abs(link.second) * S <= gap_ns:  # stamps that do not go back
            truth.interleaved_ns = -1
        elif truth.interleaved_ns < 0:
            truth.interleaved_ns = self.steady_ns
        if link.second is not None:
            truth.least = 0, np.inf
        if stamp == 0 or link.second is not None or self.history.simulated:
            return
        if delay <= truth.least[1] or self.steady_ns - truth.least[0] > 29 * S:
            truth.least = self.steady_ns, delay
        truth.lateness = delay - truth.least[1]


def run(history, reached=None):
    """Live through it; return the number of control ticks. `reached` counts states and reasons.

    Raises:
        BrokenRuleError: a rule was broken.
    """
    world = World(history, reached)
    try:
        for event in history.events:
            world.do(*event)
        for rule in world.rules:
            rule.end(world)
    except BrokenRuleError:
        raise
    except Exception as error:
        raise BrokenRuleError("no exception", f"{error!r} after {list(world.happened)[-1]}") from error
    return world.ticks


def minimised(history, rule, budget=300):
    """The shortest history found that breaks the same rule: parts are left out for as long as it does."""

    def breaks(events):
        try:
            run(History(**{**vars(history), "events": events}))
        except BrokenRuleError as broken:
            return broken.rule == rule
        return False

    events, part = list(history.events), max(1, len(history.events) // 2)
    while budget > 0:
        begin, shorter = 0, False
        while begin < len(events) and budget > 0:
            rest = events[:begin] + events[begin + part :]
            budget -= 1
            if breaks(rest):
                events, shorter = rest, True
            else:
                begin += part
        if part == 1 and not shorter:
            break
        part = max(1, part // 2)
    return History(**{**vars(history), "events": events})
