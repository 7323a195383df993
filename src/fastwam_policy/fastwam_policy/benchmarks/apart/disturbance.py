"""What is done to an expert's actions, so that its data show how to come back: noise all the time, once a push."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CORRELATION = 0.85  # of the noise from one step to the next
_AXES = np.repeat([1.0, 0.1], 3)  # a step turns by up to 0.5 rad, but moves by 0.05 m only

Action = NDArray[np.float64]


class Disturbance:
    """Gives what is executed in the place of an action: six shares of the fastest motion, -1 to 1, and the gripper.

    Args:
        seed: of all that is random.
        noise: standard deviation, as a share of the action's own speed: where it is slow, to grasp, there is little.
        push: steps in which a random motion takes the action's place; none where it is 0.
        begins: number of the first of them.
    """

    def __init__(self, seed: int, noise: float, push: int, begins: int) -> None:
        self._random = np.random.default_rng([seed, 1])
        self._noise, self._value, self._step = noise, np.zeros(6), 0
        self._pushed = range(begins, begins + push)
        self._push = self._random.uniform(-1.0, 1.0, 6) * _AXES
        self._push[2] = abs(self._push[2])  # up: below is the table

    def executed(self, action: Action) -> Action:
        """Of the next step's action [7]; the gripper stays as it is."""
        drawn = self._random.normal(0.0, self._noise, 6) * _AXES
        self._value = _CORRELATION * self._value + np.sqrt(1 - _CORRELATION**2) * drawn
        speed = np.abs(action[:6]).max()
        motion = self._push if self._step in self._pushed else action[:6] + speed * self._value
        self._step += 1
        return np.append(np.clip(motion, -1.0, 1.0), action[6])
