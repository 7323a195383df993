"""The rules' checkers find a bridge that breaks them: each fault here is one that the bridge has had, or could have."""

import json
from dataclasses import replace

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution import takeover
from galaxea_r1lite_bridge.execution.arming import ArmingGate
from galaxea_r1lite_bridge.execution.clocks import Clocks
from galaxea_r1lite_bridge.execution.controller import MotionController
from galaxea_r1lite_bridge.execution.limits import Limiter
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.execution.stamps import Stamps
from galaxea_r1lite_bridge.execution.takeover import Takeover
from galaxea_r1lite_bridge.execution.watchdogs import FeedbackAge
from galaxea_r1lite_bridge.execution.workspace_guard import WorkspaceGuard

from .histories import TICK, History, generate, minimised, run, wave
from .rules import BrokenRuleError

GENERATED = range(100)  # seeds; in these, faults show early
LATE = [["tick", 30, TICK], ["arm"], ["chunk", wave(np.random.default_rng(0))], ["tick", 20, TICK],
        ["late", "left_arm", 0.4], ["tick", 60, TICK]]  # fmt: skip
PLAIN = History(0, "switch", closed_loop=True, lag=0.03, noise=1e-5, simulated=False, events=[])
OFF = [["encoder", 15, 2 * np.pi], ["tick", 40, TICK], ["arm"], ["tick", 10, TICK]]
LED = [["tick", 30, TICK], ["arm"], ["person", 0.0], ["tick", 2, TICK], ["takeover", True], ["person_moves", 1.0, 0.5],
       ["tick", 9, TICK]]  # fmt: skip
LEAPS, ENDS = ([*LED, event, ["tick", 40, TICK]] for event in (["person_leaps", 2, 1.0], ["person_silent", True]))
tick, follow, lateness, come_to_rest = Clocks.tick, Limiter.follow, Stamps.lateness, MotionController._come_to_rest


def brakes_weakly(self, previous, dt):
    return follow(self, previous, previous.position + 0.2 * previous.velocity, np.zeros(17), dt)[0]


def gives_way(self, dt):
    """After a fault, back to where the arms are measured."""
    command = come_to_rest(self, dt)
    if self._latched != State.FAULT or self._motion is None or not self._arming._history:
        return command
    self._motion, _ = self.limiter.follow(self._motion, self._arming._history[-1][1], np.zeros(17), dt)
    return replace(command, motion=self._motion)


def stops_at_an_unusable_message(self, given):
    for group, feedback in given.inputs.feedback.items():
        if feedback.invalid:
            yield self._found(Reason.FEEDBACK_INVALID, group)


def counts_on_the_clock(self, now_ns, steady_ns):
    before = self._ticks[-1][0] if self._ticks else now_ns
    elapsed = tick(self, now_ns, steady_ns)
    return replace(elapsed, dt=min(max(now_ns - before, 0) / 1e9, self.max_dt), pace=1.0)


FAULTS = [
    (Limiter, "brake", brakes_weakly, 1, GENERATED),
    (MotionController, "_come_to_rest", gives_way, 1, GENERATED[1:]),
    (FeedbackAge, "_findings", stops_at_an_unusable_message, 1, GENERATED),
    (Clocks, "tick", counts_on_the_clock, 2, GENERATED[1:]),
    (Stamps, "lateness", lambda *args: 0 * lateness(*args), 1, LATE),
    (Stamps, "refusal", lambda *_: Reason.NONE, 3, GENERATED[1:]),
    (WorkspaceGuard, "blocked", lambda *_: None, 5, GENERATED[15:]),
    (ArmingGate, "outside", lambda *_: "", 10, OFF),
    (Takeover, "refusal", lambda *_: (Reason.NONE, ""), 11, LEAPS),
    (takeover, "MAX_AGE", 1.0, 1, ENDS),
]


@pytest.mark.parametrize("given", FAULTS, ids=lambda given: f"{given[0].__name__}.{given[1]}")
def test_a_bridge_that_breaks_a_rule_is_found(monkeypatch, given):
    owner, name, fault, rule, source = given
    if isinstance(source, range):
        histories = map(generate, source)
    else:
        histories = [replace(PLAIN, events=source)]
        run(histories[0])  # without the fault it is kept
    monkeypatch.setattr(owner, name, fault)
    broken = []
    for history in histories:
        try:
            run(history)
        except BrokenRuleError as error:
            broken.append(error.rule)
            if error.rule.startswith(f"{rule} "):
                return
    pytest.fail(f"only {broken} were found")


def test_a_history_that_breaks_a_rule_is_shortened(monkeypatch):
    monkeypatch.setattr(Limiter, "brake", brakes_weakly)
    history = generate(0)
    history = replace(history, events=history.events[:60])
    with pytest.raises(BrokenRuleError) as found:
        run(history)
    shorter = minimised(history, found.value.rule, budget=40)
    assert len(shorter.events) < len(history.events) / 3
    with pytest.raises(BrokenRuleError):
        run(shorter)


def test_the_same_seed_makes_the_same_history():
    assert generate(3) == generate(3)
    assert json.loads(json.dumps(generate(3).events)) == generate(3).events
