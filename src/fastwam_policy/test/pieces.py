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


def stuck_at(node, number, folder):
    """Three results; at that node of a Ray cluster it stops after the first, until it is killed; elsewhere it waits."""
    import ray

    stuck = ray.get_runtime_context().get_node_id() == node
    if stuck:
        (folder / f"{number}").touch()
    while not any(folder.iterdir()):  # the other nodes are not to have done everything before
        time.sleep(0.05)
    yield number, 0
    if stuck:
        time.sleep(600.0)
    yield number, 1
    yield number, 2


def process():
    """Its number."""
    return os.getpid()
