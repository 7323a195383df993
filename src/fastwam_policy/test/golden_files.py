"""Fixtures made once with the authors' code and tiny random models: inputs and outputs of every stage."""

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def golden(name):
    """Arrays of one file by name."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def batch(array, dtype=torch.float32):
    """Tensor with a batch dimension of 1."""
    return torch.from_numpy(np.asarray(array))[None].to(dtype)
