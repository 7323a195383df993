"""Who may attend to whom. True = may attend, rows are queries."""

from __future__ import annotations

import torch
from torch import Tensor


def video_mask(frames: int, tokens_per_frame: int) -> Tensor:
    """[V, V] with V = frames * tokens_per_frame: frame 0, the observation, sees only itself; the others see all."""
    tokens = frames * tokens_per_frame
    mask = torch.ones(tokens, tokens, dtype=torch.bool)
    mask[:tokens_per_frame, tokens_per_frame:] = False
    return mask


def copied_video_mask(frames: int, tokens_per_frame: int, horizon: int) -> Tensor:
    """[2V + H, 2V + H] over [noisy video, clean video, actions], for training to imagine first and then act.

    Each copy sees only itself, as in :func:`video_mask`; actions see each other and the clean copy.
    """
    video = frames * tokens_per_frame
    mask = torch.zeros(2 * video + horizon, 2 * video + horizon, dtype=torch.bool)
    mask[:video, :video] = mask[video : 2 * video, video : 2 * video] = video_mask(frames, tokens_per_frame)
    mask[2 * video :, video:] = True
    return mask


def mixture_mask(frames: int, tokens_per_frame: int, horizon: int, *, action_sees_future: bool) -> Tensor:
    """[V + H, V + H] over [video tokens, action tokens].

    Video never sees actions. Actions see each other and the video: frame 0 alone in Fast-WAM, so that the future can
    be dropped at inference, or all frames in the joint and imagine-then-execute variants.
    """
    video = frames * tokens_per_frame
    mask = torch.zeros(video + horizon, video + horizon, dtype=torch.bool)
    mask[:video, :video] = video_mask(frames, tokens_per_frame)
    mask[video:, video:] = True
    mask[video:, : video if action_sees_future else tokens_per_frame] = True
    return mask
