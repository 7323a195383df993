"""Official checkpoints: the layout of their keys, safe loading, and a full list of what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastwam_policy.common.files import refuse_pointer


class CheckpointError(ValueError):
    """Weights that cannot be used; the text names the file and everything that is wrong."""


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file or an official `.pt` into {parameter name of FastWam: tensor}.

    Raises:
        CheckpointError: as :func:`read_tensors`, or not a Fast-WAM checkpoint.
    """
    payload = read_tensors(path)
    return payload if path.suffix == ".safetensors" else from_official(payload, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file that holds only tensors by name.

    Raises:
        CheckpointError: as :func:`read_tensors`, or it holds something else.
    """
    payload = read_tensors(path)
    if not isinstance(payload, Mapping) or not all(isinstance(value, Tensor) for value in payload.values()):
        raise CheckpointError(f"{path}: expected tensors by name, found {type(payload).__name__} of other things")
    return dict(payload)


def read_tensors(path: Path) -> Any:
    """Content of a weight file, mapped from disk.

    A pickle is read with ``weights_only=True``: it can hold tensors and plain containers, never code.

    Raises:
        CheckpointError: missing, truncated, not a weight file, or a pickle with anything but tensors in it.
        ConfigError: a pointer of git-lfs.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file")
    refuse_pointer(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: it holds Python objects, which could run code when loaded. Save it again with tensors "
            f"only, or as .safetensors ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, SafetensorError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or not a weight file: {str(error).splitlines()[0]}") from error


def from_official(payload: Any, path: Path) -> dict[str, Tensor]:
    """Parameters of :class:`FastWam` from the official layout ``{"mot": ..., "proprio_encoder": ...}``."""
    if not isinstance(payload, Mapping) or not isinstance(payload.get("mot"), Mapping):
        keys = sorted(map(str, payload))[:8] if isinstance(payload, Mapping) else type(payload).__name__
        raise CheckpointError(f"{path}: not a Fast-WAM checkpoint: expected the key 'mot', found {keys}")
    tensors = {name.removeprefix("mixtures."): value for name, value in payload["mot"].items()}
    for name, value in (payload.get("proprio_encoder") or {}).items():
        tensors[f"proprio_encoder.{name}"] = value
    return tensors


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill every parameter of `model`, in the type of `tensors`.

    Raises:
        CheckpointError: lists every missing, unexpected and misshapen parameter.
    """
    expected = model.state_dict()
    problems = [f"missing: {name} {list(expected[name].shape)}" for name in expected if name not in tensors]
    problems += [f"unexpected: {name} {list(tensors[name].shape)}" for name in tensors if name not in expected]
    problems += [
        f"shape: {name} is {list(tensors[name].shape)}, the configuration needs {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(f"{source}: {len(problems)} parameters do not fit:\n  " + "\n  ".join(problems))
    model.load_state_dict(tensors, strict=True, assign=True)
