"""The future video that a bundle predicts for an observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastwam_policy.model.checkpoint import CheckpointError
from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.vae import VideoAutoencoder, load_vae
from fastwam_policy.model.variants import VARIANTS, imagine
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.canvas import to_model_input
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


class Imagination:
    """Denoises a video with the bundle's own steps, schedule and seed, and decodes it.

    The video is the same whether or not the variant's actions look at it, since it never looks at them.
    """

    def __init__(self, bundle: Bundle) -> None:
        """ConfigError: the bundle was trained without a video loss, or its autoencoder cannot be read."""
        config, model = bundle.config, bundle.model
        if VARIANTS[config.variant].lambda_video == 0:
            raise ConfigError(
                f"{bundle.folder}: the variant {config.variant} was trained without a video loss, so it has not "
                "learned to imagine anything. Start without imagine, or with a bundle of another variant"
            )
        try:
            autoencoder = VideoAutoencoder(load_vae(bundle.vae_folder))
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        self._bundle = bundle
        self._autoencoder = autoencoder.to(model.device, model.dtype).eval().requires_grad_(False)
        self._schedule = make_schedule(config.denoise_steps, config.video_sigma_shift, model.dtype, model.device)

    @torch.inference_mode()
    def imagine(self, canvases: Sequence[Pixels], joints: Mapping[str, float], instruction: str) -> NDArray[np.uint8]:
        """Video, RGB [F, H, W, 3], of which frame 0 is the observation as the autoencoder gives it back.

        Args:
            canvases: images in the bundle's layout [H, W, 3] of each frame that the model is given; last the observed.
            joints: position by joint name, rad and mm.
            instruction: task text without the prompt template.

        Raises:
            ConfigError: the bundle does not know the instruction.
        """
        config, model = self._bundle.config, self._bundle.model
        text, mask = self._bundle.embedding(instruction)
        context = model.context(
            text[None].to(model.device, model.dtype), mask[None].to(model.device), self._bundle.proprio(joints)
        )
        pictures = torch.cat([to_model_input(canvas, model.dtype, model.device) for canvas in canvases])
        given = self._autoencoder.encode(pictures[:, :, None]).transpose(0, 2)
        earlier = len(config.model.history)
        shape = (1, given.shape[1], earlier + config.latent_frames, *given.shape[3:])
        noise = initial_noise(shape, config.seed, model.dtype, model.device)
        return self._pixels(imagine(model, given, noise, self._schedule, context)[:, :, earlier:])

    @torch.inference_mode()
    def reconstruct(self, canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A video of canvases, RGB [F, H, W, 3], as the autoencoder gives it back: the best that can be imagined."""
        model = self._bundle.model
        frames = [to_model_input(canvas, model.dtype, model.device) for canvas in canvases]
        return self._pixels(self._autoencoder.encode(torch.stack(frames, dim=2)))

    def _pixels(self, latents: Tensor) -> NDArray[np.uint8]:
        video = self._autoencoder.decode(latents)
        pixels = (video[0].float() + 1) * 127.5
        return pixels.round().to("cpu", torch.uint8).permute(1, 2, 3, 0).numpy()
