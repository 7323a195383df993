"""The engine gives what the plain arithmetic gives, whatever it caches."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch

from fastwam_policy.model.checkpoint import load_into, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.variants import Prediction
from fastwam_policy.performance.plain import plain_inference
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam import engine as engine_module
from fastwam_policy.policies.fastwam import linears
from fastwam_policy.policies.fastwam.engine import Engine
from fastwam_policy.policies.fastwam.policy import FastWamPolicy, Options
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .golden_files import GOLDEN, batch, golden

ROBOT = RobotConfig.load()


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        model = FastWam(PRESETS["tiny"])
    load_into(model, load_weights(GOLDEN / "checkpoint.pt"), "checkpoint.pt")
    return model.eval().requires_grad_(False)


def engine_for(model, case, kind="eager", frames=1):
    height, width = case["first_frame_latents"].shape[-2:]
    schedule = make_schedule(10, float(case["sigma_shift"]), model.dtype)
    horizon = int(case["action_horizon"])
    return Engine(model, (height // 2, width // 2), horizon, schedule, len(case["context"]), kind, frames)


def joint_state(case):
    return batch(case["proprio"]) if "proprio" in case else None


@pytest.fixture(params=["plain", "packed"])
def weights(request, monkeypatch):
    """Both ways in which the engine may keep them, whatever this machine would choose."""
    if request.param == "packed" and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(engine_module, "packing_pays", lambda *_: request.param == "packed")
    monkeypatch.setattr(linears, "_LEAST_PRODUCT", 0)
    return request.param


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.usefixtures("weights")
def test_golden_chunks(model, number):
    """Case 1 hides text tokens, with garbage in their rows; case 3 has no joint state."""
    check_chunks(model, number, "eager")


@torch.inference_mode()
def check_chunks(model, number, kind):
    case = golden(f"infer_action_case{number}")
    engine = engine_for(model, case, kind)
    engine.set_prompt(batch(case["context"]), batch(case["context_mask"], torch.bool))
    for _ in range(2):
        engine.prefill(torch.from_numpy(case["first_frame_latents"]), joint_state(case))
        action = engine.denoise(torch.from_numpy(case["initial_noise"]))
        np.testing.assert_allclose(action[0], case["action"], rtol=0, atol=2e-5)


@torch.inference_mode()
def test_plain_arithmetic_is_golden_too(model):
    for number in (0, 1, 3):
        case = golden(f"infer_action_case{number}")
        action = plain_inference(
            model, torch.from_numpy(case["first_frame_latents"]), batch(case["context"]),
            batch(case["context_mask"], torch.bool), joint_state(case), torch.from_numpy(case["initial_noise"]),
            make_schedule(10, float(case["sigma_shift"])),
        )  # fmt: skip
        np.testing.assert_allclose(action[0], case["action"], rtol=0, atol=2e-5)
    for name, mode in (("joint_infer_action", "joint"), ("idm_infer", "idm")):
        case = golden(f"{name}_case0")
        video_noise, noise = (torch.from_numpy(case[f"initial_noise_{part}"]) for part in ("video", "action"))
        action = plain_inference(
            model, torch.from_numpy(case["first_frame_latents"]), batch(case["context"]),
            batch(case["context_mask"], torch.bool), joint_state(case), noise,
            make_schedule(int(case["num_inference_steps"]), float(case["sigma_shift"])), mode, video_noise,
        )  # fmt: skip
        np.testing.assert_allclose(action[0], case["action"], rtol=0, atol=2e-5)


@torch.inference_mode()
def test_nothing_of_an_earlier_prompt_or_observation_remains(model):
    """Of one with as many visible rows, others, and without a joint state, either."""
    case = golden("infer_action_case0")
    engine = engine_for(model, case)
    for number in (1, 3, 0, 3, 1, 0):
        other = golden(f"infer_action_case{number}")
        engine.set_prompt(batch(other["context"]), batch(other["context_mask"], torch.bool))
        engine.prefill(torch.from_numpy(other["first_frame_latents"]), joint_state(other))
        action = engine.denoise(torch.from_numpy(other["initial_noise"]))
        np.testing.assert_allclose(action[0], other["action"], rtol=0, atol=2e-5)
    hidden = torch.ones(1, 128, dtype=torch.bool)
    hidden[0, 5] = False  # as many rows as without a joint state, but others
    proprio, latents = batch(case["proprio"]), torch.from_numpy(case["first_frame_latents"])
    engine.set_prompt(batch(case["context"]), hidden)
    engine.prefill(latents, proprio)
    noise, schedule = torch.from_numpy(case["initial_noise"]), make_schedule(10, 5.0)
    expected = plain_inference(model, latents, batch(case["context"]), hidden, proprio, noise, schedule)
    np.testing.assert_allclose(engine.denoise(noise), expected, rtol=0, atol=2e-5)


@torch.inference_mode()
def test_wrong_inputs_are_named(model):
    case = golden("infer_action_case1")
    engine = engine_for(model, case)
    latents = torch.from_numpy(case["first_frame_latents"])
    with pytest.raises(ValueError, match="expected 128 text tokens, got 64"):
        engine.set_prompt(batch(case["context"][:64]), torch.ones(1, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"expected a joint state \[1, 14\], got \[1, 7\]"):
        engine.prefill(latents, torch.zeros(1, 7))
    engine.set_prompt(batch(case["context"]), torch.zeros(1, 128, dtype=torch.bool))
    with pytest.raises(ValueError, match="hides every token, and there is no joint state"):
        engine.prefill(latents, None)
    expected = r"^expected noise \[1, 32, 14\] for this horizon, got \[1, 16, 14\]$"
    for denoise, *rest in (
        (engine.denoise,),
        (engine.denoise_guided, torch.zeros(1, 32, 14), torch.ones(32)),
        (engine.denoise_after, torch.zeros(1, 2, 14)),
    ):
        with pytest.raises(ValueError, match=expected):
            denoise(torch.zeros(1, 16, 14), *rest)


def observation(stamp_ns=0):
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 255, (72, 128, 3), np.uint8) for name in ROBOT.cameras}
    return Observation(stamp_ns, images, dict.fromkeys(ROBOT.joint_names, 0.5), "fold the towel")


def actions(bundle, **options):
    policy = FastWamPolicy.load(bundle, options=Options(**options))
    policy.prepare("fold the towel")
    return policy.infer(observation()).actions


def test_options_change_what_they_say_and_nothing_else(random_bundle):
    reference = actions(random_bundle)
    assert 0 < np.abs(actions(random_bundle, dtype="bfloat16") - reference).max() < 20
    assert np.abs(actions(random_bundle, denoise_steps=4) - reference).max() > 1e-3
    np.testing.assert_array_equal(actions(random_bundle, denoise_steps=10), reference)
    np.testing.assert_array_equal(
        actions(random_bundle, warm_start=5), reference
    )  # there is no chunk to start from yet


def test_quantized_weights(random_bundle):
    if importlib.util.find_spec("torchao") is None:
        with pytest.raises(ConfigError, match="quantize int8 needs torchao"):
            actions(random_bundle, quantize="int8")
    else:
        assert 0 < np.abs(actions(random_bundle, quantize="int8") - actions(random_bundle)).max() < 20


def test_warm_start_follows_the_last_chunk(random_bundle):
    policy = FastWamPolicy.load(random_bundle, options=Options(warm_start=9))
    policy.prepare("fold the towel")
    step = policy.bundle.config.step_ns
    first = policy.infer(observation()).actions
    second = policy.infer(observation(8 * step)).actions
    cold = FastWamPolicy.load(random_bundle)
    cold.prepare("fold the towel")
    fresh = cold.infer(observation(8 * step)).actions
    assert np.abs(second[:24] - first[8:]).mean() < np.abs(fresh[:24] - first[8:]).mean()
    np.testing.assert_array_equal(policy.infer(observation(99 * step)).actions, fresh)  # too long ago


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warm_start": 10}, "warm_start must be 0 to 9"),
        ({"mode": "idm"}, "mode must be one of first_frame for the variant fastwam, got 'idm'"),
    ],
)
def test_wrong_options_are_named(random_bundle, options, expected):
    with pytest.raises(ConfigError, match=expected):
        FastWamPolicy.load(random_bundle, options=Options(**options))


@pytest.mark.parametrize("variant", ["fastwam_no_video", "joint", "idm", "optional_idm"])
def test_every_variant_runs_as_a_policy(tmp_path, variant):
    write_random_bundle(tmp_path / variant, ROBOT, "fold the towel", variant=variant)
    chunk = actions(tmp_path / variant)
    assert chunk.shape == (32, 14)
    assert np.isfinite(chunk).all()
    if variant == "optional_idm":
        assert np.abs(actions(tmp_path / variant, mode="idm") - chunk).max() > 1e-3


def test_options_are_all_parameters_of_the_node():
    import yaml
    from ament_index_python.packages import get_package_share_directory

    path = f"{get_package_share_directory('fastwam_policy')}/config/policy_node.yaml"
    with open(path) as file:
        parameters = yaml.safe_load(file)
    for field in dataclasses.fields(Options):
        if field.name not in ("realtime", "seed"):  # off, for policies that cannot; for benchmarks
            assert parameters[field.name]["default"] in ("", field.default), "empty leaves it to the policy"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["joint_infer_action", "idm_infer"])
@pytest.mark.usefixtures("weights")
def test_golden_chunks_of_the_variants_that_imagine(model, name, number):
    check_imagining(model, name, number, "eager")


@pytest.mark.slow  # compiles for a minute
def test_golden_chunks_compiled(model):
    check_chunks(model, 0, "compiled")
    check_imagining(model, "joint_infer_action", 0, "compiled")


@torch.inference_mode()
def check_imagining(model, name, number, kind):
    case = golden(f"{name}_case{number}")
    video_noise, noise = (torch.from_numpy(case[f"initial_noise_{part}"]) for part in ("video", "action"))
    engine = engine_for(model, case | {"action_horizon": noise.shape[1]}, kind, frames=video_noise.shape[2])
    engine.set_prompt(batch(case["context"]), batch(case["context_mask"], torch.bool))
    for _ in range(2):
        engine.prefill(torch.from_numpy(case["first_frame_latents"]), joint_state(case))
        if name == "joint_infer_action":
            prediction = engine.imagine_and_denoise(video_noise, noise)
        else:
            video = engine.imagine(video_noise)
            prediction = Prediction(engine.denoise(noise), video)
        np.testing.assert_allclose(prediction.actions[0], case["action"], rtol=0, atol=2e-5)
        np.testing.assert_allclose(prediction.video, case["video_latents"], rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="expected noise .* for the video, got"):
        engine.imagine(video_noise[:, :, 1:])


@torch.no_grad()
def test_guidance_has_gradients_packed_or_not(model, weights):
    """Packed weights have none. Steered nowhere, a chunk is the golden one."""
    case = golden("infer_action_case0")
    engine = engine_for(model, case)
    engine.set_prompt(batch(case["context"]), batch(case["context_mask"], torch.bool))
    engine.prefill(torch.from_numpy(case["first_frame_latents"]), joint_state(case))
    noise = torch.from_numpy(case["initial_noise"])
    action = engine.denoise_guided(noise, torch.zeros_like(noise), torch.zeros(noise.shape[1]))
    np.testing.assert_allclose(action[0], case["action"], rtol=0, atol=2e-5)
    assert (engine._action.layers[0].project._packed is not None) == (weights == "packed")


def test_packing_is_chosen_by_time_and_memory(monkeypatch):
    monkeypatch.setattr(linears, "_time_ratio", lambda *_: 2.0)
    assert not linears.packing_pays(32, 512, 512, torch.float32)
    monkeypatch.setattr(linears, "_time_ratio", lambda *_: 1.2)
    assert linears.packing_pays(32, 512, 512, torch.float32), "no reason to be another than elsewhere"
    monkeypatch.undo()
    assert linears._time_ratio(8, 64, 64, torch.float32) > 0
    can = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_fp16_supported()
    assert linears.packing_pays(1, 8, 8, torch.float16) <= can, "small, and of a type that this processor may not have"
    assert linears.packing_fits(2**20)
    assert not linears.packing_fits(2**60)
