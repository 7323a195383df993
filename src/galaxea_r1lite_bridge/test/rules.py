"""The rules of docs/concepts/safety.md, which the bridge keeps whatever happens: each a class that looks at every tick.

Real time is the steady clock's. What must happen is told from what the world did, never from what the bridge believes.
"""

from dataclasses import dataclass

import numpy as np

from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .clearance import clearance

S = 1_000_000_000
OWN = slice(0, 14)
TOLERANCE = 1e-5  # rad/s and mm/s: rounding of positions over a tick
FEEDBACK = (Reason.FEEDBACK_MISSING, Reason.FEEDBACK_STALE, Reason.FEEDBACK_INVALID, Reason.FEEDBACK_INTERLEAVED,
            Reason.FEEDBACK_CLOCK_STEPPED)  # fmt: skip


class BrokenRuleError(Exception):
    """A rule was broken."""

    def __init__(self, rule, text):
        super().__init__(f"{rule}: {text}")
        self.rule = rule


@dataclass(frozen=True)
class Tick:
    """One control tick with a command.

    Attributes:
        command: what the bridge sent.
        dt: s of real time since the tick before, at most two control periods: what limits may count.
        before: last tick, None after arming.
        velocity: [17] in real time.
        plan_ns: place in the plan, and the chunk that it counts from.
        must_brake: why the commanded motion must decelerate, empty: it need not.
        torso: whether the torso is commanded.
    """

    command: object
    dt: float
    before: "Tick | None"
    velocity: np.ndarray
    plan_ns: int
    chunk: object
    must_brake: str
    torso: bool

    @classmethod
    def of(cls, world, command, period_ns):
        before, dt = world.before, min(period_ns / S, world.settings.max_dt)
        place = world.start if before is None else before.command.motion.position
        velocity = (command.motion.position - place) / dt
        torso = command.all_groups and before is not None and before.command.all_groups
        if not torso:  # then it is where it is measured, or sets off from there
            velocity[14:] = command.motion.velocity[14:] if command.all_groups else 0.0
        plan = world.controller.plan
        return cls(
            command, dt, before, velocity, world.node_ns - plan.lag_ns, plan.newest, must_brake(world, command), torso
        )

    @property
    def velocity_before(self):
        return np.zeros(17) if self.before is None else self.before.velocity


def must_brake(world, command):
    if command.state in (State.FAULT, State.ESTOP):
        return command.state.name
    bad = bad_feedback(world, world.settings.watchdog.feedback_age.limit + 1e-6)
    return world.must_brake or bad or bad_input(world, command)


def young(world):
    return world.settings.watchdog.feedback_age.limit - 0.05


def bad_feedback(world, limit):
    """Which group's feedback must not be used, and why; empty: all is well."""
    for name, truth in world.truth.items():
        age = (world.steady_ns - truth.arrival_ns) / S
        if max(age, truth.lateness) > limit:
            return f"{name} {age:.3f} s without a usable message, {truth.lateness:.3f} s late"
        if truth.interleaved_ns > 0 and world.steady_ns - truth.interleaved_ns > S:
            return f"{name} from two publishers"
    return ""


def bad_input(world, command):
    """Why the arms of a person who has taken over must come to rest; empty: they may follow."""
    if not world.taken:
        return ""
    if command.state != State.TAKEOVER:
        return "a person has taken over, and is not followed"
    truth = world.person_truth
    age = max((world.steady_ns - truth.arrival_ns) / S, truth.lateness)
    return f"a person's input is {age:.3f} s old" if age > 0.2 + 1e-6 else ""


class Rule:
    """Its name begins with the number in docs/concepts/safety.md."""

    name = ""

    def asked(self, world, what, reason, measured):
        """The bridge was asked to arm, home, stop, take over or give back, and answered; or its clock was set back."""

    def offered(self, world, chunk, reason):
        """A chunk came to armed arms, and was taken (NONE) or dropped."""

    def check(self, world, tick):
        """A command was sent."""

    def end(self, world):
        """The history is over."""

    def broken(self, text):
        raise BrokenRuleError(self.name, text)


