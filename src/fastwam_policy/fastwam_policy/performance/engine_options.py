"""What each option of the engine changes, measured on a bundle: the largest difference to eager float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fastwam_policy.policies.base import Frame, Observation
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.policy import FastWamPolicy, Options
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

CHECKED: dict[str, Options] = {
    "eager, float32": Options(dtype="float32"),
    "compiled, float32": Options(engine="compiled", dtype="float32"),
    "eager, bfloat16": Options(dtype="bfloat16"),
    "eager, float16": Options(dtype="float16"),
    "int8 weights": Options(dtype="float32", quantize="int8"),
    "fp8 weights": Options(dtype="float32", quantize="fp8"),
    "warm start at half of the steps": Options(dtype="float32", warm_start=5),
}
FEWER_STEPS = (1, 2, 4)
_SHAPE = (360, 640, 3)  # of the test images
_GAP_STEPS = 8  # steps between the two observations, for the options that remember


def check_engine(
    folder: Path, device: str, denoise_steps: Sequence[int] = FEWER_STEPS
) -> dict[str, dict[str, float] | str]:
    """Largest and mean difference of each option, for angles in rad and strokes in mm, or why it cannot run here.

    Besides :data:`CHECKED` these are other numbers of `denoise_steps`.

    The test observation is random pixels and the joints' means, the same for all options; the second of two chunks is
    compared. Raises ConfigError where the bundle does not load.
    """
    reference: np.ndarray | None = None
    result: dict[str, dict[str, float] | str] = {}
    bundle = Bundle.read_config(folder)
    fewer = {f"{n} denoise step{'s' * (n > 1)}": Options(dtype="float32", denoise_steps=n) for n in denoise_steps}
    for name, options in (CHECKED | fewer).items():
        if options.warm_start >= bundle.denoise_steps:
            result[name] = f"the bundle has only {bundle.denoise_steps} denoise steps"
            continue
        try:
            policy = FastWamPolicy.load(folder, device, options)
        except ConfigError as error:
            if reference is None:
                raise
            result[name] = str(error)
            continue
        actions, millimetres = _second_chunk(policy)
        if reference is None:
            reference = actions
        difference = np.abs(actions - reference)
        result[name] = {
            "max_rad": float(difference[:, ~millimetres].max()),
            "mean_rad": float(difference[:, ~millimetres].mean()),
            "max_mm": float(difference[:, millimetres].max(initial=0.0)),
        }
    return result


def table(result: dict[str, dict[str, float] | str]) -> Table:
    """For a terminal."""
    shown = Table("option", "largest rad", "mean rad", "largest mm", title="Difference to eager float32")
    for name, values in result.items():
        if isinstance(values, str):
            shown.add_row(name, values)
            continue
        shown.add_row(name, f"{values['max_rad']:.2e}", f"{values['mean_rad']:.2e}", f"{values['max_mm']:.2e}")
    return shown


def _second_chunk(policy: FastWamPolicy) -> tuple[np.ndarray, np.ndarray]:
    config = policy.bundle.config
    random = np.random.default_rng(0)
    instruction = config.prompt.default_instruction
    policy.prepare(instruction)
    centre = policy.bundle.state.backward(np.zeros(len(config.state.names)))
    joints: dict[str, Any] = dict(zip(config.state.names, centre.tolist(), strict=True))
    for step in (0, _GAP_STEPS):
        images = {tile.camera: random.integers(0, 255, _SHAPE, np.uint8) for tile in config.layout.tiles}
        earlier = (Frame(0, images, joints),) * len(policy.info.history)
        chunk = policy.infer(Observation(step * config.step_ns, images, joints, instruction, earlier=earlier))
    return chunk.actions, np.array([unit == "mm" for unit in config.action.units])
