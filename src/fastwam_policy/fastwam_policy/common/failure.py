"""The error of work that fails though nothing is wrong with what was asked for."""

from __future__ import annotations


class RunError(RuntimeError):
    """A node ended, a worker was killed, nothing came in time: the text says what happened and what to do.

    Wrong input is a ConfigError instead. The command line exits with 1 for this one, and with 2 for that.
    """
