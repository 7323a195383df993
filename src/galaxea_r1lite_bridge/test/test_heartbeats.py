"""Which heartbeats must go on."""

import pytest

from galaxea_r1lite_bridge.execution.heartbeats import Heartbeats

S = 1_000_000_000


@pytest.fixture
def heartbeats():
    return Heartbeats(0.5, 0.3)


def test_none_was_heard(heartbeats):
    assert heartbeats.now(9 * S, armed=False) == (-1.0, False)
    assert heartbeats.now(9 * S, armed=True) == (-1.0, False)


@pytest.mark.parametrize("heard_first", [True, False])
def test_no_sender_keeps_alive_what_another_one_began(heartbeats, heard_first):
    """Neither one that was there before, nor one that comes later."""
    if heard_first:
        heartbeats.hear(2, 0, pressed=True, deadman=False)
    heartbeats.hear(1, 0, pressed=True, deadman=False)
    assert heartbeats.now(0, armed=False) == (0.0, False)
    heartbeats.hear(2, S, pressed=True, deadman=False)
    assert heartbeats.now(S, armed=True) == (1.0, False)


def test_whoever_is_not_needed_is_forgotten(heartbeats):
    heartbeats.hear(1, 0, pressed=False, deadman=True)
    heartbeats.hear(2, S, pressed=True, deadman=False)
    assert heartbeats.now(S, armed=False) == (0.0, False)
    assert heartbeats.now(3 * S, armed=True) == (2.0, False), "heard, so it must go on"
    assert heartbeats.now(3 * S, armed=False) == (-1.0, False)


def test_a_flood_of_senders_costs_no_memory(heartbeats):
    for session in range(1000):
        heartbeats.hear(session, session, pressed=True, deadman=False)
    assert len(heartbeats._last) == 64


def test_one_that_is_released_counts(heartbeats):
    heartbeats.hear(1, 0, pressed=True, deadman=False)
    heartbeats.hear(2, 0, pressed=False, deadman=True)
    assert heartbeats.now(0, armed=True) == (0.0, True)
    heartbeats.hear(2, 1, pressed=True, deadman=False)
    assert heartbeats.now(1, armed=True) == (1e-9, False)


def test_a_deadman_switch_that_is_silent_counts_as_released(heartbeats):
    heartbeats.hear(1, 0, pressed=True, deadman=True)
    heartbeats.hear(2, 0, pressed=True, deadman=False)
    assert heartbeats.now(3 * S // 10, armed=True) == (0.3, False)
    assert heartbeats.now(31 * S // 100, armed=True) == (0.31, True)
    heartbeats.hear(1, 32 * S // 100, pressed=True, deadman=True)
    assert heartbeats.now(4 * S // 10, armed=True) == (0.4, False), "the other one may be silent for longer"
