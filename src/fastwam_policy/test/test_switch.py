"""A switch as the kernel's event devices give it, with a pipe in the place of the device."""

import errno
import fcntl
import os
import struct

import pytest

from fastwam_policy.operate.switch import InputSwitch, key_event
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

EVENT = struct.Struct("@llHHi")


@pytest.fixture
def pedal(tmp_path):
    path = tmp_path / "pedal"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    switch = InputSwitch(path)

    def write(*events):
        os.write(end, b"".join(events))
        switch.read()
        return switch

    write.path, write.switch, write.end = path, switch, end
    yield write
    switch.close()


def test_held_while_any_key_is_down(pedal):
    assert not pedal().held
    assert pedal(key_event(pressed=True)).held
    assert pedal(key_event(pressed=True, code=2), key_event(pressed=False)).held
    assert not pedal(key_event(pressed=False, code=2)).held
    assert pedal.switch.presses == 2
    assert pedal(key_event(pressed=True), key_event(pressed=False), key_event(pressed=True)).presses == 4


def test_one_that_was_held_before_is_released(pedal):
    assert not pedal(EVENT.pack(0, 0, 1, 1, 2)).held, "its repetitions say only that it is still held"


def test_lost_events_count_as_released(pedal):
    assert pedal(key_event(pressed=True)).held
    assert not pedal(EVENT.pack(0, 0, 0, 3, 0)).held
    assert pedal.switch.presses == 2, "the emergency stop's press may be among them"
    assert not pedal(EVENT.pack(0, 0, 3, 1, 1)).held, "an axis of a gamepad is no key"


def test_an_event_in_two_parts(pedal):
    event = key_event(pressed=True)
    assert not pedal(event[:7]).held
    assert pedal(event[7:]).held


def test_one_that_is_gone_is_released_and_opened_again(pedal):
    assert pedal(key_event(pressed=True)).held
    pedal(key_event(pressed=True)[:5])
    os.close(pedal.end)
    pedal.switch.read()
    assert pedal.switch.lost
    assert not pedal.switch.held
    os.unlink(pedal.path)
    pedal.switch.read()
    assert pedal.switch.lost
    os.mkfifo(pedal.path)
    end = os.open(pedal.path, os.O_RDWR)
    pedal.switch.read()
    os.write(end, key_event(pressed=True))
    pedal.switch.read()
    assert pedal.switch.held
    assert not pedal.switch.lost
    os.close(end)


def test_one_that_another_program_has_for_itself_is_refused(pedal, monkeypatch):
    def busy(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(fcntl, "ioctl", busy)
    with pytest.raises(ConfigError, match="pedal: Device or resource busy; .* a device of its own"):
        InputSwitch(pedal.path)


def test_one_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: No such file.*ls /dev/input/by-id"):
        InputSwitch(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not an input device; name an event device"):
        InputSwitch(tmp_path)
