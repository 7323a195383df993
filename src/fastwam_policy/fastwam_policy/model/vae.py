"""Images and videos to latents and back, with diffusers' AutoencoderKLWan and the official Wan2.2 weights.

Latents are normalised a channel: (mean of the posterior - latents_mean) / latents_std.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanRMS_norm, patchify, unpatchify
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_tensors

PIXEL_MULTIPLE = 32  # a video token is 2 x 2 latent cells of 16 x 16 pixels
OFFICIAL_CONFIG = Path(__file__).with_name("wan22_vae.json")

_Module = TypeVar("_Module", bound=nn.Module)

# Official parameter names to those of diffusers, applied in order.
_RENAMES = (
    (r"^encoder\.downsamples\.(\d+)\.downsamples\.", r"encoder.down_blocks.\1.resnets."),
    (r"^decoder\.upsamples\.(\d+)\.upsamples\.", r"decoder.up_blocks.\1.resnets."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"\.(down_blocks)\.(\d+)\.resnets\.\d+\.(resample|time_conv)", r".\1.\2.downsampler.\3"),
    (r"\.(up_blocks)\.(\d+)\.resnets\.\d+\.(resample|time_conv)", r".\1.\2.upsampler.\3"),
)


def load_official_vae(path: Path) -> AutoencoderKLWan:
    """Load `Wan2.2_VAE.pth`, or one of its layout with other widths, into diffusers' model.

    Raises:
        CheckpointError: not readable, or lists every parameter that does not fit.
    """
    tensors = load_tensors(path)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    config = json.loads(OFFICIAL_CONFIG.read_text())
    for key, name in (("base_dim", "encoder.conv_in.weight"), ("decoder_base_dim", "decoder.norm_out.gamma")):
        if name not in renamed:
            raise CheckpointError(f"{path}: not a Wan2.2 autoencoder: {name} is missing")
        config[key] = renamed[name].shape[0]
    with torch.device("meta"):
        vae = AutoencoderKLWan(**config)
    load_into(vae, renamed, str(path))
    return vae


def load_vae(folder: Path) -> AutoencoderKLWan:
    """From a folder in diffusers' format (config.json and safetensors).

    Raises:
        CheckpointError: the folder cannot be read.
    """
    try:
        return AutoencoderKLWan.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: not an autoencoder in diffusers' format: {error}") from None


def sizes_unlike_official(folder: Path) -> list[str]:
    """How an autoencoder in diffusers' format differs from Wan2.2's; empty where it has its sizes."""
    official = json.loads(OFFICIAL_CONFIG.read_text())
    own = json.loads((folder / "config.json").read_text())
    return [f"{name} {own.get(name)}, not {value}" for name, value in official.items() if own.get(name) != value]


class _Normalised(nn.Module):
    """Holds the constants of the latents' normalisation.

    The factor is divided in float32 and rounded afterwards: in bfloat16 a reciprocal of what is rounded is another one.
    """

    latents_mean: Tensor
    latents_factor: Tensor

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        self.register_buffer("latents_mean", mean, persistent=False)
        self.register_buffer("latents_factor", 1 / std, persistent=False)

    def normalise(self, mean: Tensor) -> Tensor:
        return (mean - self.latents_mean.to(mean)) * self.latents_factor.to(mean)

    def restore(self, latents: Tensor) -> Tensor:
        return latents / self.latents_factor.to(latents) + self.latents_mean.to(latents)


class _ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels in the type of its input, as the authors' code computes it.

    diffusers' widens bfloat16 to float32. Only float16, which the authors do not use, is widened here: it has no
    number as small as the least norm that is divided by.
    """

    def __init__(self, norm: WanRMS_norm) -> None:
        super().__init__()
        self.scale: float = norm.scale
        self.gamma = norm.gamma

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...]."""
        wide = x.float() if x.dtype == torch.float16 else x
        return F.normalize(wide, dim=1).to(x.dtype) * self.scale * self.gamma


def _with_authors_norms(module: _Module) -> _Module:
    """`module` with diffusers' norms replaced, in place; parameters keep their names."""
    for name, child in module.named_children():
        if isinstance(child, WanRMS_norm):
            setattr(module, name, _ChannelNorm(child))
        else:
            _with_authors_norms(child)
    return module


class VideoAutoencoder(_Normalised):
    """The whole autoencoder, for training and for looking at imagined videos.

    Each latent frame after the first stands for `frames_per_latent` video frames: 4 in the official autoencoder. With
    1 (an autoencoder for images) every frame is encoded by itself.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__(vae)
        self.vae = _with_authors_norms(vae)
        self.frames_per_latent: int = vae.config.scale_factor_temporal

    def encode(self, video: Tensor) -> Tensor:
        """Video [B, 3, 1 + kn, H, W] in -1..1 -> latents [B, C, 1 + n, H/16, W/16]; each clip by itself."""
        clips = video if self.frames_per_latent > 1 else video.transpose(1, 2).flatten(0, 1)[:, :, None]
        latents = torch.cat([self.normalise(self.vae.encode(clip[None]).latent_dist.mode()) for clip in clips])
        return latents if self.frames_per_latent > 1 else _as_clips(latents, len(video))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + n, h, w] -> video [B, 3, 1 + kn, 16h, 16w] in -1..1."""
        clips = latents if self.frames_per_latent > 1 else latents.transpose(1, 2).flatten(0, 1)[:, :, None]
        video = self.vae.decode(self.restore(clips)).sample.clamp(-1, 1)
        return video if self.frames_per_latent > 1 else _as_clips(video, len(latents))


