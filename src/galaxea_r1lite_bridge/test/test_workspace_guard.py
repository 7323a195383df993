"""In closed loop the guard keeps its promise: no command is more than 2 mm outside of a workspace limit."""

import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.blending import BLENDINGS
from galaxea_r1lite_bridge.execution.plan import Chunk

from .rig import ROBOT, STEP, Rig, S

ROUNDING = 2e-3  # m


@pytest.mark.parametrize("seed", [31, 48, 152])
def test_chunks_that_flip_do_not_wear_the_limit_away(seed):
    """Arms swing towards each other at full speed, and away again, time and again just before they would stop."""
    random = np.random.default_rng(seed)
    rig = Rig({"blending": [BLENDINGS[1], BLENDINGS[0], BLENDINGS[2]][random.integers(3)]})
    rig.plant.lag, rig.noise = random.choice([0.02, 0.05, 0.15]), 1e-5
    rig.armed()
    lower, upper = rig.controller.limiter.lower[:14], rig.controller.limiter.upper[:14]
    chunk_id = 0
    while len(rig.sent) < 600:
        goal = np.where(random.random(14) < 0.5, lower, upper)
        rows, step = int(random.choice([2, 3, 10, 32])), int(random.choice([STEP // 4, STEP, STEP, 3 * STEP]))
        goal[0], goal[7] = random.uniform(-1.6, -0.2), random.uniform(0.2, 1.6)
        share = np.linspace(0, 1, rows)[:, None] ** random.choice([0.2, 1, 4])
        start = rig.joints[:14] if random.random() < 0.7 else goal - random.normal(0, 1, 14)
        stamp = rig.clock.now_ns - int(random.choice([0, 0.1, 0.4]) * S)
        committed = int(random.choice([0, 4]))
        chunk_id += 1
        chunk = Chunk(chunk_id, 1, stamp, step, ROBOT.joint_names, start + share * (goal - start), committed)
        rig.controller.accept(chunk, rig.clock.now_ns)
        for _ in range(int(random.choice([3, 8, 15, 30]))):
            rig.tick()
    sent = np.array([command.motion.position for command in rig.sent if command.motion is not None])
    assert rig.controller.guard.workspace.clearance(sent).min() > -ROUNDING
