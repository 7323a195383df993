"""Normalisation and image layout against numbers from the authors' code."""

import json

import numpy as np
import pytest
import torch

from fastwam_policy.policies.fastwam.bundle import PROMPT_TEMPLATE
from fastwam_policy.policies.fastwam.canvas import LIBERO, ROBOTWIN, to_model_input
from fastwam_policy.policies.fastwam.normalizer import Normalizer

from .golden_files import GOLDEN, golden

STATISTICS = json.loads((GOLDEN / "dataset_stats.json").read_text())


@pytest.mark.parametrize("mode", ["z-score", "min_max", "q01_q99"])
@pytest.mark.parametrize(("kind", "stepwise"), [("action", False), ("action", True), ("state", False)])
def test_normalizer(mode, kind, stepwise):
    expected = golden("normalizer")
    normalizer = Normalizer.from_statistics(STATISTICS[kind]["default"], mode, stepwise=stepwise)
    key = f"{mode}{'.stepwise' if stepwise else ''}.{kind}"
    np.testing.assert_array_equal(normalizer.scale, expected[f"{key}_scale"])
    np.testing.assert_array_equal(normalizer.offset, expected[f"{key}_offset"])
    np.testing.assert_allclose(
        normalizer.forward(expected[f"{kind}_in"]), expected[f"{key}_forward"], rtol=1e-6, atol=1e-6
    )
    back = normalizer.backward(expected[f"{kind}_norm_in"])
    np.testing.assert_allclose(back, expected[f"{key}_backward"], rtol=1e-6, atol=1e-6)


def test_constant_bounds():
    expected = golden("normalizer")
    normalizer = Normalizer.bounds(np.full(14, -2.0, np.float32), np.full(14, 3.0, np.float32))
    np.testing.assert_array_equal(normalizer.scale, expected["const_-2.0_3.0.action_scale"])
    np.testing.assert_array_equal(normalizer.offset, expected["const_-2.0_3.0.action_offset"])


def test_state_in_and_action_out():
    expected = golden("policy_state_action")
    state = Normalizer.from_statistics(STATISTICS["state"]["default"], "z-score")
    action = Normalizer.from_statistics(STATISTICS["action"]["default"], "z-score")
    np.testing.assert_allclose(state.forward(expected["state_raw"])[None], expected["proprio_normalized"], rtol=1e-6)
    np.testing.assert_allclose(
        action.backward(expected["action_model_out"]), expected["action_denormalized"], rtol=1e-6, atol=1e-6
    )
    assert str(expected["prompt_template"]) == PROMPT_TEMPLATE


def test_robotwin_canvas_is_exact():
    case = golden("image_robotwin_case0")
    images = {"head": case["head"], "wrist_left": case["left"], "wrist_right": case["right"]}
    np.testing.assert_array_equal(ROBOTWIN.compose(images), case["canvas_u8"])


@pytest.mark.parametrize("number", [0, 1])
def test_libero_canvas_is_exact(number):
    case = golden(f"image_libero_case{number}")
    images = {"agentview": case["agentview_image"], "wrist": case["robot0_eye_in_hand_image"]}
    np.testing.assert_array_equal(LIBERO.compose(images), case["canvas_u8"])


@pytest.mark.parametrize(("dtype", "key"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16_as_float32")])
def test_pixel_values_are_exact(dtype, key):
    expected = golden("image_pixel_lut")
    canvas = np.repeat(expected["u8"][None, :, None], 3, axis=2)
    values = to_model_input(canvas, dtype, torch.device("cpu"))
    assert values.shape == (1, 3, 1, 256)
    np.testing.assert_array_equal(values[0, 0, 0].float(), expected[key])
