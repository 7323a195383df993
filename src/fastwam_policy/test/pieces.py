"""Functions that other processes find: their module is on the path."""

import os
import time


def countdown(number, folder, dies=1):
    """number, ..., 1; 3 kills its process `dies` times, before its last result."""
    for left in range(number, 0, -1):
        if (number, left) == (3, 1) and len(marks := list(folder.iterdir())) < dies:
            (folder / f"{len(marks)}").touch()
            time.sleep(0.1)  # for what was given to arrive
            os._exit(1)
        yield number, left


def refuse(error):
    raise error


def busy(number, seconds):
    """Uses its core for that long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return number


def slowly(number, folder):
    """Three results, half a second apart; each time it begins is noted."""
    (folder / f"{number} {time.monotonic_ns()}").touch()
    for part in range(3):
        time.sleep(0.5)
        yield number, part
