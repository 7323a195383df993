"""The model against numbers from the authors' code; tolerances are those recommended with the fixtures."""

import numpy as np
import pytest
import torch

from fastwam_policy.model import masks
from fastwam_policy.model.checkpoint import load_into, load_weights
from fastwam_policy.model.config import PRESETS, ExpertConfig, ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import initial_noise, make_schedule, shifted
from fastwam_policy.model.layers import action_rotary, timestep_embedding, video_rotary

from .golden_files import GOLDEN, batch, golden

ATOL = 2e-5


def load(dtype=torch.float32):
    with torch.device("meta"):
        model = FastWam(PRESETS["tiny"])
    load_into(model, load_weights(GOLDEN / "checkpoint.pt"), "checkpoint.pt")
    return model.to(dtype).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return load()


def infer(model, case, steps=10):
    """Actions [H, D], the velocity of each step [N, H, D], and the video expert's keys and values."""
    dtype = model.dtype
    proprio = batch(case["proprio"], dtype) if "proprio" in case else None
    context = model.context(batch(case["context"], dtype), batch(case["context_mask"], torch.bool), proprio)
    past = model.prefill(torch.from_numpy(case["first_frame_latents"]).to(dtype), context)
    shape = (1, int(case["action_horizon"]), model.config.action_dim)
    noise = initial_noise(shape, int(case["seed"]), dtype, model.device)
    if dtype == torch.float32:
        np.testing.assert_array_equal(noise.numpy(), case["initial_noise"])
    schedule = make_schedule(steps, float(case["sigma_shift"]), dtype)
    velocities, actions = [], noise
    for t, delta in zip(schedule.timesteps, schedule.deltas, strict=True):
        velocities.append(model.action_velocity(actions, t, past, context))
        actions = actions + delta * velocities[-1]
    torch.testing.assert_close(actions, model.denoise(noise, schedule, past, context), rtol=0, atol=0)
    return actions[0].float().numpy(), torch.cat(velocities).float().numpy(), past


