"""In closed loop the guard keeps its promise: no command is more than 1 mm inside a margin."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.blending import BLENDINGS
from galaxea_r1lite_bridge.execution.limits import Limiter, Motion
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.execution.workspace import Workspace
from galaxea_r1lite_bridge.execution.workspace_guard import WorkspaceGuard
from galaxea_r1lite_bridge.robot.config import limit_arrays

from .clearance import TOLERANCE, check_clearance, clearance
from .rig import ROBOT, STEP, TICK, Rig, S

LIMITER = Limiter(*limit_arrays(ROBOT.actuated))
WORKSPACE = Workspace(ROBOT)


def flip(rig, random, ticks, periods=(TICK,), inward=True):
    """Chunks to far corners of the joints' range, each cut off by the next one, at full speed."""
    lower, upper = rig.controller.limiter.lower[:14], rig.controller.limiter.upper[:14]
    chunk_id, end = 0, len(rig.sent) + ticks
    while len(rig.sent) < end:
        goal = np.where(random.random(14) < 0.5, lower, upper)
        if random.random() < 0.3:
            goal = random.uniform(lower, upper)
        rows, step = int(random.choice([2, 3, 10, 32])), int(random.choice([STEP // 4, STEP, STEP, 3 * STEP]))
        if inward:
            goal[0], goal[7] = random.uniform(-1.6, -0.2), random.uniform(0.2, 1.6)
        share = np.linspace(0, 1, rows)[:, None] ** random.choice([0.2, 1, 4])
        start = rig.joints[:14] if random.random() < 0.7 else goal - random.normal(0, 1, 14)
        stamp = rig.clock.now_ns - int(random.choice([0, 0.1, 0.4]) * S)
        committed = int(random.choice([0, 4]))
        chunk_id += 1
        chunk = Chunk(chunk_id, 1, stamp, step, ROBOT.joint_names, start + share * (goal - start), committed)
        rig.controller.accept(chunk, rig.clock.now_ns)
        for _ in range(int(random.choice([3, 8, 15, 30]))):
            rig.tick(int(random.choice(periods)))


@pytest.mark.parametrize("inward", [True, False])
@pytest.mark.parametrize("seed", [31, 48, 152])
def test_chunks_that_flip_do_not_wear_the_limit_away(seed, inward):
    """Arms swing towards each other at full speed, and away again, time and again just before they would stop."""
    random = np.random.default_rng(seed)
    rig = Rig({"blending": [BLENDINGS[1], BLENDINGS[0], BLENDINGS[2]][random.integers(3)]})
    rig.plant.lag, rig.noise = random.choice([0.02, 0.05, 0.15]), 1e-5
    rig.armed()
    flip(rig, random, 600, inward=inward)
    assert check_clearance(rig.sent, rig.controller.guard.workspace) < 0.01, "it came close"


def test_late_ticks_brake_inside_as_well():
    """Braking takes another way when ticks are late, and the next periods are not known."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        rig = Rig()
        rig.noise = 1e-5
        rig.armed()
        flip(rig, random, 400, periods=[TICK, TICK, TICK // 2, 2 * TICK])
        check_clearance(rig.sent, rig.controller.guard.workspace)


def test_braking_ends_between_the_two_ways_that_are_checked():
    random, period = np.random.default_rng(0), 0.02
    free = Limiter(LIMITER.lower - 1e9, LIMITER.upper + 1e9, LIMITER.velocity, LIMITER.acceleration, LIMITER.step)
    rounding = LIMITER.acceleration * period**2 / 8  # of a last tick that is not full
    for _ in range(20):
        velocity = LIMITER.velocity * random.uniform(-1, 1, len(LIMITER.velocity))
        motion = Motion(np.zeros_like(velocity), velocity)
        ways = free.braking(motion, 16, period)
        np.testing.assert_array_equal(ways[16], motion.position)
        low, high = np.minimum(ways[0], ways[-1]) - rounding, np.maximum(ways[0], ways[-1]) + rounding
        for ticks in ([period] * 60, [1e-3] * 1100, random.uniform(0, period, 200)):
            at = motion
            for dt in ticks:
                at = free.brake(at, dt)
            assert not at.velocity.any()
            assert ((at.position >= low) & (at.position <= high)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_torso_takes_its_uncertainty_from_the_margins(seed):
    """Uniform noise of 8 mrad on the torso's joints: the clearances with the true torso stay above the margins."""
    random = np.random.default_rng(seed)
    rig = Rig({"watchdog.feedback_jump.limit": 1.0})
    rig.noise = np.where(np.arange(17) < 14, 1e-5, 8e-3)
    rig.run(0.5)
    rig.armed()
    flip(rig, random, 600, inward=False)
    sent = np.array([command.motion.position for command in rig.sent if command.motion is not None])
    assert np.ptp(sent[:, 14:], axis=0).min() > 0, "the torso is believed to be where it is measured"
    sent[:, 14:] = rig.home[14:]
    assert clearance(rig.controller.guard.workspace, sent).min() > -TOLERANCE
    assert np.abs(np.diff(sent[:, :14], axis=0)).sum() > 5, "and the arms move"


def guard(position):
    """A guard that knows where the arms begin."""
    guard = WorkspaceGuard(WORKSPACE, None, LIMITER, 0.02)
    rest = Motion(position, np.zeros_like(position))
    guard.blocked(rest, rest)
    return guard, rest


def test_the_way_of_braking_is_checked_between_its_samples():
    """Ways past another body that are clear at begin and end are refused where they pass inside a margin in between."""
    random = np.random.default_rng(3)
    refused = seen = 0
    places = random.uniform(LIMITER.lower, LIMITER.upper, (5_000, 17))
    places[:, 14:] = np.array(ROBOT.groups["torso"].home)
    places = places[(clearance(WORKSPACE, places) > 0).all(axis=1)]
    for position in places[:150]:
        velocity = LIMITER.velocity * np.where(random.random(17) < 0.6, random.choice([-1, 1], 17), 0)
        velocity[14:] = 0
        motion = Motion(position, velocity)
        dense = []
        for share in np.linspace(0, 1, 100):  # the continuous way
            times = np.minimum(share * 0.25, np.abs(velocity) / LIMITER.acceleration)
            dense.append(position + velocity * times - np.sign(velocity) * LIMITER.acceleration * times**2 / 2)
        least = clearance(WORKSPACE, dense).min()
        seen += least < -TOLERANCE
        checked, _ = guard(position)
        blocked = checked.blocked(Motion(position, np.zeros(17)), motion)
        if least < -TOLERANCE:
            assert blocked is not None, least
            refused += 1
    assert refused == seen
    assert seen > 20


def test_from_inside_a_margin_the_arms_go_out_but_no_deeper():
    inside = np.concatenate([ROBOT.home, ROBOT.groups["torso"].home])
    inside[[0, 7]] += [-0.75, 0.75]
    begin = clearance(WORKSPACE, inside[None]).min()
    assert -0.03 < begin < -0.01
    checked, rest = guard(inside)
    assert checked.outside(inside).reason == Reason.LIMIT_ARM_DISTANCE
    out, deeper = np.zeros(17), np.zeros(17)
    out[[0, 7]], deeper[[0, 7]] = [0.06, -0.06], [-0.01, 0.01]
    assert checked.blocked(rest, Motion(inside + 0.01 * deeper, deeper)).reason == Reason.LIMIT_ARM_DISTANCE
    assert checked.blocked(rest, Motion(inside + 0.01 * out, out)) is None
    further = Motion(inside + 1.0 * out, np.zeros(17))
    assert checked.blocked(further, further) is None
    assert checked.blocked(further, rest) is not None, "the way back is closed"


def test_what_the_arms_wore_away_is_not_forgotten_when_the_torso_is_measured_anew():
    position = np.concatenate([ROBOT.home, ROBOT.groups["torso"].home])
    position[[0, 7]] += [-0.71, 0.71]
    arms = [k for k, limit in enumerate(WORKSPACE.limits) if limit.reason == Reason.LIMIT_ARM_DISTANCE]
    checked, _ = guard(position)
    assert checked._floor[arms].min() == 0
    worn = position.copy()
    worn[[0, 7]] += [-0.02, 0.02]  # as rounding might, if it could
    below = clearance(WORKSPACE, worn[None])[0, arms].min()
    assert below < -1e-4
    for turn in (1e-3, 2e-3):
        worn[14] += turn
        checked.blocked(Motion(worn, np.zeros(17)), Motion(worn, np.zeros(17)))
        assert checked._floor[arms].min() == pytest.approx(0, abs=1e-9)
