"""Where the weights of a training start: at random, from a bundle, or from the official Wan2.2 video model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_tensors, load_weights
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.policies.fastwam.bundle import POLICY_FILE, Bundle
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_OWN = ("action_encoder.", "head.")  # of the action expert: without a counterpart in the video expert


def initialise(model: FastWam, source: Path | None) -> None:
    """Fill `model` in place.

    Args:
        model: freshly made.
        source: a bundle; or Wan2.2 weights, one `.safetensors` or `.pth` file or a folder of `.safetensors` parts, for
            the video expert, from which the action expert is interpolated; None: leave it as it is.

    Raises:
        ConfigError: the weights cannot be read or do not fit.
    """
    if source is None:
        return
    check_start(source)
    try:
        if (source / POLICY_FILE).is_file():
            load_into(model, load_weights(source / Bundle.read_config(source).weights), str(source))
            return
        tensors: dict[str, Tensor] = {}
        for path in sorted(source.glob("*.safetensors")) if source.is_dir() else [source]:
            tensors |= load_tensors(path)
        load_into(model.video, tensors, str(source))
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    model.action.load_state_dict(interpolated(tensors, model.action.state_dict()), strict=False)


def is_start(source: Path) -> bool:
    """Whether there are weights: a bundle, a file, or a folder of `.safetensors` parts."""
    return source.is_file() or (source / POLICY_FILE).is_file() or any(source.glob("*.safetensors"))


def check_start(source: Path | None) -> None:
    """ConfigError where a training cannot begin from there."""
    if source is not None and not is_start(source):
        raise ConfigError(f"start_from: {source}: neither a bundle, nor weights in a file or a folder of .safetensors")


def interpolated(video: Mapping[str, Tensor], action: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The video expert's tensors shrunk to the sizes of the action expert's of the same names.

    Each dimension in turn is interpolated linearly with its ends aligned; tensors of two or more dimensions whose last
    one changed are scaled by sqrt(old / new) of it. Encoder and head of the actions have no counterpart.
    """
    return {
        name: _resized(video[name].float(), target.shape).to(target.dtype)
        for name, target in action.items()
        if not name.startswith(_OWN)
    }


def _resized(tensor: Tensor, shape: torch.Size) -> Tensor:
    last = tensor.shape[-1]
    for dim, size in enumerate(shape):
        if tensor.shape[dim] != size:
            rows = tensor.movedim(dim, -1)
            flat = F.interpolate(rows.reshape(1, -1, rows.shape[-1]), size, mode="linear", align_corners=True)
            tensor = flat.reshape(*rows.shape[:-1], size).movedim(-1, dim)
    return tensor * (last / shape[-1]) ** 0.5 if len(shape) > 1 and shape[-1] != last else tensor
