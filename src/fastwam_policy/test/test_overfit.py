"""Each variant learns one batch by heart: its losses lead where its inference looks."""

import pytest
import torch

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.training_loss import Batch, action_sampler, draw, training_loss
from fastwam_policy.model.variants import VARIANTS, act, imagine_and_act, imagine_then_act

pytestmark = [pytest.mark.training, pytest.mark.slow]
H, STEPS = 8, 140
# Optional IDM has the losses of two others.
CASES = [(name, mode) for name, variant in VARIANTS.items() for mode in variant.modes if name != "optional_idm"]


def chunk(model, name, mode, batch, schedule):
    noise = VARIANTS[name].start((1, *batch.actions.shape[1:]), 0, torch.float32, model.device).expand_as(batch.actions)
    context = model.context(batch.text, batch.text_mask, batch.proprio)
    observed = batch.latents[:, :, :1]
    if mode == "first_frame":
        return act(model, observed, noise, schedule, context).actions
    video_noise = initial_noise((1, *batch.latents.shape[1:]), 0, torch.float32, model.device).expand_as(batch.latents)
    inputs = (model, observed, video_noise, noise, schedule, schedule, context)
    if mode == "joint":
        return imagine_and_act(*inputs, action_sees_future=True).actions
    return imagine_then_act(*inputs).actions


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_one_batch_is_learned_by_heart(name, mode):
    torch.manual_seed(0)
    model, variant = FastWam(PRESETS["tiny"]), VARIANTS[name]
    sampler, schedule = action_sampler(variant, 5.0), make_schedule(1 if variant.regression else 10, 5.0)
    count, text_dim = 2, PRESETS["tiny"].video.text_dim
    batch = Batch(
        torch.randn(count, 48, 2, 4, 4), torch.randn(count, 4, text_dim), torch.ones(count, 4, dtype=torch.bool),
        torch.randn(count, 14), torch.randn(count, H, 14),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    with torch.no_grad():
        before = float((chunk(model, name, mode, batch, schedule) - batch.actions).abs().mean())
    for _ in range(STEPS):
        draws = draw(batch, mode, sampler, action_draws=4)
        training_loss(model, mode, batch, draws, sampler, variant.lambda_video).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        after = float((chunk(model, name, mode, batch, schedule) - batch.actions).abs().mean())
    assert after < before / 4
