"""Fewer denoise steps: the action expert learns to take those of its bundle, the teacher, in one or two.

The few steps end where every k-th of the teacher's does, and each learns the mean velocity of the teacher's path over
its part: with a loss of 0 both give the same actions from the same noise. In one step that is the distillation of
arXiv 2101.02388; in several the progressive one of arXiv 2202.00512, in a single stage. Consistency models
(arXiv 2303.01469) would need noise between the steps, and shortcut models (arXiv 2410.12557) an input for the size of a
step: another sampler, another network. Here both stay what they are, and so do the video expert and its cost.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.training_loss import Batch, Losses
from fastwam_policy.model.variants import InferenceMode
from fastwam_policy.policies.fastwam.bundle import Bundle, BundleConfig
from fastwam_policy.training.config import TrainingConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate


def distilling(bundle: Path, steps: int, training: TrainingConfig, given: Sequence[str] = ()) -> TrainingConfig:
    """The training that makes of `bundle` one that denoises in `steps`, with the data and the pace of `training`.

    `given` are entries KEY=VALUE that somebody has asked for.

    Raises:
        ConfigError: there is no such bundle, it cannot be taken in so many steps, or `given` has what is decided here.
    """
    teacher = Bundle.read_config(bundle)
    about = {
        "name": f"{teacher.name}_{steps}step",
        "description": f"{teacher.name}, whose {teacher.denoise_steps} denoise steps are taken in {steps}.",
        "origin": "random" if teacher.origin == "random" else "trained",
        "weights": "model.safetensors",
        "denoise_steps": steps,
        "max_prefix": 0,
        "distilled_from": {
            "name": teacher.name,
            "sha256": teacher.identity(bundle).sha256,
            "denoise_steps": teacher.denoise_steps,
        },
    }
    own = {
        "policy": validate(teacher.model_dump() | about, BundleConfig, str(bundle)),
        "trained": "action",
        "frozen_as": "float32",  # the video expert is the teacher's
        "start_from": bundle,
        "start_share": 0.0,  # between a teacher of many steps and a student of few lies neither
        "keep_statistics": True,
        "text_embeddings": None,
        "autoencoder": bundle / "vae",
        "proprio_noise": 0.0,  # what the teacher does is learned where it is asked: at the joints as they are
        "proprio_dropout": 0.0,
    }
    if changed := [entry for entry in given if entry.partition("=")[0].partition(".")[0] in own]:
        raise ConfigError(f"--set {changed[0]}: a distillation has its own {', '.join(own)}")
    return validate(training.model_dump() | own, TrainingConfig, str(bundle))


class Distillation(nn.Module):
    """The loss of a model that starts as its teacher and denoises in fewer steps.

    Args:
        model: with the teacher's weights; of which the action expert alone is trained.
        steps: of the result.
        teachers_steps: a multiple of `steps`.
        shift: of the actions' noise levels, for both.
    """

    def __init__(self, model: FastWam, steps: int, teachers_steps: int, shift: float) -> None:
        super().__init__()
        self.model = model
        with torch.device("meta"):
            teacher = FastWam(model.config)
        teacher.video, teacher.proprio_encoder = model.video, model.proprio_encoder
        teacher.action = copy.deepcopy(model.action).requires_grad_(False)
        self._teacher = (teacher,)  # in a tuple it is no part of this module: not trained, averaged or written
        self._steps, self._teachers_steps, self._shift = steps, teachers_steps, shift

    def forward(self, batch: Batch, mode: InferenceMode = "first_frame") -> Losses:
        """Mean square error of the velocities; the recorded actions are not looked at."""
        device, text, (teacher,) = batch.latents.device, (batch.text, batch.text_mask, batch.proprio), self._teacher
        teacher.action.to(device)
        long = make_schedule(self._teachers_steps, self._shift, device=device)
        short = make_schedule(self._steps, self._shift, device=device)
        with torch.no_grad():
            context = teacher.context(*text)
            seen = teacher.prefill(batch.latents[:, :, : teacher.config.given_frames], context)
            path = [torch.randn_like(batch.actions)]
            for t, delta in zip(long.timesteps, long.deltas, strict=True):
                path.append(path[-1] + delta * teacher.action_velocity(path[-1], t, seen, context))
        ends = path[:: self._teachers_steps // self._steps]
        context = self.model.context(*text)
        errors = [
            self.model.action_velocity(begin, t, seen, context) - (end - begin) / delta
            for (begin, end), t, delta in zip(itertools.pairwise(ends), short.timesteps, short.deltas, strict=True)
        ]
        loss = torch.stack(errors).float().square().mean()
        return Losses(loss, torch.zeros_like(loss), loss)
