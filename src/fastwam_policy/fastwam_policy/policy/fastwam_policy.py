"""A bundle as a policy: images and joints in physical units in, absolute joint targets out."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.vae import ImageEncoder
from fastwam_policy.policy.bundle import Bundle
from fastwam_policy.policy.images import to_model_input
from fastwam_policy.policy.policy import ActionChunk, Observation, Timing


class FastWamPolicy:
    """Runs a bundle on this machine. See :class:`fastwam_policy.policy.policy.Policy`."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        config, model = bundle.config, bundle.model
        self._schedule = make_schedule(config.denoise_steps, config.sigma_shift, model.dtype)
        self._noise = initial_noise(
            (1, config.horizon, config.model.action_dim), config.seed, model.dtype, model.device
        )
        self._encoder = ImageEncoder.load(bundle.vae_folder).to(model.device, model.dtype).eval().requires_grad_(False)
        self._prepared: str | None = None

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> FastWamPolicy:
        """Load a bundle; raises ConfigError where :meth:`Bundle.load` does."""
        return cls(Bundle.load(folder, device))

    def prepare(self, instruction: str) -> None:
        """Find the instruction's embedding and run once, so that the first real inference is as fast as the rest."""
        context, mask = self.bundle.embedding(instruction)
        model = self.bundle.model
        self._text = context[None].to(model.device, model.dtype)
        self._text_mask = mask[None].to(model.device)
        self._prepared = instruction
        tiles = self.bundle.config.layout.tiles
        images = {tile.camera: np.zeros((tile.height, tile.width, 3), np.uint8) for tile in tiles}
        self.infer(Observation(0, images, dict.fromkeys(self.bundle.config.state.names, 0.0), instruction))

    @torch.inference_mode()
    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk. Raises ValueError for an instruction that was not prepared."""
        if observation.instruction != self._prepared:
            raise ValueError(f"instruction not prepared: {observation.instruction!r}")
        config, model = self.bundle.config, self.bundle.model
        marks = [self._now()]
        canvas = to_model_input(config.layout.compose(observation.images), model.dtype, model.device)
        proprio = None
        if config.model.proprio_dim is not None:
            joints = np.array([observation.joints[name] for name in config.state.names])
            proprio = torch.from_numpy(self.bundle.state.forward(joints))[None].to(model.device, model.dtype)
        marks.append(self._now())
        latents = self._encoder(canvas)
        marks.append(self._now())
        context = model.context(self._text, self._text_mask, proprio)
        past = model.prefill(latents, context)
        marks.append(self._now())
        normalised = model.denoise(self._noise, self._schedule, past, context)[0].float().cpu().numpy()
        marks.append(self._now())
        actions = self.bundle.action.backward(normalised).astype(np.float64)
        timing = Timing(*(1e3 * np.diff(marks)))
        return ActionChunk(observation.stamp_ns, config.step_ns, list(config.action.names), actions, timing)

    def _now(self) -> float:
        """Seconds, after the device has finished what it was given."""
        if self.bundle.model.device.type == "cuda":
            torch.cuda.synchronize(self.bundle.model.device)
        return time.perf_counter()
