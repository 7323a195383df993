"""The signals at which a process ends in order."""

import signal

import pytest

from galaxea_r1lite_bridge.nodes.ending import ENDING, on_ending


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_each_of_them_ends_it(handlers):
    received = []
    on_ending(lambda: received.append(True))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.raise_signal(number)
        assert received.pop(), number


def test_nohup_is_respected(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_ending(lambda: pytest.fail("ended"))
    signal.raise_signal(signal.SIGHUP)