class Finite(Rule):
    name = "0 position limits"

    def check(self, world, tick):
        limiter, position = world.controller.limiter, tick.command.motion.position
        inside = (position >= limiter.lower - 1e-9) & (position <= limiter.upper + 1e-9)
        if not inside[: 17 if tick.torso else 14].all() or not np.isfinite(position).all():
            self.broken(f"{np.flatnonzero(~inside)} outside: {position}")
        if tick.command.state in (State.DISARMED, State.INACTIVE):
            self.broken("a command while disarmed")


class Braking(Rule):
    """Also of what must brake for rules 3 and 7: late feedback, and feedback from two publishers."""

    name = "1 braking is always available and always wins"

    def check(self, world, tick):
        if tick.must_brake:
            left = np.abs(tick.velocity_before) - world.controller.limiter.acceleration * tick.dt
            fast = np.abs(tick.velocity) > np.maximum(left, 0.0) + TOLERANCE
            fast |= tick.velocity * tick.velocity_before < -TOLERANCE
            if fast.any():
                self.broken(
                    f"{tick.must_brake}, but joints {np.flatnonzero(fast)} go from "
                    f"{tick.velocity_before[fast].round(4)} to {tick.velocity[fast].round(4)} in {tick.dt} s"
                )
        elif tick.command.reason in FEEDBACK and not world.stepped and not bad_feedback(world, young(world)):
            self.broken(f"{tick.command.reason.name} though no stream is old")


class RealTime(Rule):
    name = "2 limits count in real time"

    def check(self, world, tick):
        limiter = world.controller.limiter
        speed, change = np.abs(tick.velocity), np.abs(tick.velocity - tick.velocity_before)
        if (speed > limiter.velocity + TOLERANCE).any():
            self.broken(f"speed {(speed / limiter.velocity).max():.4f} of the limit")
        if (change > limiter.acceleration * tick.dt + TOLERANCE).any():
            self.broken(f"acceleration {(change / limiter.acceleration).max() / tick.dt:.4f} of the limit")
        if world.rate < 1 and world.regular(0.15):
            slower = speed <= np.abs(tick.velocity_before) - limiter.acceleration * tick.dt + TOLERANCE
            kept = speed <= world.rate * limiter.velocity + TOLERANCE
            if not (slower | kept).all():
                self.broken(f"speed {speed} on a clock of pace {world.rate}")
        if tick.before is not None and tick.chunk is not None and tick.chunk is tick.before.chunk:
            gone = tick.plan_ns - tick.before.plan_ns
            if gone > tick.dt * S + 2:
                self.broken(f"the plan went on by {gone / S} s in {tick.dt} s")


class Steps(Rule):
    name = "3 a clock that was set is learned again"

    def check(self, world, tick):
        since = world.steady_ns - max(truth.stepped_ns for truth in world.truth.values())
        if since < 0.95 * S and tick.command.state in (State.TRACKING, State.TAKEOVER):
            self.broken(f"a plan is followed {since / S:.2f} s after a step of the clocks")


class Consent(Rule):
    """Of rules 4 and 7: told from what was asked, stamped and sent."""

    name = "4 no motion without consent, and 7 one policy"

    def __init__(self):
        self.since_ns = self.session = self.ended = None

    def asked(self, world, what, reason, measured):
        if reason != Reason.NONE or (what == "arm again" and world.controller.plan):
            return
        if what in ("arm", "arm again"):
            self.since_ns, self.session, self.ended = world.ticked_ns, None, None
        elif what == "clock":  # was set back: only what is observed afterwards counts
            self.since_ns = None if self.since_ns is None else min(self.since_ns, world.node_ns)
        elif what == "stop":
            self.since_ns, self.ended = world.ticked_ns, self.ended if self.session is None else self.newest
        elif what == "give back":
            self.since_ns = world.ticked_ns

    def offered(self, world, chunk, reason):
        if reason != Reason.NONE:
            return
        if world.taken:
            self.broken("a chunk is taken while a person has taken over")
        if chunk.stamp_ns < self.since_ns:
            self.broken(f"observed {(self.since_ns - chunk.stamp_ns) / S:.2f} s before arming or stopping")
        if self.session not in (None, chunk.session):
            self.broken(f"session {chunk.session} after {self.session}")
        if self.ended is not None and chunk.epoch <= self.ended:
            self.broken(f"epoch {chunk.epoch} that a stop has ended")
        self.session, self.newest = chunk.session, chunk.epoch


