import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.reasons import Reason

from .rig import STEP, S


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": ["x"] * 14}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.zeros((32, 13))}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.zeros((0, 14))}, Reason.CHUNK_WRONG_JOINTS),
        ({"step_ns": 0}, Reason.CHUNK_WRONG_JOINTS),
        ({"positions": np.full((32, 14), np.nan)}, Reason.CHUNK_NOT_FINITE),
        ({"positions": np.full((32, 14), np.inf)}, Reason.CHUNK_NOT_FINITE),
        ({"positions": np.tile([[1e308], [-1e308]], (16, 14))}, Reason.CHUNK_NOT_FINITE),
        ({"epoch": 0}, Reason.CHUNK_OLD_EPOCH),
        ({"chunk_id": 5}, Reason.CHUNK_OUT_OF_ORDER),
        ({"stamp_ns": 98 * S}, Reason.CHUNK_TOO_OLD),
        ({"stamp_ns": 102 * S}, Reason.CHUNK_FROM_FUTURE),
    ],
)
def test_bad_chunks_are_dropped_with_a_reason_and_the_running_plan_stays(armed, change, reason):
    armed.accept(0.1, chunk_id=5)
    good = vars(armed.chunk(0.1, chunk_id=9))
    assert armed.controller.accept(Chunk(**(good | change)), armed.clock.now_ns) == reason
    assert armed.controller.chunks.drops == {reason: 1}
    assert armed.tick().chunk.chunk_id == 5


def test_joints_are_found_by_name_whatever_their_order(armed):
    chunk = armed.chunk(np.arange(14) * 0.01)
    order = np.random.default_rng(0).permutation(14)
    names = [chunk.names[i] for i in order]
    armed.controller.accept(Chunk(1, 1, chunk.stamp_ns, STEP, names, chunk.positions[:, order]), armed.clock.now_ns)
    command = armed.run(1.0)
    np.testing.assert_allclose(command.motion.position[:14], armed.home[:14] + np.arange(14) * 0.01, atol=2e-3)


def test_a_new_epoch_starts_chunk_ids_again(armed):
    armed.accept(0.1, chunk_id=7, epoch=3)
    assert armed.accept(0.1, chunk_id=1, epoch=4) == Reason.NONE
    assert armed.accept(0.1, chunk_id=8, epoch=3) == Reason.CHUNK_OLD_EPOCH
