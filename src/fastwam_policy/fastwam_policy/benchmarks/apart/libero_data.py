"""Episodes of LIBERO's expert to learn from. Runs in LIBERO's environment.

No official initial state is among them: a trial is a seed, which places all things by LIBERO's own rules, and then
moves them as the benchmark's own placements are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .disturbance import Disturbance
from .libero_env import Libero
from .libero_expert import CannotError, Expert
from .libero_placements import moved

_START = 0.02  # rad, standard deviation of the arm's joints at the beginning, as robosuite has it


class LiberoData(Libero):
    """Answers `record` besides; see there."""

    def on_begin(self, trial: int, look: bool) -> dict[str, Any]:
        """The scene of a seed."""
        env = self._env
        env.seed(trial)
        env.reset()
        state = env.get_sim_state()
        arm = 1 + np.array(env.robots[0]._ref_joint_pos_indexes)  # noqa: SLF001  there is no public way; behind the time
        state[arm] += np.random.default_rng(trial).normal(0.0, _START, len(arm))
        env.set_init_state(moved(env, state[None], trial))
        return self._settled(look)

    def on_record(self, seed: int, noise: float, lead: int, push: int, steps: int) -> dict[str, Any]:
        """The expert continues from here, disturbed, until success, or for so many steps.

        What it saw and would have done is given, one row a step, without the first `lead` steps, of which there is one
        at least, and without the `push` steps behind them: see :class:`Disturbance`.

        Returns:
            images, state [T, 8], actions [T, 7], done, and `retries` of the expert; `cannot` where it has no skill.
        """
        expert, disturbance = Expert(self._env), Disturbance(seed, noise, push, lead)
        seen: list[dict[str, Any]] = []
        actions, number, done = [], 0, False
        try:
            for action in expert.actions():
                if number >= lead + push:
                    seen.append(self._observation(look=True))
                    actions.append(action)
                number += 1
                self._cameras.looking = number >= lead + push
                self._observed, _, done, _ = self._env.step(disturbance.executed(action).tolist())
                if done or number >= steps:
                    break
        except CannotError as error:
            return {"cannot": str(error)}
        finally:
            self._cameras.looking = False
        if not seen:
            return {"done": False, "retries": expert.retries}
        images = {name: np.stack([each["images"][name] for each in seen]) for name in seen[0]["images"]}
        states = np.stack([each["state"] for each in seen])
        return {
            "images": images, "state": states, "actions": np.array(actions), "done": bool(done),
            "retries": expert.retries,
        }  # fmt: skip