@pytest.mark.parametrize("number", range(4))
def test_infer_action(model, number):
    case = golden(f"infer_action_case{number}")
    action, velocities, _ = infer(model, case)
    np.testing.assert_allclose(action, case["action"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(velocities, case["step_pred"], rtol=0, atol=ATOL)


@pytest.mark.parametrize("steps", [1, 4])
def test_fewer_steps(model, steps):
    case = golden("infer_action_case0")
    np.testing.assert_allclose(infer(model, case, steps)[0], case[f"action_{steps}steps"], rtol=0, atol=ATOL)


def test_bfloat16():
    case = golden("infer_action_case0") | golden("infer_action_case0_bf16")
    action, _, past = infer(load(torch.bfloat16), case)
    np.testing.assert_allclose(action, case["action"], rtol=0, atol=0.15)
    np.testing.assert_allclose(past[0][1].float().numpy(), case["kv_v_layer0"], rtol=0, atol=0.15)


def test_intermediates(model):
    case, inner = golden("infer_action_case0"), golden("infer_action_case0_intermediates")
    _, _, past = infer(model, case)
    for layer, name in ((0, "layer0"), (-1, "last")):
        for index, kind in ((0, "k"), (1, "v")):
            value = past[layer][index].numpy()
            np.testing.assert_allclose(value, inner[f"kv_{kind}_{name}"], rtol=0, atol=ATOL)
    latents = torch.from_numpy(case["first_frame_latents"])
    np.testing.assert_allclose(model.video.tokens(latents).numpy(), inner["video_tokens"], rtol=0, atol=ATOL)
    noise = torch.from_numpy(case["initial_noise"])
    np.testing.assert_allclose(model.action.action_encoder(noise).numpy(), inner["action_tokens"], rtol=0, atol=ATOL)
    embedding, modulation = model.action.embed_time(torch.tensor([1000.0]))
    np.testing.assert_allclose(embedding.numpy(), inner["action_t"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(modulation.numpy(), inner["action_t_mod"], rtol=0, atol=ATOL)
    embedding, modulation = model.video.embed_time(torch.zeros(1, 1))
    np.testing.assert_allclose(embedding.numpy(), inner["video_t"], rtol=0, atol=ATOL)
    np.testing.assert_allclose(modulation.numpy(), inner["video_t_mod"], rtol=0, atol=ATOL)
    rows, columns = case["first_frame_latents"].shape[-2] // 2, case["first_frame_latents"].shape[-1] // 2
    for (cos, sin), name in (
        (action_rotary(32, 24, torch.device("cpu")), "action_freqs"),
        (video_rotary(1, rows, columns, 24, torch.device("cpu")), "video_freqs"),
    ):
        np.testing.assert_allclose(torch.stack([cos, sin], -1)[:, None].numpy(), inner[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 4, 10, 20])
@pytest.mark.parametrize(("suffix", "dtype"), [("", torch.float32), ("_bf16", torch.bfloat16)])
def test_schedule_is_exact(steps, suffix, dtype):
    expected, schedule = golden("schedule"), make_schedule(steps, 5.0, dtype)
    np.testing.assert_array_equal(schedule.timesteps.float(), np.atleast_1d(expected[f"timesteps_{steps}{suffix}"]))
    np.testing.assert_array_equal(schedule.deltas.float(), np.atleast_1d(expected[f"deltas_{steps}{suffix}"]))


def test_schedule_with_another_shift_is_exact():
    expected, schedule = golden("schedule"), make_schedule(10, 2.5)
    np.testing.assert_array_equal(schedule.timesteps, expected["timesteps_10_shift2p5"])
    np.testing.assert_array_equal(schedule.deltas, expected["deltas_10_shift2p5"])
    np.testing.assert_array_equal(shifted(torch.from_numpy(expected["phi_u"]), 5.0), expected["phi_sigma"])


@pytest.mark.parametrize("dim", [32, 256])
def test_timestep_embedding(dim):
    expected = golden("schedule")
    embedding = timestep_embedding(torch.from_numpy(expected["sin_emb_t"]), dim)
    np.testing.assert_allclose(embedding, expected[f"sin_emb_dim{dim}"], rtol=0, atol=1e-7)


def test_masks_are_exact():
    expected = golden("attention_masks")
    tokens, horizon = int(expected["tokens_per_frame"]), int(expected["action_horizon"])
    frames = int(expected["num_latent_frames"])
    for name, mask in {
        "fastwam": masks.mixture_mask(frames, tokens, horizon, action_sees_future=False),
        "fastwam_single_frame": masks.mixture_mask(1, tokens, horizon, action_sees_future=False),
        "joint": masks.mixture_mask(frames, tokens, horizon, action_sees_future=True),
        "video_first_frame_causal": masks.video_mask(frames, tokens),
    }.items():
        np.testing.assert_array_equal(mask, expected[name], err_msg=name)


@pytest.mark.parametrize(("size", "billions"), [("tiny", 0.00037), ("mid", 0.064), ("full", 6.02)])
def test_presets_have_their_size(size, billions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in FastWam(PRESETS[size]).parameters())
    assert count / 1e9 == pytest.approx(billions, rel=0.02)


def expert(**changes):
    sizes = {"hidden_dim": 32, "ffn_dim": 64, "num_heads": 4, "head_dim": 24, "num_layers": 2, "text_dim": 16}
    return ExpertConfig(**(sizes | changes))


@pytest.mark.parametrize(
    ("video", "action", "expected"),
    [
        ({"head_dim": 64}, {"head_dim": 64}, "head_dim 64 cannot be split"),
        ({"num_layers": 3}, {}, "num_layers must be equal in both experts"),
        ({"freq_dim": 31}, {}, "freq_dim must be even"),
    ],
)
def test_impossible_sizes_are_named(video, action, expected):
    with pytest.raises(ValueError, match=expected):
        ModelConfig(expert(**video), expert(**action), action_dim=14, proprio_dim=14)


def test_impossible_inputs_are_named(model):
    case = golden("infer_action_case0")
    context = model.context(batch(case["context"]), batch(case["context_mask"], torch.bool), None)
    for shape in ((1, 48, 12, 10), (1, 48, 1, 11, 10)):
        with pytest.raises(ValueError, match="expected latents"):
            model.prefill(torch.zeros(shape), context)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        make_schedule(0, 5.0)
    with pytest.raises(ValueError, match="shift must be > 0"):
        make_schedule(10, 0.0)
