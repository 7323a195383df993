"""Episodes of LIBERO's expert to learn from. Runs in LIBERO's environment.

No official initial state is among them: a trial is a seed, which places all things by LIBERO's own rules, and then
moves them as the benchmark's own placements are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from robosuite.utils.binding_utils import MjRenderContext

from .disturbance import Disturbance
from .libero_env import CAMERAS, Libero
from .libero_expert import CannotError, Expert
from .libero_placements import moved

_START = 0.02  # rad, standard deviation of the arm's joints at the beginning, as robosuite has it


class LiberoData(Libero):
    """Answers `record` besides; see there. Edges in its pictures are not smoothed, which halves their cost."""

    def __init__(self) -> None:
        super().__init__()
        begin = MjRenderContext._set_mujoco_context_and_buffers  # noqa: SLF001  there is no public way

        def plain(context: Any) -> None:
            context.model._model.vis.quality.offsamples = 0  # noqa: SLF001  mujoco's own, behind a wrapper
            begin(context)

        MjRenderContext._set_mujoco_context_and_buffers = plain  # noqa: SLF001

    def on_begin(self, trial: int, look: bool) -> dict[str, Any]:
        """The scene of a seed."""
        env = self._env
        env.seed(trial)
        env.env.hard_reset = bool(env.env.fixtures_dict)  # the model itself says where fixtures are; all else is state
        env.reset()
        state = env.get_sim_state()
        arm = 1 + np.array(env.robots[0]._ref_joint_pos_indexes)  # noqa: SLF001  there is no public way; behind the time
        state[arm] += np.random.default_rng(trial).normal(0.0, _START, len(arm))
        env.set_init_state(moved(env, state[None], trial))
        return self._settled(look)

    def on_record(self, seed: int, noise: float, lead: int, push: int, steps: int, every: int) -> dict[str, Any]:
        """The expert continues from here, disturbed, until success, for so many steps at most.

        What it saw and would have done is given, one row a step, without the first `lead` steps, of which there is one
        at least, and without the `push` steps behind them: see :class:`Disturbance`. Pictures are made when all is
        well, and of the scene as it was when the step began; the benchmark's are older by 2 ms.

        Returns:
            images of `every` so many rows, state [T, 8], actions [T, 7], and done, without which there is nothing
            else: the expert failed or had to try again. `cannot` where it has no skill.
        """
        expert, disturbance = Expert(self._env), Disturbance(seed, noise, push, lead)
        scenes: list[NDArray[np.float64]] = []
        states: list[NDArray[np.float64]] = []
        actions: list[NDArray[np.float64]] = []
        done = False
        try:
            for number, action in enumerate(expert.actions()):
                if number >= steps or expert.retries:
                    break
                if number >= lead + push:
                    if len(actions) % every == 0:
                        scenes.append(self._env.get_sim_state())
                    states.append(self._observation(look=False)["state"])
                    actions.append(action)
                self._observed, _, done, _ = self._env.step(disturbance.executed(action).tolist())
                if done:
                    break
        except CannotError as error:
            return {"cannot": str(error)}
        if not done or not scenes:
            return {"done": False}
        return {"images": self._seen(scenes), "state": np.array(states), "actions": np.array(actions), "done": True}

    def _seen(self, scenes: list[NDArray[np.float64]]) -> dict[str, NDArray[np.uint8]]:
        """By camera the pictures [T, H, W, 3] of scenes."""
        env, seen = self._env, []
        height, width = env.env.camera_heights[0], env.env.camera_widths[0]
        for scene in scenes:
            env.set_state(scene)
            env.sim.forward()
            seen.append([env.sim.render(width, height, camera_name=camera) for camera in env.env.camera_names])
        return dict(zip(CAMERAS, map(np.array, zip(*seen, strict=True)), strict=True))
