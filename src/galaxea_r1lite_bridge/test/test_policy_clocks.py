import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.policy_clocks import PolicyClocks, RoundTrip
from galaxea_r1lite_bridge.execution.reasons import Reason

from .rig import S


def trip(offset, there, back, sent_ns=100 * S, thought=0.2):
    """A round trip to a clock that is ahead by `offset` s, with `there` and `back` s on the way."""
    received_ns = sent_ns + round((offset + there) * S)
    answered_ns = received_ns + round(thought * S)
    return RoundTrip(sent_ns, received_ns, answered_ns, answered_ns + round((back - offset) * S))


def heard(clocks, *trips, session=1, steady_ns=0):
    for one in trips:
        clocks.hear(session, "gpu-box", one, steady_ns)
    return clocks


@pytest.mark.parametrize("offset", [-1e6, -0.3, 0.0, 0.02, 50.0])
def test_the_true_offset_is_within_half_a_round_trip_whatever_the_ways(offset):
    for there, back in np.random.default_rng(0).exponential(0.05, (50, 2)):
        found = trip(offset, there, back)
        assert found.seconds == pytest.approx(there + back, abs=1e-8)
        assert abs(found.offset - offset) <= found.seconds / 2 + 1e-8


def test_the_shortest_round_trip_of_ten_seconds_counts():
    clocks = heard(PolicyClocks(), trip(0.02, 0.001, 0.002), steady_ns=0)
    heard(clocks, trip(0.02, 0.5, 0.0), steady_ns=9 * S)
    assert clocks.worst.shortest.offset == pytest.approx(0.0195)
    clocks.forget(11 * S)
    assert clocks.worst.shortest.seconds == pytest.approx(0.5)
    clocks.forget(20 * S)
    assert clocks.worst is None


def test_clocks_differ_only_where_no_delay_explains_it():
    assert heard(PolicyClocks(), trip(0.06, 0.001, 0.001)).differs(1)
    assert heard(PolicyClocks(), trip(-0.06, 0.001, 0.001)).differs(1)
    assert not heard(PolicyClocks(), trip(0.04, 0.001, 0.001)).differs(1)
    assert not heard(PolicyClocks(), trip(0.0, 3.0, 0.0)).differs(1), "a busy machine, not its clock"
    assert not heard(PolicyClocks(), trip(9.0, 0.0, 0.0), session=2).differs(1), "another policy's"


def test_a_clock_that_was_set_is_believed_at_once():
    clocks = heard(PolicyClocks(), trip(0.3, 0.001, 0.001))
    assert clocks.worst.text == "the clock of gpu-box, policy_node, is 0.300 s ahead of that of bridge_node's machine"
    heard(clocks, trip(-0.01, 0.01, 0.01), steady_ns=S)
    assert not clocks.differs(1)
    assert "0.010 s behind" in clocks.worst.text


def test_a_flood_of_answers_costs_little():
    clocks = PolicyClocks()
    for k in range(5000):
        heard(clocks, trip(0.3, 0.001 + k % 7 * 0.001, 0.001), steady_ns=k * S // 500)
        clocks.forget(k * S // 500)
    assert len(clocks._by_session[1].trips) <= 41
    assert clocks.worst.shortest.seconds == pytest.approx(0.002)
    for session in range(100):
        heard(clocks, trip(0.3, 0.001, 0.001), session=session, steady_ns=10 * S)
    assert len(clocks._by_session) == 16


def test_an_answer_to_nobody_or_to_another_bridge_says_nothing():
    first = RoundTrip(0, 0, 100 * S, 100 * S)
    from_our_future = RoundTrip(200 * S, 100 * S, 100 * S, 100 * S)
    assert heard(PolicyClocks(), first, from_our_future).worst is None


def test_the_clock_that_differs_most_refuses_arming_until_it_is_right_or_gone(rig):
    clocks = heard(rig.controller.policy_clocks, trip(0.0, 0.001, 0.001), steady_ns=rig.clock.steady_ns)
    heard(clocks, trip(-0.08, 0.001, 0.001), session=2, steady_ns=rig.clock.steady_ns)
    assert rig.controller.arm() == Reason.CLOCKS_DIFFER
    assert rig.controller.refused == clocks.worst.text
    rig.run(10.1)
    assert rig.controller.arm() == Reason.NONE


def test_chunks_of_a_policy_whose_clock_differs_do_not_count(armed):
    heard(armed.controller.policy_clocks, trip(0.2, 0.001, 0.001), session=7, steady_ns=armed.clock.steady_ns)
    assert armed.accept(0.1, session=7) == Reason.CHUNK_CLOCKS_DIFFER
    assert armed.controller.chunks.drops == {Reason.CHUNK_CLOCKS_DIFFER: 1}
    assert armed.accept(0.1, session=8) == Reason.NONE, "nothing is followed yet: another policy may be"
