"""A pedal, a gamepad or a keyboard as a switch: the kernel's event device is read, and no screen is needed.

The kernel's records are read as they come (`struct input_event` of linux/input.h): the evdev package needs a compiler
and a device to be tested with, and this a pipe.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_EVENT = struct.Struct("@llHHi")  # time in s and us, type, code, value
_SYN, _KEY = 0, 1
_DROPPED = 3  # code of _SYN: the kernel's buffer was full, and what is held is not known any more
_UP, _DOWN = 0, 1  # values of _KEY; 2 repeats
_GRAB = 0x40044590  # EVIOCGRAB: nobody else receives the device's keys, so that a pedal types no letters
_MOST = 64 * _EVENT.size  # bytes read at once
_CURES = {
    errno.EACCES: "add yourself to its group, with: sudo usermod -aG input $USER, and log in again",
    errno.EBUSY: "another program has it for itself; each switch needs a device of its own",
    errno.ENOENT: "ls /dev/input/by-id shows those that there are",
}


def key_event(*, pressed: bool, code: int = 1) -> bytes:
    """What a device writes when a key is pressed or released."""
    return _EVENT.pack(0, 0, _KEY, code, _DOWN if pressed else _UP)


class InputSwitch:
    """Keys of one event device; each of them is the switch.

    It begins as released: a key that was held before has to be released and pressed again.

    Attributes:
        presses: how often a key was pressed, or may have been: events were lost.
        lost: whether the device is gone. It is then released, and opened again when it is back.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.presses, self.lost = path, 0, False
        self._held: set[int] = set()
        self._rest = b""
        try:
            self._file = self._open()
        except OSError as error:
            cure = _CURES.get(error.errno or 0, "name an event device, such as /dev/input/by-id/…-event-kbd")
            raise ConfigError(f"{path}: {error.strerror}; {cure}") from None

    @property
    def held(self) -> bool:
        """Whether a key is held now."""
        return bool(self._held)

    def fileno(self) -> int:
        """For `select`; -1 while the device is lost."""
        return self._file

    def read(self) -> None:
        """Take what has come; it never waits."""
        if self.lost:
            with suppress(OSError):
                self._file = self._open()
                self.lost = False
            return
        try:
            while data := os.read(self._file, _MOST):
                self._take(data)
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()
        self.lost, self._file, self._rest = True, -1, b""
        self._held.clear()

    def close(self) -> None:
        """Leave the device to others."""
        if self._file >= 0:
            os.close(self._file)

    def _open(self) -> int:
        file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(file).st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
            os.close(file)
            raise OSError(errno.ENODEV, "not an input device")
        try:
            fcntl.ioctl(file, _GRAB, 1)
        except OSError as error:
            if error.errno == errno.EBUSY:  # whoever has grabbed it receives its keys, and nobody else
                os.close(file)
                raise
        return file

    def _take(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % _EVENT.size
        self._rest = data[whole:]
        for _, _, kind, code, value in _EVENT.iter_unpack(data[:whole]):
            if kind == _KEY and value == _DOWN:
                self._held.add(code)
                self.presses += 1
            elif kind == _KEY and value == _UP:
                self._held.discard(code)
            elif kind == _SYN and code == _DROPPED:
                self._held.clear()
                self.presses += 1
