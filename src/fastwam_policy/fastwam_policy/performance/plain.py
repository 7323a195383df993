"""The arithmetic exactly as in the formulae, nothing cached: what the engine is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from fastwam_policy.model.fastwam import Context, FastWam, Stream, run_layers
from fastwam_policy.model.flow import Schedule
from fastwam_policy.model.masks import mixture_mask


def plain_inference(
    model: FastWam,
    latents: Tensor,
    text: Tensor,
    text_mask: Tensor,
    proprio: Tensor | None,
    noise: Tensor,
    schedule: Schedule,
) -> Tensor:
    """Normalised actions [1, H, action_dim]; arguments as in :meth:`FastWam.context` and :func:`variants.act`.

    As in the published code every video token has its own modulation, every layer of every step computes the keys
    and values of all context tokens again, masks are applied though all true, and the last layer is run to its end.
    """
    if proprio is not None and model.proprio_encoder is not None:
        text = torch.cat([text, model.proprio_encoder(proprio)[:, None]], dim=1)
        text_mask = torch.cat([text_mask, text_mask.new_ones(len(text_mask), 1)], dim=1)
    mask = text_mask[:, None, None, :]
    frames, rows, columns = model.grid(latents)
    tokens, horizon = rows * columns, noise.shape[1]
    attention = mixture_mask(frames, tokens, horizon, action_sees_future=False).to(noise.device)

    context = Context(model.video.context_key_values(text), [], mask)
    stream, _ = model.video_stream(latents, latents.new_zeros(1, 1), context)
    _, t_mod = model.video.embed_time(latents.new_zeros(1, tokens))
    past = run_layers(
        [Stream(stream.expert, stream.x, t_mod, stream.rotary, context.video, mask)], attention[:tokens, :tokens]
    )

    actions = noise
    for t, delta in zip(schedule.timesteps, schedule.deltas, strict=True):
        context = Context([], model.action.context_key_values(text), mask)
        stream = model.action_stream(actions, t.view(1, 1), context)
        run_layers([stream], attention[tokens:], past)
        actions = actions + delta * model.action.head(stream.x)
    return actions
