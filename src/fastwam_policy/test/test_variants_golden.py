"""All variants, at inference and in training, against numbers from the authors' code."""

import json

import numpy as np
import pytest
import torch

from fastwam_policy.model import masks
from fastwam_policy.model.checkpoint import load_into, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.training_loss import Batch, Draws, TimestepSampler, action_sampler, draw, training_loss
from fastwam_policy.model.variants import VARIANTS, act, imagine_and_act, imagine_then_act

from .golden_files import GOLDEN, batch, golden

ATOL = 2e-5
NORMS = json.loads((GOLDEN / "training_losses_and_grad_norms.json").read_text())


def load():
    with torch.device("meta"):
        model = FastWam(PRESETS["tiny"])
    load_into(model, load_weights(GOLDEN / "checkpoint.pt"), "checkpoint.pt")
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return load().requires_grad_(False)


def inputs(model, case):
    context = model.context(batch(case["context"]), batch(case["context_mask"], torch.bool), batch(case["proprio"]))
    observed = torch.from_numpy(case["first_frame_latents"])
    noise = torch.from_numpy(case["initial_noise_action"])
    video_noise = torch.from_numpy(case["initial_noise_video"])
    for tensor in (noise, video_noise):
        drawn = initial_noise(tuple(tensor.shape), int(case["seed"]), torch.float32, model.device)
        np.testing.assert_array_equal(drawn, tensor, "both noises come from the same seed")
    schedule = make_schedule(int(case["num_inference_steps"]), float(case["sigma_shift"]))
    return observed, video_noise, noise, schedule, schedule, context


def close(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("number", [0, 1])
def test_joint(model, number):
    case = golden(f"joint_infer_action_case{number}")
    prediction = imagine_and_act(model, *inputs(model, case), action_sees_future=True)
    close(prediction.actions[0], case["action"])
    close(prediction.video, case["video_latents"])


@pytest.mark.parametrize("number", [0, 1])
def test_idm(model, number):
    case = golden(f"idm_infer_case{number}")
    observed, video_noise, noise, schedule, _, context = inputs(model, case)
    prediction = imagine_then_act(model, observed, video_noise, noise, schedule, schedule, context)
    close(prediction.actions[0], case["action"])
    close(prediction.video, case["video_latents"])
    start = torch.cat([observed, video_noise[:, :, 1:]], dim=2)
    close(model.video_velocity(start, schedule.timesteps[:1], context), case["step0_pred_video"])


def test_fastwam_imagines_without_changing_its_actions(model):
    case = golden("infer_joint_case0")
    observed, _, noise, schedule, _, context = inputs(model, case)
    prediction = imagine_and_act(model, *inputs(model, case), action_sees_future=False)
    close(prediction.actions[0], case["action"])
    close(prediction.video, case["video_latents"])
    close(act(model, observed, noise, schedule, context).actions[0], case["action_from_infer_action"])


def test_remaining_masks_are_exact():
    expected = golden("attention_masks")
    tokens, horizon = int(expected["tokens_per_frame"]), int(expected["action_horizon"])
    frames = int(expected["num_latent_frames"])
    np.testing.assert_array_equal(masks.copied_video_mask(frames, tokens, horizon), expected["idm_train"])
    stage2 = masks.mixture_mask(frames, tokens, horizon, action_sees_future=True)
    np.testing.assert_array_equal(stage2, expected["idm_infer_stage2"])


def test_timestep_weights():
    expected = golden("schedule")
    sampler = TimestepSampler(5.0)
    assert float(sampler._lowest) == pytest.approx(float(expected["weight_y_min"]), rel=1e-12)
    assert float(sampler._mean) == pytest.approx(float(expected["weight_norm_const"]), rel=1e-9)
    for t, weight in (("weight_t", "training_weight"), ("weight_curve_t", "weight_curve")):
        values = sampler.weight(torch.from_numpy(expected[t]))
        np.testing.assert_allclose(values, expected[weight], rtol=1e-6, atol=1e-6)


CASES = {
    "fastwam": ("first_frame", {}),
    "fastwam_nopad": ("first_frame", {"pad": False}),
    "fastwam_partial_mask": ("first_frame", {"mask": "context_mask_partial"}),
    "fastwam_no_video_cotrain": ("first_frame", {"variant": "fastwam_no_video"}),
    "joint": ("joint", {}),
    "idm": ("idm", {}),
    "idm_clean_cond": ("idm", {"condition": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_training_losses_and_gradients(name):
    mode, options = CASES[name]
    data = {key: torch.from_numpy(value) for key, value in golden("training_inputs").items()}
    expected, model = golden(f"training_{name}"), load()
    pad = options.get("pad", True)
    given = Batch(
        data["input_latents"], data["context"], data[options.get("mask", "context_mask")],
        data["proprio"][:, 0], data["action"],
        data["action_is_pad"] if pad else None, data["image_is_pad"] if pad else None,
    )  # fmt: skip
    selected = data["cond_noise_mask"] if options.get("condition", True) else torch.zeros(2, dtype=torch.bool)
    draws = Draws(
        data["noise_video"], data["timestep_video"], data["noise_action"], data["timestep_action"][:, None],
        data["noise_video_cond"], torch.where(selected, data["timestep_video_cond_sampled"], 0.0),
    )  # fmt: skip
    lambda_video = VARIANTS[options.get("variant", "fastwam")].lambda_video
    losses = training_loss(model, mode, given, draws, TimestepSampler(5.0), lambda_video)
    close(losses.video_velocity.detach(), expected["pred_video"])
    close(losses.action_velocity.detach(), expected["pred_action"])
    for key in ("total", "video", "action"):
        if key == "video" and not lambda_video:
            continue  # the official code does not compute it then
        assert getattr(losses, key).item() == pytest.approx(float(expected[f"loss_{key}"]), rel=1e-5)

    losses.total.backward()
    official = {f"mixtures.{n}" if not n.startswith("proprio") else n: p for n, p in model.named_parameters()}
    norms = NORMS[name]["grad_norms"]
    assert set(norms) == set(official)
    for parameter, norm in norms.items():
        gradient = official[parameter].grad
        assert (0.0 if gradient is None else float(gradient.norm())) == pytest.approx(norm, rel=1e-4, abs=1e-6), (
            parameter
        )
    for key in (key for key in expected if key.startswith("grad:")):
        np.testing.assert_allclose(official[key[5:]].grad, expected[key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_batch_is_learned_by_every_variant(name):
    """A few steps on one batch must lower the loss, in every mode of the variant."""
    torch.manual_seed(0)
    data = {key: torch.from_numpy(value) for key, value in golden("training_inputs").items()}
    given = Batch(data["input_latents"], data["context"], data["context_mask"], data["proprio"][:, 0], data["action"])
    variant = VARIANTS[name]
    sampler = action_sampler(variant, 5.0)
    model = FastWam(PRESETS["tiny"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    draws = {mode: draw(given, mode, sampler) for mode in variant.modes}
    history = []
    for step in range(30):
        mode = variant.modes[step % len(variant.modes)]
        losses = training_loss(model, mode, given, draws[mode], sampler, variant.lambda_video)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(float(losses.total.detach()))
    assert min(history[-2:]) < 0.7 * min(history[:2])
