"""Stamps as they really come: a message whose stamp cannot be true is dropped, a clock that was set is followed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxea_r1lite_bridge.execution.stream_clock import StreamClock

MS = 1_000_000
S = 1_000 * MS
PERIOD = S // 15
DELAY = 20 * MS


class Stream:
    """A camera at 15 Hz whose clock is `off` ns ahead of ours."""

    def __init__(self, *, simulated=False):
        self.clock = StreamClock(simulated=simulated)
        self.now, self.steady, self.off, self.delay = 1_000 * S, 7 * S, 0, DELAY

    def wait(self, ns):
        self.now += ns
        self.steady += ns

    def send(self, off=None, wait=PERIOD):
        """How late the next message seems to be on our clock, ns; None: it was dropped."""
        self.wait(wait)
        stamp = self.now - self.delay + (self.off if off is None else off)
        placed = self.clock.place(stamp, self.now, self.steady)
        return None if placed is None else self.now - placed

    def run(self, seconds):
        return [self.send() for _ in range(round(seconds * S / PERIOD))]


@pytest.fixture
def stream():
    stream = Stream()
    assert stream.run(3) == [DELAY] * 45
    return stream


@pytest.mark.parametrize("off", [1000 * S, 10 * S, S // 2, 300 * MS, -30 * S, -S, -300 * MS])
def test_one_stamp_that_cannot_be_true_is_dropped_and_the_stream_goes_on(stream, off):
    assert stream.send(off) is None
    assert stream.run(1) == [DELAY] * 15


def test_one_stamp_a_little_ahead_costs_no_more_than_that(stream):
    stream.send(200 * MS)
    assert stream.run(1)[3:] == [DELAY] * 12


@pytest.mark.parametrize("off", [1000 * S, 30 * S, S, 300 * MS, -300 * MS, -S, -30 * S, -1000 * S])
def test_a_step_that_lasts_is_followed_within_a_second(stream, off):
    stream.off = off
    placed = stream.run(2)
    assert placed[:13] == [None] * 13
    assert placed[15:] == [0] * 15, "the least delay counts as none: what it is cannot be known"
    assert stream.clock.offset_ns == DELAY - off
    stream.wait(S // 5)
    stream.delay += S // 5
    assert stream.send() == S // 5, "and lateness is seen as before"


def test_clocks_that_agree_again_are_believed_again(stream):
    stream.off = -30 * S
    stream.run(2)
    stream.off = 0
    assert stream.run(2)[15:] == [DELAY] * 15
    assert stream.clock.offset_ns == 0


@pytest.mark.parametrize("off", [-30 * S, 30 * S])
def test_a_clock_that_is_wrong_from_the_beginning_is_followed_too(off):
    stream = Stream()
    stream.off = off
    placed = stream.run(2)
    assert placed[:13] == [None] * 13
    assert placed[15:] == [0] * 15


def test_lateness_is_no_step(stream):
    """A delay that grows no faster than time passes is real: what is observed is old."""
    stream.wait(2 * S)
    stream.delay = 2 * S
    assert stream.send(wait=0) == 2 * S
    while stream.delay > DELAY:
        stream.delay -= PERIOD // 2
        assert stream.send() == stream.delay
    for _ in range(100):
        stream.delay += PERIOD // 2
        assert stream.send() == stream.delay


def test_a_constant_delay_of_a_stream_is_kept(stream):
    late = Stream()
    late.delay = 900 * MS
    assert late.run(5) == [900 * MS] * 75


def test_stamps_that_stand_still_are_dropped(stream):
    stamp = stream.now
    assert [stream.clock.place(stamp, stream.now, stream.steady) for _ in range(3)][1:] == [None, None]


@pytest.mark.parametrize("off", [-3600 * S, -S, -100 * MS, 10 * S])
def test_of_two_publishers_one_is_followed(stream, off):
    placed = [(stream.send(wait=PERIOD // 2), stream.send(off, wait=PERIOD // 2)) for _ in range(60)]
    assert [first for first, _ in placed] == [DELAY] * 60
    assert [second for _, second in placed] == [None] * 60


def test_drift_is_no_step(stream):
    for _ in range(15 * 600):
        stream.off += 3 * PERIOD // 100_000  # 30 ppm
        assert stream.send() is not None
    assert stream.clock.offset_ns == 0


def test_nothing_is_placed_before_a_simulated_clock_has_begun_and_all_is_from_then_on():
    stream = Stream(simulated=True)
    assert [stream.clock.place(5 * S + k, 0, stream.steady + k * S) for k in range(10)] == [None] * 10
    assert stream.run(1) == [DELAY] * 15


def test_a_simulated_clock_that_stalls_and_catches_up_loses_nothing():
    stream = Stream(simulated=True)
    stream.run(2)
    for _ in range(12):  # stamps go on; what we have heard of the clock does not
        stream.steady += PERIOD
        stream.off += PERIOD
        assert stream.send(wait=0) is not None
    stream.now += stream.off
    stream.off = 0
    assert stream.run(1) == [DELAY] * 15


def test_a_simulation_that_makes_up_for_a_stall_at_once_loses_nothing():
    """Its clock comes first, and what was sent meanwhile after it, all in a moment."""
    stream = Stream(simulated=True)
    stream.run(2)
    stream.wait(3 * S)
    for behind in range(3 * S - PERIOD, 0, -PERIOD):
        stream.steady += MS
        stream.off = -behind
        assert stream.send(wait=0) == DELAY + behind
    stream.off = 0
    assert stream.run(1) == [DELAY] * 15


def test_after_a_stall_of_this_process_messages_may_be_heard_before_the_clock():
    stream = Stream(simulated=True)
    stream.run(2)
    stream.steady += 3 * S
    stream.off = 3 * S
    assert stream.send(wait=0) == DELAY - 3 * S
    stream.now, stream.off = stream.now + 3 * S, 0
    assert stream.run(1) == [DELAY] * 15


def test_after_our_clock_went_back_the_stream_begins_anew(stream):
    stream.now -= 500 * S
    assert stream.run(1) == [DELAY] * 15


def test_the_least_delay_is_shown(stream):
    assert stream.clock.least_delay_ns == DELAY


STAMPS = st.one_of(
    st.integers(-2 * S, 2 * S), st.integers(-(10**18), 10**18), st.sampled_from([-30 * S, -S // 2, -PERIOD, 0, S])
)
WAITS = st.one_of(st.just(PERIOD), st.just(PERIOD), st.integers(0, 3 * S))


@settings(deadline=None)
@given(
    st.lists(st.tuples(WAITS, STAMPS), max_size=60),
    st.one_of(st.just(0), st.integers(-(10**15), 10**15)),
    st.sampled_from([5 * MS, PERIOD, 200 * MS]),
    st.booleans(),
)
def test_after_any_stamps_the_stream_is_used_within_a_second_of_regular_ones(history, off, period, simulated):
    stream = Stream(simulated=simulated)
    for wait, odd in history:
        stream.send(odd, wait)
    stream.off = off
    begin, first = stream.steady, None
    while stream.steady - begin < 4 * S:
        placed = stream.send(wait=period)
        if first is None and placed is not None:
            first = stream.steady
        elif first is not None:
            assert placed is not None, "and then always"
    assert first is not None
    assert first - begin <= S + period
