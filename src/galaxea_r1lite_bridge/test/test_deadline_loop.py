import threading

import pytest

from galaxea_r1lite_bridge.nodes import deadline_loop
from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop

MS = 1_000_000


class Clock:
    """Stands in for `time`; whoever sleeps wakes up a little late."""

    now = 5_000 * MS

    def monotonic_ns(self):
        return self.now

    def sleep(self, seconds):
        self.now += round(1e9 * seconds) + 300_000


def test_ticks_do_not_drift_and_late_ones_are_not_caught_up(monkeypatch):
    clock, times, done = Clock(), [], threading.Event()
    monkeypatch.setattr(deadline_loop, "time", clock)

    def tick():
        times.append((clock.now - 5_000 * MS) / MS)
        if len(times) == 20:
            clock.now += 55 * MS  # five and a half periods
        if len(times) == 50:
            done.set()
            loop._stopping.wait()

    loop = DeadlineLoop(100.0, tick, lambda error: None)
    loop.start()
    assert done.wait(60)
    statistics = loop.statistics()
    loop.stop()
    assert [moment // 10 for moment in times[:50]] == [*range(20), *range(25, 55)], "the five that passed are skipped"
    assert max(moment % 10 for moment in times[:50]) < 0.5, "no drift"
    assert statistics.longest == pytest.approx(60)
    assert statistics.rate == pytest.approx(1e3 * 49 / 540, rel=0.01)


def test_an_error_ends_the_loop_and_is_handed_over():
    errors, done = [], threading.Event()

    def fail(error):
        errors.append(error)
        done.set()

    loop = DeadlineLoop(100.0, lambda: 1 / 0, fail)
    loop.start()
    assert done.wait(5)
    loop.stop()
    assert isinstance(errors[0], ZeroDivisionError)
