"""Real-time chunking: guidance (arXiv 2506.07339) and prefix conditioning (arXiv 2512.05964)."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.realtime import MAX_GUIDANCE, guidance_weight, guided_velocity, soft_mask
from fastwam_policy.model.training_loss import Batch, TimestepSampler, draw, training_loss
from fastwam_policy.policies.base import Observation, RunningPlan
from fastwam_policy.policies.fastwam.engine import Engine
from fastwam_policy.policies.fastwam.policy import FastWamPolicy, Options
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
H, D = 32, 14


def test_soft_mask():
    mask = soft_mask(4, 24, H)
    assert (mask[:4] == 1).all()
    assert (mask[24:] == 0).all()
    c = (24 - 10) / (24 - 4 + 1)
    assert mask[10].item() == pytest.approx(c * np.expm1(c) / np.expm1(1.0))
    assert (torch.diff(mask) <= 0).all()
    assert soft_mask(H, H, H).tolist() == [1.0] * H


def test_guidance_weight():
    assert guidance_weight(1.0) == MAX_GUIDANCE
    assert guidance_weight(0.5) == pytest.approx(2.0)
    assert guidance_weight(0.01) == MAX_GUIDANCE


def test_guidance_of_a_linear_flow_is_the_closed_form():
    """For v(x) = A x the Jacobian of the estimate x - sigma v is I - sigma A."""
    torch.manual_seed(0)
    a = 0.2 * torch.randn(D, D, dtype=torch.float64)
    x, target = torch.randn(1, H, D, dtype=torch.float64), torch.randn(1, H, D, dtype=torch.float64)
    mask, sigma = soft_mask(4, 20, H).double(), 0.7
    jacobian = torch.eye(D) - sigma * a
    error = (target - x @ jacobian.T) * mask[:, None]
    expected = x @ a.T - guidance_weight(sigma) * error @ jacobian
    torch.testing.assert_close(guided_velocity(lambda y: y @ a.T, x, sigma, target, mask), expected)


@pytest.fixture(scope="module")
def engine():
    torch.manual_seed(0)
    model = FastWam(PRESETS["tiny"]).eval().requires_grad_(False)
    with torch.no_grad():
        engine = Engine(model, (2, 4), H, make_schedule(10, 1.0), 16)
        engine.set_prompt(torch.randn(1, 16, 64), torch.ones(1, 16, dtype=torch.bool))
        engine.prefill(torch.randn(1, 48, 1, 4, 8), torch.randn(1, 14))
    return engine


@torch.no_grad()
def test_without_a_mask_guidance_changes_nothing(engine):
    noise = torch.randn(1, H, D)
    guided = engine.denoise_guided(noise, torch.zeros(1, H, D), torch.zeros(H))
    torch.testing.assert_close(guided, engine.denoise(noise), rtol=0, atol=2e-5)


@torch.no_grad()
def test_guidance_brings_the_chunk_to_the_running_plan(engine):
    noise, plan = torch.randn(1, H, D), torch.randn(1, 1, D).expand(1, H, D)
    free, guided = engine.denoise(noise), engine.denoise_guided(noise, plan, soft_mask(6, 24, H))
    before, after = ((x - plan).abs()[0].mean(dim=1) for x in (free, guided))
    assert after[:6].max() < 0.1 * before[:6].min()
    assert after[6:12].mean() < 0.5 * before[6:12].mean()


@torch.no_grad()
def test_a_prefix_is_kept_and_seen(engine):
    noise, prefix = torch.randn(1, H, D), torch.randn(1, 5, D)
    chunk = engine.denoise_after(noise, prefix)
    assert torch.equal(chunk[:, :5], prefix)
    other = engine.denoise_after(noise, prefix + 1)
    assert (chunk - other)[:, 5:].abs().max() > 1e-3
    torch.testing.assert_close(engine.denoise_after(noise, prefix[:, :0]), engine.denoise(noise), rtol=0, atol=2e-5)


def batch(model, count=3):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return Batch(
        normal(count, 48, 3, 4, 8), normal(count, 16, 64), torch.ones(count, 16, dtype=torch.bool), normal(count, 14),
        normal(count, H, D),
    )  # fmt: skip


def test_the_engine_sees_a_prefix_as_training_does():
    """The velocity at the noisy steps is that of the training loss with the same timesteps."""
    torch.manual_seed(0)
    model = FastWam(PRESETS["tiny"]).eval().requires_grad_(False)
    one, sampler, schedule = batch(model, 1), TimestepSampler(1.0), make_schedule(1, 1.0)
    drawn = draw(one, "first_frame", sampler, max_prefix=8)
    drawn = dataclasses.replace(drawn, prefix=torch.tensor([5]), action_t=schedule.timesteps[:, None])
    with torch.no_grad():
        velocity = training_loss(model, "first_frame", one, drawn, sampler).action_velocity
        engine = Engine(model, (2, 4), H, schedule, 16)
        engine.set_prompt(one.text, one.text_mask)
        engine.prefill(one.latents[:, :, :1], one.proprio)
        chunk = engine.denoise_after(drawn.action_noise, one.actions[:, :5])
    torch.testing.assert_close(chunk[:, 5:], (drawn.action_noise - velocity)[:, 5:], rtol=0, atol=1e-4)


def test_prefix_steps_are_clean_and_have_no_loss():
    torch.manual_seed(0)
    model = FastWam(PRESETS["tiny"])
    data, sampler = batch(model), TimestepSampler(1.0)
    drawn = draw(data, "first_frame", sampler, max_prefix=8)
    assert ((drawn.prefix >= 0) & (drawn.prefix <= 8)).all()
    drawn = dataclasses.replace(drawn, prefix=torch.tensor([0, 4, 8]))
    losses = training_loss(model, "first_frame", data, drawn, sampler)
    # Noise of a given step is never seen, and its error does not count.
    noise = drawn.action_noise.clone()
    noise[2, :8] = 100.0
    again = training_loss(model, "first_frame", data, dataclasses.replace(drawn, action_noise=noise), sampler)
    torch.testing.assert_close(again.action, losses.action)
    plain = training_loss(model, "first_frame", data, dataclasses.replace(drawn, prefix=None), sampler)
    assert not torch.equal(plain.action, losses.action)
    zero = dataclasses.replace(drawn, prefix=torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(training_loss(model, "first_frame", data, zero, sampler).action, plain.action)


def observation(running=None):
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 255, (72, 128, 3), np.uint8) for name in ROBOT.cameras}
    return Observation(0, images, dict.fromkeys(ROBOT.joint_names, 0.5), "fold the towel", running)


def make(bundle, **options):
    policy = FastWamPolicy.load(bundle, options=Options(**options))
    policy.prepare("fold the towel")
    return policy


def test_a_policy_continues_the_running_plan(random_bundle):
    free_policy = make(random_bundle)
    free = free_policy.infer(observation())
    plan = free.actions[:24] + np.where(np.arange(D) % 7 == 6, 5.0, 0.2)
    chunk = make(random_bundle, realtime="guidance").infer(observation(RunningPlan(plan, 5)))
    assert chunk.committed == 5
    np.testing.assert_array_equal(chunk.actions[:5], plan[:5])
    seam = np.abs(chunk.actions[5] - plan[5])[:6].max()
    assert seam < 0.3 * np.abs(free.actions[5] - plan[5])[:6].max()
    np.testing.assert_array_equal(make(random_bundle).infer(observation(RunningPlan(plan, 5))).actions, chunk.actions)
    warm = make(random_bundle, warm_start=3)
    assert "realtime_chunking" in free_policy.info.abilities
    assert "realtime_chunking" not in warm.info.abilities
    assert warm.infer(observation(RunningPlan(plan, 5))).committed == 0
    alone = make(random_bundle, realtime="guidance").infer(observation())
    np.testing.assert_array_equal(alone.actions, free.actions)


def test_prefix_needs_a_bundle_trained_for_it(random_bundle, tmp_path):
    import shutil

    with pytest.raises(ConfigError, match="realtime prefix needs a bundle trained with prefix conditioning"):
        make(random_bundle, realtime="prefix")
    folder = tmp_path / "prefix"
    shutil.copytree(random_bundle, folder)
    config = yaml.safe_load((folder / "policy.yaml").read_text())
    (folder / "policy.yaml").write_text(yaml.safe_dump(config | {"max_prefix": 6}))
    plan = np.tile(np.where(np.arange(D) % 7 == 6, 50.0, 0.5), (24, 1))
    chunk = make(folder, realtime="prefix").infer(observation(RunningPlan(plan, 4)))
    np.testing.assert_array_equal(chunk.actions[:4], plan[:4])


@pytest.mark.parametrize("options", [{"warm_start": 3}, {"mode": "first_frame", "warm_start": 1}])
def test_combinations_that_cannot_work_are_named(random_bundle, options):
    with pytest.raises(ConfigError, match="needs the mode first_frame and no warm_start"):
        make(random_bundle, realtime="guidance", **options)
