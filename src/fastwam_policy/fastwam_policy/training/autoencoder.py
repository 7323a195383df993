"""`fastwam train-autoencoder`: a small autoencoder for images, of the official class, from a dataset's own images."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from fastwam_policy.common.files import naming_a_full_disk
from fastwam_policy.common.progress import counted
from fastwam_policy.common.settings import changes
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.model.vae import OFFICIAL_CONFIG, ImageAutoencoder
from fastwam_policy.policies.fastwam.canvas import Layout
from fastwam_policy.training.datasets import spread
from fastwam_policy.training.precision import resolved
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BATCH, _CROP = 32, 96  # random crops of so many pixels: cheaper than whole images, and no two are the same
_RATE = 2e-3  # learning rate at its highest
_WARM_UP = 50  # steps
_EDGES = 1.0  # weight of the difference between neighbouring pixels: edges are what a robot aims at
_SQUARES = 4.0  # weight of the squared difference: small things that look unlike the rest
_COLOUR = 30.0  # weight of the squared difference of colours alone: without it, small things turn grey
_KL = 1e-5  # weight of the divergence from a normal distribution; the L1 loss of pixels in -1..1 has weight 1
_CHECKPOINT_EVERY = 100  # steps
_HELD_OUT = 64  # images, about
_SHOWN = 6  # of them in the picture
_CLIP = 1.0  # norm of the gradient


@dataclass(frozen=True)
class AutoencoderSettings:
    """How it is trained.

    Attributes:
        steps: batches of 32 crops.
        width: channels of the first level; 160 in the official one.
        images: how many are kept in memory, spread over all episodes.
        seed: of the weights and batches.
    """

    steps: int = 3000
    width: int = 16
    images: int = 6000
    seed: int = 0


def train_autoencoder(readers: Sequence[Reader], layout: Layout, folder: Path, settings: AutoencoderSettings) -> float:
    """Train, write it to `folder` in diffusers' format; return the mean error of a pixel, 0..255, on images left out.

    Some of those are shown in FOLDER.png, each beside what is left of it: what a robot looks for must be there. Until
    it is finished, FOLDER.unfinished is what another call goes on from.

    Raises:
        ConfigError: the folder is in use, images cannot be read, or it was begun with other ones or other settings.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; name a new folder")
    torch.manual_seed(settings.seed)
    pictures = sample_canvases(readers, layout, settings.images)
    about = asdict(settings) | {"pictures": hashlib.sha256(pictures.data).hexdigest()}
    canvases = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    left_out = torch.arange(len(canvases)) % max(2, len(canvases) // _HELD_OUT) == 0
    held_out, canvases = _pixels(canvases[left_out]), canvases[~left_out]
    config = json.loads(OFFICIAL_CONFIG.read_text()) | {
        "base_dim": settings.width, "decoder_base_dim": settings.width, "num_res_blocks": 1,
        "temperal_downsample": [False, False, False], "scale_factor_temporal": 1,
    }  # fmt: skip
    model = ImageAutoencoder(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    mixed = resolved("auto") == "bf16"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    first = _resumed(unfinished, about, parts)
    with counted() as progress:
        task = progress.add_task("steps", total=settings.steps, completed=first)
        for step in range(first, settings.steps):
            torch.manual_seed(settings.seed * settings.steps + step)
            images = _pixels(_crops(canvases))
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                mean, log_variance = model.encode(images)
                rebuilt = model.decode(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
            difference = rebuilt.float() - images
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).float().mean()
            (_unlikeness(difference) + _KL * divergence).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            progress.update(task, advance=1, description=f"error {127.5 * difference.abs().mean():.2f} of 255")
            if (step + 1) % _CHECKPOINT_EVERY == 0:
                _keep(unfinished, step + 1, about, parts)
    model.eval().requires_grad_(False)
    latents = torch.cat([model.encode(part)[0] for part in held_out.split(_BATCH)])
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    rebuilt = torch.cat([model.decode(part) for part in latents.split(_BATCH)])
    some = torch.linspace(0, len(held_out) - 1, min(_SHOWN, len(held_out))).round().long()
    Image.fromarray(_side_by_side(held_out[some], rebuilt[some])).save(folder.with_name(f"{folder.name}.png"))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed here
    with naming_a_full_disk(folder.parent):
        model.save(partial, mean, std)
    partial.rename(folder)
    unfinished.unlink(missing_ok=True)
    return 127.5 * float((rebuilt - held_out).abs().mean())


def _keep(file: Path, step: int, about: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write what a restart needs, complete or not at all."""
    partial = file.with_name(f"{file.name}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    with naming_a_full_disk(file.parent):
        torch.save({"step": step, "about": about, **{name: part.state_dict() for name, part in parts.items()}}, partial)
    partial.replace(file)


def _resumed(file: Path, about: Mapping[str, Any], parts: Mapping[str, Any]) -> int:
    """Load what :func:`_keep` wrote, if it did; the first step that is left."""
    if not file.exists():
        return 0
    try:
        kept = torch.load(file, weights_only=True)
        changed = list(changes(kept["about"], about))
    except (OSError, RuntimeError, UnpicklingError, LookupError):
        raise ConfigError(f"{file}: damaged, or not of this command; delete it to begin again") from None
    if changed:
        raise ConfigError(
            f"{file} was begun otherwise:\n  " + "\n  ".join(changed) + "\nRestore it to continue, or delete the file"
        )
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return int(kept["step"])


def sample_canvases(readers: Sequence[Reader], layout: Layout, count: int) -> NDArray[np.uint8]:
    """`count` canvases [N, H, W, 3], or all that there are, evenly from all frames."""
    found = []
    for reader, episode, frames in track(spread(readers, count), description="images"):
        images = {tile.camera: reader.images(episode, tile.camera, frames) for tile in layout.tiles}
        found += [layout.compose(dict(zip(images, views, strict=True))) for views in zip(*images.values(), strict=True)]
    return np.stack(found)


def _unlikeness(difference: Tensor) -> Tensor:
    """Of pictures from what they should be, by their difference [N, 3, H, W]."""
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    colour = difference - difference.mean(dim=1, keepdim=True)
    squares = _SQUARES * difference.square().mean() + _COLOUR * colour.square().mean()
    return difference.abs().mean() + _EDGES * edges + squares


def _crops(canvases: Tensor) -> Tensor:
    height, width = canvases.shape[-2:]
    size = min(_CROP, height, width)
    places = zip(
        torch.randint(len(canvases), (_BATCH,)).tolist(),
        torch.randint(height - size + 1, (_BATCH,)).tolist(),
        torch.randint(width - size + 1, (_BATCH,)).tolist(),
        strict=True,
    )
    return torch.stack([canvases[k, :, y : y + size, x : x + size] for k, y, x in places])


def _pixels(canvases: Tensor) -> Tensor:
    """uint8 -> -1..1."""
    return canvases.float() * (2 / 255) - 1


def _side_by_side(pictures: Tensor, rebuilt: Tensor) -> NDArray[np.uint8]:
    """Both [N, 3, H, W] -> [N H, 2 W, 3], one below the other."""
    rows = torch.cat([pictures, rebuilt], dim=3).permute(0, 2, 3, 1).flatten(0, 1)
    return ((rows + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine."""
    return min((step + 1) / _WARM_UP, 0.5 * (1 + math.cos(math.pi * step / steps)))
