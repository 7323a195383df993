"""A simulator's end of the pipe: answers one question after the other, until standard input ends."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

from .pipe import receive, send


def run(place: str) -> None:
    """Make the simulator `package.module:Class`, and answer each message `{"ask": NAME, ...}` with its `on_NAME(...)`.

    A ValueError is answered as well, `{"error": TEXT}`; anything else ends the process, with a traceback in its log.
    Standard input and output belong to the messages, from before the simulator is imported: what it prints goes to
    standard error.
    """
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1)  # line by line: its last words are read when it has died
    module, _, name = place.partition(":")
    simulator = getattr(import_module(module), name)()
    while True:
        try:
            message = receive(asked.read)
        except EOFError:
            return
        asks = message.pop("ask")
        try:
            answer: dict[str, Any] = getattr(simulator, f"on_{asks}")(**message)
        except ValueError as error:
            traceback.print_exc()
            answer = {"error": str(error)}
        try:
            send(answers, answer)
        except BrokenPipeError:
            sys.exit(1)
