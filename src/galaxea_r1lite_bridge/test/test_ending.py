"""The signals at which a process ends in order."""

import signal

import pytest

from galaxea_r1lite_bridge.nodes.ending import ENDING, end_at_once, on_ending


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_of_them_ends_it(handlers, number):
    ending = on_ending()
    assert not ending.is_set()
    signal.raise_signal(number)
    assert ending.is_set()


def test_nohup_is_respected(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ending = on_ending()
    signal.raise_signal(signal.SIGHUP)
    assert not ending.is_set()


def test_before_anything_has_begun_they_end_it_at_once(handlers):
    end_at_once()
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 0
