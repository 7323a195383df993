"""Waiting for what happens on another thread or in another process."""

import time

PATIENCE = 60.0  # s: generous, since two cores may be busy; nothing is measured against it


def until(condition):
    """Wait until `condition` is true and return its value."""
    give_up = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    return value
