from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.admission import ChunkGate
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
        ({"step_ns": 10**17}, Reason.CHUNK_WRONG_JOINTS),
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


def test_chunks_from_before_arming_do_not_count(rig):
    rig.armed()
    assert rig.accept(0.1, age=0.01) == Reason.CHUNK_NOT_ASKED_FOR
    assert rig.accept(0.1) == Reason.NONE


@pytest.mark.parametrize("latch", ["estop", "driver", "disarm"])
def test_after_a_latch_and_a_new_arming_nothing_from_before_moves_the_arms(armed, latch):
    """A policy that runs all the time, with 0.3 s from observation to arrival."""
    controller = armed.controller
    armed.accept(0.2)
    armed.run(0.3)
    {
        "estop": lambda: (controller.set_estop(True), controller.set_estop(False)),
        "driver": lambda: (controller.set_driver_error("left", "hot"), controller.set_driver_error("left", "")),
        "disarm": controller.disarm,
    }[latch]()
    armed.run(0.5)
    begin = len(armed.sent)
    armed.armed()
    for chunk_id in range(2, 32):
        assert armed.accept(0.4, chunk_id=chunk_id, age=0.31) == Reason.CHUNK_NOT_ASKED_FOR
        armed.tick()
    assert not any(command.motion.velocity.any() for command in armed.sent[begin:])
    armed.run(0.1)
    assert armed.accept(0.4, chunk_id=32, age=0.3) == Reason.NONE
    armed.tick()
    assert armed.sent[-1].motion.velocity.any()


def test_one_session_is_followed_from_arming_on(armed):
    armed.accept(0.1, session=5)
    assert armed.accept(0.2, session=6, chunk_id=99, epoch=99) == Reason.CHUNK_OTHER_SESSION
    assert armed.accept(0.1, session=5, chunk_id=2) == Reason.NONE
    armed.run(0.1)
    assert armed.controller.arm() == Reason.NONE
    assert armed.accept(0.2, session=6, chunk_id=3) == Reason.CHUNK_OTHER_SESSION, "in the middle of a plan"
    armed.run(3.0)
    assert armed.controller.arm() == Reason.NONE, "a policy that was started again: agreed to"
    assert armed.accept(0.2, session=6) == Reason.NONE


def test_a_stop_before_any_policy_is_followed_lasts_until_armed_again(armed):
    armed.controller.stop()
    armed.run(0.1)
    assert armed.controller.chunks.needs_arming
    assert armed.accept(0.1, epoch=7) == Reason.CHUNK_NOT_ASKED_FOR
    assert armed.controller.arm() == Reason.NONE
    assert not armed.controller.chunks.needs_arming
    assert armed.accept(0.1, epoch=7) == Reason.NONE


def test_after_a_stop_only_what_is_observed_since_counts(armed):
    armed.accept(0.1)
    armed.run(0.5)
    armed.controller.stop()
    assert armed.accept(0.1, epoch=2, age=0.2) == Reason.CHUNK_NOT_ASKED_FOR, "a new task, but observed before"
    assert armed.accept(0.1, epoch=2) == Reason.CHUNK_NOT_ASKED_FOR, "braking is not cut short"
    assert armed.controller.arm() == Reason.NOT_STILL
    armed.run(0.5)
    assert armed.accept(0.1, epoch=2) == Reason.NONE


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("chunk"),
            st.tuples(
                st.sampled_from([1, 2, 2**64 - 1]),  # session
                st.sampled_from([0, 1, 2, 3, 2**32 - 1]),  # epoch
                st.sampled_from([0, 1, 2, 3, 4, 5, 2**64 - 1]),  # id
                st.integers(-5, 5),  # observed: ticks ago
            ),
        ),
        st.tuples(st.sampled_from(["open", "close", "stop", "end_epoch", "clock_jumped"]), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=600, deadline=None)
@given(EVENTS)
def test_whatever_came_before_only_what_was_asked_for_is_let_in(events):
    """The rules, over the whole history of a gate since it was opened."""
    gate = ChunkGate(["a"], max_age=1e9, future_tolerance=1e9)
    opened, since, admitted, ended, ids = False, 0, [], None, []
    for now, (name, details) in enumerate(events, start=100):
        if name == "chunk":
            session, epoch, chunk_id, age = details
            chunk = Chunk(chunk_id, epoch, now - age, S, ["a"], np.zeros((2, 1)), session=session)
            reason = gate.admit(chunk, now)[1]
            if not opened:
                assert reason == Reason.NONE, "only looked at"
                continue
            asked_for = (
                now - age >= since
                and ended != "until armed"
                and (not admitted or session == admitted[-1][0])
                and all(epoch >= other[1] for other in admitted)
                and (ended is None or epoch > ended)
                and all(chunk_id > other[1] for other in ids if other[0] == epoch)
            )
            assert (reason == Reason.NONE) == asked_for, reason
            if asked_for:
                admitted.append((session, epoch))
                ids.append((epoch, chunk_id))
            continue
        getattr(gate, name)(*([] if name == "close" else [now]))
        if name in ("open", "close"):
            opened, since, admitted, ended, ids = name == "open", now, [], None, []
            follow = Chunk(1, 0, now, S, ["a"], np.zeros((2, 1)), session=7)
            assert deepcopy(gate).admit(follow, now)[1] == Reason.NONE, "nothing earlier blocks it"
        elif opened and ended != "until armed":
            since = now
            if name == "clock_jumped":
                ids = []
            elif admitted:
                ended = max(epoch for _, epoch in admitted)
            elif name == "stop":
                ended = "until armed"
