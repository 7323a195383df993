import numpy as np
import pytest

from galaxea_r1lite_bridge.execution.feedback import FeedbackStream
from galaxea_r1lite_bridge.execution.reasons import Reason

S = 1_000_000_000
PERIOD = S // 200
POSITIONS = np.zeros(6)


class Line:
    """A sender and a receiver, each with its clock, and a delay between them."""

    def __init__(self):
        self.stream = FeedbackStream(6)
        self.steady_ns, self.now_ns, self.sender_ns = 5 * S, 100 * S, 777 * S

    def wait(self, ns):
        self.steady_ns += ns
        self.now_ns += ns
        self.sender_ns += ns

    def send(self, count=1, delay=0.002, positions=POSITIONS, growth=0.0):
        for index in range(count):
            self.wait(PERIOD)
            late = round((delay + growth * index) * S)
            self.stream.store(positions, self.sender_ns - late, self.now_ns, self.steady_ns)
        return self

    @property
    def newest(self):
        return self.stream.newest(self.steady_ns)


@pytest.fixture
def line():
    return Line().send(100)


def test_a_stream_ages_from_its_arrival(line):
    assert line.newest.age == 0
    line.wait(S // 4)
    assert line.newest.age == pytest.approx(0.25)


def test_never_received():
    assert Line().newest.age == -1
    assert not Line().newest.usable(10.0)


def test_an_unusable_message_is_dropped_and_counted_while_the_age_runs_on(line):
    line.send(3, positions=None)
    assert (line.stream.received, line.stream.rejected) == (103, 3)
    assert line.newest.age == pytest.approx(3 * PERIOD / S)
    assert line.newest.invalid
    assert line.newest.usable(0.1)
    line.send()
    assert line.newest.age == 0
    assert not line.newest.invalid


def test_what_comes_later_than_usual_is_old(line):
    line.wait(S * 3 // 10)
    line.send(50, delay=0.302)
    assert line.newest.age == pytest.approx(0.3)
    assert line.newest.refused == Reason.NONE
    line.wait(S * 4 // 10)
    assert line.newest.age == pytest.approx(0.4), "the longer of the two"


def test_a_delay_that_grows_slowly_is_seen_too(line):
    line.send(200, growth=0.001)
    assert line.newest.age == pytest.approx(0.199)


def test_the_clocks_of_sender_and_receiver_need_not_agree_and_may_drift(line):
    for _ in range(2000):
        line.sender_ns += 1000  # 200 ppm
        line.send()
    assert line.newest.age == 0
    for _ in range(2000):
        line.sender_ns -= 1000
        line.send()
    assert line.newest.age < 0.01


def test_the_usual_delay_is_that_of_the_last_30_s(line):
    line.wait(S // 2)
    line.send(200 * 20, delay=0.2)
    assert line.newest.age == pytest.approx(0.198)
    line.send(200 * 12, delay=0.2)
    assert line.newest.age == 0, "a delay that never changes cannot be seen"


@pytest.mark.parametrize("clock", ["sender back", "receiver ahead"])
def test_a_clock_that_is_set_is_learned_again_within_a_second(line, clock):
    if clock == "sender back":
        line.sender_ns -= S // 5
    else:
        line.now_ns += S // 5
    line.send()
    assert line.newest.refused == Reason.FEEDBACK_CLOCK_STEPPED
    line.send(190)
    assert not line.newest.usable(0.1)
    line.send(20)
    assert line.newest.usable(0.1)
    assert line.newest.age == 0
    line.wait(S * 3 // 10)
    line.send(delay=0.302)
    assert line.newest.age == pytest.approx(0.3), "and lateness counts from what was learned"


def test_a_clock_that_makes_delays_shorter_is_learned_without_holding(line):
    line.sender_ns += S
    for _ in range(200):
        line.send()
        assert line.newest.usable(0.1)
    line.wait(S * 3 // 10)
    line.send(delay=0.302)
    assert line.newest.age == pytest.approx(0.3)


@pytest.mark.parametrize("count", [1, 40])
def test_stamps_from_the_future_for_a_moment_change_nothing(line, count):
    """As while a simulated clock of ours has not been heard."""
    line.send(count, delay=-0.2)
    line.send(10)
    assert line.newest.usable(0.1)
    assert line.newest.age == 0
    line.wait(S * 3 // 10)
    line.send(delay=0.302)
    assert line.newest.age == pytest.approx(0.3)


def test_messages_before_a_simulated_clock_has_begun_teach_nothing():
    line = Line()
    line.stream, line.now_ns = FeedbackStream(6, simulated=True), -PERIOD * 20
    for _ in range(20):
        line.wait(PERIOD)
        line.stream.store(POSITIONS, line.sender_ns, 0, line.steady_ns)
    line.now_ns = line.sender_ns
    line.send()
    assert line.newest.age == 0
    assert line.newest.usable(0.1)


def test_a_simulated_clock_that_catches_up_is_none_that_was_set(line):
    line.stream = FeedbackStream(6, simulated=True)
    line.send(100)
    line.sender_ns += S // 5  # the simulation went on while its messages waited
    line.now_ns += S // 5
    line.send(delay=0.202)
    assert line.newest.age == pytest.approx(0.2)
    line.send()
    assert line.newest.usable(0.1)


def test_stamps_that_stand_still_grow_old(line):
    stamp = line.sender_ns
    for _ in range(40):
        line.wait(PERIOD)
        line.stream.store(POSITIONS, stamp, line.now_ns, line.steady_ns)
    assert line.newest.age == pytest.approx(0.2, abs=0.01)


def test_without_stamps_only_the_arrival_counts(line):
    for _ in range(40):
        line.wait(PERIOD)
        line.stream.store(POSITIONS, 0, line.now_ns, line.steady_ns)
    assert line.newest.age == 0
    assert line.stream.unstamped == 40


@pytest.mark.parametrize("offset", [-3600.0, -0.3, -0.01, 0.01, 5.0])
def test_two_publishers_are_refused_within_a_second(line, offset):
    for k in range(200):
        line.send(delay=0.002 - (offset if k % 2 else 0.0))
        refused = line.newest.refused
    assert refused == Reason.FEEDBACK_INTERLEAVED
    line.send(100)
    assert not line.newest.usable(0.1)
    line.send(250)
    assert line.newest.usable(0.1), "one of them has ended"


def test_two_publishers_stay_refused_while_their_messages_come_slowly(line):
    for k in range(12):
        line.send(delay=0.002 + 0.4 * (k % 2))
    line.wait(S * 2 // 5)
    for k in range(8):
        line.wait(S // 5)
        line.send(delay=0.002 + 0.4 * (k % 2))
        assert line.newest.refused == Reason.FEEDBACK_INTERLEAVED


def test_memory_is_bounded(line):
    line.send(200 * 100, growth=1e-7)
    assert len(line.stream._stamps._least) <= 32
