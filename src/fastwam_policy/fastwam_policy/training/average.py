"""Averaged weights with a complete checkpoint, also where FSDP splits each weight over the processes."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


class Average(EMAModel):
    """diffusers' exponential moving average; accelerate writes its state from the first process alone."""

    def state_dict(self) -> dict[str, Any]:
        """Whole weights, in the first process; called in all of them."""
        return super().state_dict() | {"shadow_params": [_whole(weight) for weight in self.shadow_params]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Each process takes its share of whole weights."""
        shares = [_like(own, whole) for own, whole in zip(self.shadow_params, state_dict["shadow_params"], strict=True)]
        super().load_state_dict(state_dict | {"shadow_params": shares})


def _whole(weight: Tensor) -> Tensor:
    if not isinstance(weight, DTensor):
        return weight
    whole = weight.full_tensor()
    return whole.cpu() if PartialState().is_main_process else whole.new_empty(0)


def _like(own: Tensor, whole: Tensor) -> Tensor:
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements)
