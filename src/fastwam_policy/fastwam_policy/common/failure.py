"""The error for work that failed although the request was right."""

from __future__ import annotations


class RunError(RuntimeError):
    """A node ended, a worker was killed, nothing came in time: the text says what happened and what to do.

    Wrong input is a ConfigError instead. The command line exits with 1 for a RunError, and with 2 for a ConfigError.
    """
