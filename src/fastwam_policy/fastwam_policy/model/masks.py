"""Attention masks. True = may attend, rows are queries.

The first `given` frames of a video are clean: the observation, and earlier ones before it if there are any.
"""

from __future__ import annotations

import torch
from torch import Tensor


def video_mask(frames: int, tokens_per_frame: int, given: int = 1) -> Tensor:
    """[V, V] with V = frames * tokens_per_frame: the `given` frames see only each other; the others see all."""
    tokens, clean = frames * tokens_per_frame, given * tokens_per_frame
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    mask[:clean, clean:] = False
    return mask


def copied_video_mask(frames: int, tokens_per_frame: int, horizon: int, draws: int = 1, given: int = 1) -> Tensor:
    """[2V + A, 2V + A] over [noisy video, clean video, A = draws * horizon actions], to imagine first and then act.

    Each copy sees only itself, as in :func:`video_mask`; actions see their own draw and the clean copy.
    """
    video, actions = frames * tokens_per_frame, draws * horizon
    mask = torch.zeros(2 * video + actions, 2 * video + actions, dtype=torch.bool)
    mask[:video, :video] = mask[video : 2 * video, video : 2 * video] = video_mask(frames, tokens_per_frame, given)
    mask[2 * video :, video : 2 * video] = True
    mask[2 * video :, 2 * video :] = _own_draw(horizon, draws)
    return mask


def mixture_mask(
    frames: int, tokens_per_frame: int, horizon: int, draws: int = 1, given: int = 1, *, action_sees_future: bool
) -> Tensor:
    """[V + A, V + A] over [video tokens, A = draws * horizon action tokens].

    Video never sees actions. Actions see their own draw and the video: the `given` frames alone in Fast-WAM, so that
    the future can be dropped at inference, or all frames in the joint and imagine-then-execute variants.
    """
    video, actions = frames * tokens_per_frame, draws * horizon
    mask = torch.zeros(video + actions, video + actions, dtype=torch.bool)
    mask[:video, :video] = video_mask(frames, tokens_per_frame, given)
    mask[video:, video:] = _own_draw(horizon, draws)
    mask[video:, : video if action_sees_future else given * tokens_per_frame] = True
    return mask


def _own_draw(horizon: int, draws: int) -> Tensor:
    """[A, A]: several draws of noise for the same observation stand side by side and do not see each other."""
    return torch.block_diag(*[torch.ones(horizon, horizon)] * draws).bool()
