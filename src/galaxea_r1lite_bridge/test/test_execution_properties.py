"""Whatever a policy, network, clock, sensor or operator does: no rule of docs/concepts/safety.md is broken.

`make test` lives through 200,000 control ticks and no fewer, with the same seeds each time; `make fuzz` through others.
"""

from collections import Counter

import pytest

from .histories import generate, minimised, run
from .rules import BrokenRuleError

FOUND = [
    20000165, 20000166, 20001456, 20003460, 40000291, 40001800, 60000000, 70000064, 600005874,
]  # fmt: skip  # by `make fuzz`, and cured
LED = [6000009]  # the same, where a person takes over
SHARES, TICKS = 8, 200_000  # each share is a test of its own, so that they run side by side
REACHED = [
    "DISARMED", "HOLDING", "TRACKING", "STOPPING", "FAULT", "ESTOP", "ARMED", "STARVED", "PLAN_STALE",
    "STOP_REQUESTED", "HOMING", "AT_HOME", "FEEDBACK_STALE", "FEEDBACK_INVALID", "FEEDBACK_JUMPED", "TRACKING_ERROR",
    "CONTROL_OVERRUN", "DRIVER_ERROR", "ESTOP_PRESSED", "FEEDBACK_INTERLEAVED", "FEEDBACK_CLOCK_STEPPED", "TAKEOVER",
    "TAKEOVER_INPUT", "TAKEOVER_FAR", "TAKEOVER_ENDED",
]  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.parametrize("share", range(SHARES))
def test_no_history_breaks_a_rule(share):
    ticks, seed, reached = 0, share * 1_000_000, Counter()
    while ticks < TICKS / SHARES:
        history = generate(seed, takeover=seed % 2 == 1)
        try:
            ticks += run(history, reached)
        except BrokenRuleError as broken:
            history = minimised(history, broken.rule)
            pytest.fail(f"seed {seed}: {broken}\n" + "\n".join(map(str, [history, *history.events])))
        seed += 1
    assert ticks >= TICKS / SHARES
    assert not [name for name in REACHED if not reached[name]], reached
    assert reached["TRACKING"] + reached["TAKEOVER"] / 2 > 0.2 * ticks, "most of the time something should move"


@pytest.mark.parametrize(("seed", "takeover"), [*((seed, False) for seed in FOUND), *((seed, True) for seed in LED)])
def test_histories_that_once_broke_a_rule(seed, takeover):
    assert run(generate(seed, takeover=takeover)) > 0