def _as_clips(frames: Tensor, count: int) -> Tensor:
    """Single frames [count * f, C, 1, H, W] -> clips [count, C, f, H, W]."""
    return frames.squeeze(2).unflatten(0, (count, -1)).transpose(1, 2)


class ImageEncoder(_Normalised):
    """The encoder for single images, in two dimensions.

    A single frame sees only zeros before it, so that each causal kernel of three taps in time reduces to its last tap:
    the same result for a third of the arithmetic. The modules are copies that keep those taps only, with the channels
    last in memory, where both the convolutions and the norms over channels are faster.
    """

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__(vae)
        self._patch_size: int = vae.config.patch_size
        # Copied without its 3-D weights, which would double the memory for a moment.
        shared = {id(p): p for p in (*vae.encoder.parameters(), *vae.quant_conv.parameters())}
        self.encoder = _two_dimensional(_with_authors_norms(copy.deepcopy(vae.encoder, dict(shared))))
        self.quant_conv = _two_dimensional(copy.deepcopy(vae.quant_conv, dict(shared)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)

    @classmethod
    def load(cls, folder: Path) -> ImageEncoder:
        """From a folder in diffusers' format; raises CheckpointError."""
        return cls(load_vae(folder))

    def forward(self, image: Tensor) -> Tensor:
        """Image [B, 3, H, W] in -1..1 -> latents [B, C, 1, H/16, W/16].

        Raises:
            ValueError: height or width is not a multiple of 32.
        """
        if image.shape[-2] % PIXEL_MULTIPLE or image.shape[-1] % PIXEL_MULTIPLE:
            raise ValueError(f"image height and width must be multiples of {PIXEL_MULTIPLE}, got {list(image.shape)}")
        moments = self.quant_conv(self.encoder(patchify(image[:, :, None], self._patch_size)))
        return self.normalise(moments.chunk(2, dim=1)[0])


class ImageAutoencoder(nn.Module):
    """Encoder and decoder for single images in two dimensions, to train an autoencoder of the official class.

    :meth:`save` writes it as an AutoencoderKLWan whose kernels are zero but for their last tap in time.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = dict(config)
        vae = AutoencoderKLWan(**config)
        self._patch_size: int = vae.config.patch_size
        self.encoder, self.quant_conv = _two_dimensional(vae.encoder), _two_dimensional(vae.quant_conv)
        self.decoder, self.post_quant_conv = _two_dimensional(vae.decoder), _two_dimensional(vae.post_quant_conv)
        self.requires_grad_(True)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image [B, 3, H, W] in -1..1 -> mean and log variance of the latents, not normalised, [B, C, 1, h, w]."""
        mean, log_variance = self.quant_conv(self.encoder(patchify(image[:, :, None], self._patch_size))).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1, h, w] -> image [B, 3, H, W]."""
        decoded = self.decoder(self.post_quant_conv(latents), first_chunk=True)
        return unpatchify(decoded, self._patch_size).squeeze(2)

    def save(self, folder: Path, mean: Tensor, std: Tensor) -> None:
        """Write it in diffusers' format; `mean` and `std` [C] normalise the latents."""
        vae = AutoencoderKLWan(**self._config | {"latents_mean": mean.tolist(), "latents_std": std.tolist()})
        tensors = vae.state_dict()
        for name, value in self.state_dict().items():
            if tensors[name].ndim == value.ndim + 1:
                tensors[name].zero_()
                tensors[name][:, :, -1] = value
            else:
                tensors[name].copy_(value)
        vae.half().save_pretrained(folder)  # loaded as float32


class _LastTap(nn.Conv2d):
    """A causal 3-D convolution as seen by a single frame."""

    def __init__(self, conv: WanCausalConv3d) -> None:
        width, _, height, _, _, _ = conv._padding  # noqa: SLF001  diffusers keeps its padding there
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size[1:], conv.stride[1:], (height, width), device="meta"
        )
        self.weight = nn.Parameter(conv.weight[:, :, -1].detach().clone(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor, cache: None = None) -> Tensor:
        """[B, C, 1, H, W] -> [B, C', 1, H', W']."""
        return F.conv2d(x.squeeze(2), self.weight, self.bias, self.stride, self.padding).unsqueeze(2)


def _two_dimensional(module: nn.Module) -> nn.Module:
    """`module` with every causal convolution replaced; those over time alone are never reached by a single frame."""
    if isinstance(module, WanCausalConv3d):
        return _LastTap(module)
    for name, child in module.named_children():
        setattr(module, name, nn.Identity() if name == "time_conv" else _two_dimensional(child))
    return module
