import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.clocks import Clocks
from galaxea_r1lite_bridge.execution.reasons import Reason, State

from .rig import TICK, Rig, S, shown

SWING = 1.2 * np.eye(14)[0] - 1.2 * np.eye(14)[7]


def lived(clocks, *steps):
    """The last tick's time after pairs of what the node's and the steady clock went on by."""
    now_ns, steady_ns = 50 * S, 7 * S
    elapsed = clocks.tick(now_ns, steady_ns)
    for node, steady in steps:
        now_ns, steady_ns = now_ns + node, steady_ns + steady
        elapsed = clocks.tick(now_ns, steady_ns)
    return elapsed


def test_two_clocks_that_agree():
    elapsed = lived(Clocks(0.02), *[(TICK, TICK)] * 30)
    assert (elapsed.dt, elapsed.pace, elapsed.ahead_ns, elapsed.uneven) == (0.01, 1.0, 0, False)
    assert elapsed.plan_ns == TICK


def test_nothing_has_passed_at_the_first_tick():
    assert lived(Clocks(0.02)).dt == 0


@pytest.mark.parametrize("step", [0.02, 0.2, 3600.0])
def test_a_plan_waits_where_the_clock_steps_ahead(step):
    elapsed = lived(Clocks(0.02), *[(TICK, TICK)] * 30, (TICK + round(step * S), TICK))
    assert (elapsed.dt, elapsed.pace, elapsed.plan_ns) == (0.01, 1.0, TICK)
    assert elapsed.ahead_ns == round(step * S)


def test_a_clock_that_is_set_back_leaves_time_to_brake():
    clocks = Clocks(0.02)
    elapsed = lived(clocks, *[(TICK, TICK)] * 30, (-5 * S, TICK))
    assert (elapsed.dt, elapsed.plan_ns) == (0.01, 0)


def test_a_clock_that_stands_still_stops_plans_but_not_braking():
    elapsed = lived(Clocks(0.02), *[(TICK, TICK)] * 30, *[(0, TICK)] * 11)
    assert (elapsed.dt, elapsed.pace, elapsed.plan_ns, elapsed.uneven) == (0.01, 0.0, 0, True)


def test_a_slow_clock_slows_plans_and_steps_of_it_are_evened_out():
    assert lived(Clocks(0.02), *[(TICK // 2, TICK)] * 30).plan_ns == TICK // 2
    assert lived(Clocks(0.02), *[(0, TICK), (TICK, TICK)] * 30).pace == pytest.approx(0.5, abs=0.06)


def test_a_late_tick_counts_as_two_periods():
    elapsed = lived(Clocks(0.02), *[(TICK, TICK)] * 30, (S, S))
    assert (elapsed.dt, elapsed.plan_ns, elapsed.ahead_ns) == (0.02, S // 50, S - S // 50)


@pytest.mark.parametrize(
    "extra",
    [
        lambda k: S // 5 if k == 25 else 0,
        lambda k: TICK,
        lambda k: 24 * S // 100 * (k % 3 == 0),
        lambda k: -TICK // 2,
        lambda k: -TICK if 20 < k < 45 else 0,
        lambda k: -TICK if k % 2 else TICK,
        lambda k: int(np.random.default_rng(k).integers(-TICK, 3 * TICK)),
    ],
    ids=["one step", "twice as fast", "steps", "half as fast", "stands still", "in steps", "random"],
)
def test_no_clock_raises_the_speed_or_the_acceleration_in_real_time(armed, extra):
    armed.accept(SWING, rows=12, ramp=True)
    path, limiter = [], armed.controller.limiter
    for k in range(120):
        armed.clock.now_ns += extra(k)
        path.append(armed.tick().motion.position[:14])
    velocity = np.diff(path, axis=0) / 0.01
    acceleration = np.diff(velocity, axis=0) / 0.01
    assert np.abs(velocity / limiter.velocity[:14]).max() <= 1 + 1e-6
    assert np.abs(acceleration / limiter.acceleration[:14]).max() <= 1 + 1e-6
    assert np.abs(velocity).max() > 0.2, "it moves"


def test_in_a_slow_simulation_the_limits_hold_in_its_own_time():
    rig = Rig()
    rig.armed()
    for _ in range(15):
        rig.clock.now_ns -= TICK * 3 // 4
        rig.tick()
    rig.accept(SWING, rows=12, ramp=True)
    path = []
    for _ in range(300):
        rig.clock.now_ns -= TICK * 3 // 4
        path.append(rig.tick().motion.position[:14])
    velocity = np.diff(path, axis=0) / 0.0025
    assert 0.9 < np.abs(velocity / rig.controller.limiter.velocity[:14]).max() <= 1 + 1e-6
    assert np.abs(np.diff(velocity, axis=0) / 0.0025 / rig.controller.limiter.acceleration[:14]).max() <= 1 + 1e-6


def test_braking_works_while_the_clock_stands_still(armed):
    armed.accept(SWING, ramp=True)
    armed.run(0.5)
    moving = armed.sent[-1].motion
    armed.clock.now_ns -= TICK
    armed.controller.stop()
    command = armed.tick()
    assert command.state == State.STOPPING
    assert np.abs(command.motion.velocity[0]) == pytest.approx(np.abs(moving.velocity[0]) - 0.06, abs=1e-6)


def test_a_clock_that_stands_still_is_reported(armed):
    armed.accept(SWING, ramp=True)
    armed.run(0.5)
    for _ in range(60):
        armed.clock.now_ns -= TICK
        command = armed.tick()
    assert shown(command) == (State.HOLDING, Reason.LIMIT_CLOCK)
    assert armed.controller.interventions[Reason.LIMIT_CLOCK] == 1
    assert shown(armed.run(0.3)) == (State.TRACKING, Reason.NONE)
