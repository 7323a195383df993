import threading
import time

from galaxea_r1lite_bridge.nodes.deadline_loop import DeadlineLoop


def test_ticks_do_not_drift_and_late_ones_are_not_caught_up():
    times = []

    def tick():
        times.append(time.monotonic())
        if len(times) == 20:
            time.sleep(0.055)  # five and a half periods

    loop = DeadlineLoop(100.0, tick, lambda error: None)
    loop.start()
    time.sleep(0.6)
    loop.stop()
    # The sleep costs its five periods, which are skipped: never two ticks at once.
    assert 20 < len(times) <= 57
    assert min(b - a for a, b in zip(times, times[1:], strict=False)) > 0.0005
    phase = [(moment - times[0]) % 0.01 for moment in times]
    assert sum(min(p, 0.01 - p) < 0.004 for p in phase) > len(phase) / 2
    statistics = loop.statistics()
    assert statistics.longest >= 50
    assert 10 < statistics.rate <= 101


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
