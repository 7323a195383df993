"""Images to latents with diffusers' AutoencoderKLWan, in the model's normalisation."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

SPATIAL_FACTOR = 16  # pixels a latent cell
PIXEL_MULTIPLE = 32  # a video token is 2 x 2 latent cells


class ImageEncoder(nn.Module):
    """The autoencoder's encoder; latents are (mean of the posterior - latents_mean) / latents_std of each channel."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae
        self.latents_mean: Tensor
        self.latents_std: Tensor
        for name in ("latents_mean", "latents_std"):
            self.register_buffer(name, torch.tensor(getattr(vae.config, name)).view(1, -1, 1, 1, 1), persistent=False)

    @classmethod
    def load(cls, folder: Path) -> ImageEncoder:
        """From a folder in diffusers' format (config.json and safetensors)."""
        return cls(AutoencoderKLWan.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False))

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in -1..1 -> latents [B, C, 1, H/16, W/16].

        Raises:
            ValueError: height or width is not a multiple of 32.
        """
        if image.shape[-2] % PIXEL_MULTIPLE or image.shape[-1] % PIXEL_MULTIPLE:
            raise ValueError(f"image height and width must be multiples of {PIXEL_MULTIPLE}, got {list(image.shape)}")
        mean = self.vae.encode(image[:, :, None]).latent_dist.mode()
        return (mean - self.latents_mean.to(mean)) * (1 / self.latents_std.to(mean))