class Workspace(Rule):
    """Looks at many commands at once, which is cheaper by far."""

    name = "5 the arms stay inside the workspace"

    def __init__(self):
        self.sent = []  # commands, and each as it would be had the arms not moved

    def check(self, world, tick):
        if tick.before is None or world.offsets.any() or not tick.velocity.any():
            return
        if world.counted_ns - world.torso_moved_ns < S // 2:  # arms in motion cannot foresee that, and must brake
            return
        position = tick.command.motion.position
        self.sent.append((position, np.concatenate([tick.before.command.motion.position[OWN], position[14:]])))

    def end(self, world):
        if not self.sent:
            return
        workspace, (sent, was) = world.controller.guard.workspace, np.array(self.sent).swapaxes(0, 1)
        now = clearance(workspace, sent).min(axis=1)
        inside = now < -1e-3  # the torso may have been moved: then it must not become less by the arms' motion
        lost = np.zeros(len(now))
        if inside.any():
            lost[inside] = clearance(workspace, was[inside]).min(axis=1) - now[inside]
        total = 0.0
        for step, less in zip(lost, inside, strict=True):
            total = max(0.0, total + step) if less else 0.0
            if total > 1e-3:
                self.broken(f"the arms come {1e3 * total:.2f} mm nearer where they are too near")


class StartValues(Rule):
    name = "10 start values are believed last"

    def asked(self, world, what, reason, measured):
        controller, limiter = world.controller, world.controller.limiter
        outside = (measured < limiter.lower - 0.01) | (measured > limiter.upper + 0.01)
        if what == "arm" and reason == Reason.NONE and world.before is None and outside.any():
            self.broken(f"armed at {measured}")
        if what == "home" and reason == Reason.NONE:
            position = controller._motion.position
            if not ((position >= limiter.lower) & (position <= limiter.upper)).all():
                self.broken(f"home from {position}")
            if len(controller.plan.newest.positions) > 5000:
                self.broken(f"a way home of {len(controller.plan.newest.positions)} steps")
        named = [name for name in controller.joints.every_name if name in controller.refused]
        if reason == Reason.OUTSIDE_LIMITS and not named:
            self.broken(f"{what} is refused without a joint: {controller.refused!r}")


class Takeover(Rule):
    """That old input moves nothing is part of the rule of braking."""

    name = "11 a person takes over from where the arms are"

    def __init__(self):
        self.input = None  # that the last command followed

    def asked(self, world, what, reason, measured):
        if what == "take over" and reason == Reason.NONE:
            self.near(world)

    def check(self, world, tick):
        before, self.input = self.input, None
        if tick.command.state != State.TAKEOVER:
            return
        if not world.taken:
            self.broken("nobody has taken over")
        self.input = world.person_truth.positions
        leap = 0.2 * world.controller.limiter.velocity[OWN] + 1e-9
        if before is None or (np.abs(self.input - before) > leap)[world.controller.joints.angular[OWN]].any():
            self.near(world)

    def near(self, world):
        """The input must be near what was measured last."""
        groups = world.controller.joints.groups
        measured = np.concatenate([world.truth[name].positions[place] for name, place in groups.items()])
        off = np.abs(world.person_truth.positions - measured[OWN])
        if not (off <= np.where(world.controller.joints.angular[OWN], 0.1, 10.0) + 1e-9).all():
            self.broken(f"an input that is {off} away is followed")


RULES = [Finite, Braking, RealTime, Steps, Consent, Workspace, StartValues, Takeover]
