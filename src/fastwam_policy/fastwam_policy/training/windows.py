"""Training samples: for each frame of each episode, the video and the actions from there on."""

from __future__ import annotations

import hashlib
import math
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastwam_policy.common.files import naming_a_full_disk, require_space
from fastwam_policy.common.parallel import THIS_PROCESS, Where, blocks, map_tasks
from fastwam_policy.common.progress import counted
from fastwam_policy.data.lerobot_reader import Reader, RecordedEpisode
from fastwam_policy.model.checkpoint import CheckpointError
from fastwam_policy.model.training_loss import Batch
from fastwam_policy.model.vae import AutoencoderKLWan, ImageEncoder, VideoAutoencoder, load_vae
from fastwam_policy.policies.base import Pixels
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.training.augmentation import augmented
from fastwam_policy.training.latent_files import are_current, forget_contents, latents_file, note_contents
from fastwam_policy.training.statistics import origins, windows
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_ENCODED_AT_ONCE = 16  # images
_TOGETHER = 8  # episodes that a process encodes before it gets others
_OTHER_FILES = 256  # that a training has open, at most
_CLOSING = {"mm": 5.0, "share": 0.5}  # that a gripper's target lies below its largest when it closes, or is closed


@dataclass(frozen=True)
class Sample:
    """One episode in memory; its latents stay on disk.

    Attributes:
        state: [T, D] in the policy's units.
        action: [T, D] in the policy's units, as the model gives them.
        latents: [N, f, C, h, w] of the video from each frame on that a window begins at, or [N, 1, C, h, w] where
            frames are encoded alone.
        tasks: instruction of each row, [T].
        approach: frames before a gripper first closes; 0 where one begins closed, since it may hold something.
        intervention: frames in which somebody had taken over, [T].
    """

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    latents: NDArray[np.float16]
    tasks: list[str]
    approach: int
    intervention: NDArray[np.bool_]


def cache_latents(
    readers: Sequence[Reader], policy: BundleConfig, autoencoder: Path, share: tuple[int, int] = (0, 1),
    every: int = 1, where: Where = THIS_PROCESS, version: int = 0,
) -> None:  # fmt: skip
    """Encode what is not encoded yet, at `where`; of several trainers each has its `share` done: (which, of how many).

    With `every` only every so many frames. Version 0 is the pictures as they are, others are augmented ones.

    Files lie in the dataset, in `latents/` and a folder named after the autoencoder and the layout. Each appears
    complete or not at all, so an interrupted run continues where it was.

    Raises:
        ConfigError: the autoencoder is not what the policy says, or images cannot be read.
    """
    if not (autoencoder / "config.json").exists():
        raise ConfigError(f"autoencoder: there is none in {autoencoder}; `fastwam train-autoencoder` makes one")
    _autoencoder(autoencoder, policy)
    name = _cache_name(policy, autoencoder, every, version)
    wanted = [(reader, episode) for reader in readers for episode in reader.episodes][share[0] :: share[1]]
    missing = [
        (reader, episode, path)
        for reader, episode in wanted
        if not are_current(path := latents_file(reader, episode, name), reader, episode)
    ]
    pieces = [(part, policy, autoencoder, every, version) for part in blocks(missing, where, _TOGETHER)]
    with counted(shown=bool(missing)) as progress:
        bar = progress.add_task("latents", total=len(missing))
        for _ in map_tasks(_encode, pieces, where):
            progress.advance(bar)


def _autoencoder(folder: Path, policy: BundleConfig) -> AutoencoderKLWan:
    try:
        vae = load_vae(folder)
    except CheckpointError as error:
        raise ConfigError(f"autoencoder: {error}") from None
    if vae.config.scale_factor_temporal != policy.frames_per_latent:
        raise ConfigError(
            f"{folder}: a latent frame stands for {vae.config.scale_factor_temporal} video frames, "
            f"policy.frames_per_latent says {policy.frames_per_latent}"
        )
    return vae


def _encode(
    missing: Sequence[tuple[Reader, RecordedEpisode, Path]], policy: BundleConfig, autoencoder: Path, every: int,
    version: int,
) -> Iterator[Path]:  # fmt: skip
    """Write the latents of these episodes, and yield each file."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = _autoencoder(autoencoder, policy)
    image, video = ImageEncoder(vae).to(device), VideoAutoencoder(vae).to(device)

    def encode(canvases: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, f, C, h, w]."""
        if policy.frames_per_latent == 1:
            return torch.cat([image(part) for part in canvases.split(_ENCODED_AT_ONCE)]).transpose(1, 2)
        places = _video_places(len(canvases), policy)[::every]
        return torch.cat([video.encode(canvases[row].transpose(0, 1)[None]) for row in places]).transpose(1, 2)

    with ThreadPoolExecutor(1) as pool:
        # Images of the next episode are decoded while those of one are encoded.
        step = every if policy.frames_per_latent == 1 else 1
        ahead = pool.submit(_canvases, *missing[0][:2], policy, step, version) if missing else None
        for place, (reader, episode, path) in enumerate(missing):
            assert ahead is not None
            canvases = ahead.result()
            if place + 1 < len(missing):
                ahead = pool.submit(_canvases, *missing[place + 1][:2], policy, step, version)
            pixels = torch.from_numpy(canvases).to(device).permute(0, 3, 1, 2).float() * (2 / 255) - 1
            with torch.inference_mode():
                latents = encode(pixels).to("cpu", torch.float16).numpy()
            _make_room(path.parent, latents.nbytes * (len(missing) - place))
            forget_contents(path)
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")  # another training may be at the same episode
            try:
                with naming_a_full_disk(path.parent), unfinished.open("wb") as file:
                    np.save(file, latents)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
            note_contents(path, reader, episode)
            yield path


def load_samples(
    readers: Sequence[Reader], policy: BundleConfig, autoencoder: Path, every: int = 1, version: int = 0
) -> list[Sample]:
    """All episodes of all datasets, with numbers in the policy's order; their latents must be there.

    Raises:
        ConfigError: an episode cannot be read, or has latents of another length.
    """
    name, closes = _cache_name(policy, autoencoder, every, version), _closes(policy)
    # Each episode's latents stay an open file.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (version + 1) * sum(len(reader.episodes) for reader in readers) + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
    samples = []
    for reader in readers:
        state_order = [reader.body.state_names.index(name) for name in policy.state.names]
        action_order = [reader.body.action_names.index(name) for name in policy.action.names]
        for episode in reader.episodes:
            state, action = reader.vectors(episode)
            action = policy.action.untoggle(action[:, action_order])
            path = latents_file(reader, episode, name)
            latents = np.load(path, mmap_mode="r")
            if len(latents) != math.ceil(episode.length / every):
                raise ConfigError(f"{path}: of another recording ({len(latents)} frames); delete its folder")
            closing = (action.max(axis=0) - action > closes).any(axis=1)
            approach = int(closing.argmax()) if closing.any() else 0
            tasks, intervention = reader.instructions(episode), reader.interventions(episode)
            samples.append(Sample(state[:, state_order], action, latents, tasks, approach, intervention))
    return samples


def encoded(pictures: Mapping[str, Pixels], policy: BundleConfig, autoencoder: Path) -> NDArray[np.float32]:
    """Latents [C, h, w] of a picture of each camera, RGB [H, W, 3]."""
    canvas = torch.from_numpy(policy.layout.compose(pictures)).permute(2, 0, 1)[None].float() * (2 / 255) - 1
    with torch.inference_mode():
        return ImageEncoder(_autoencoder(autoencoder, policy))(canvas)[0, :, 0].numpy()


def _closes(policy: BundleConfig) -> NDArray[np.float32]:
    """By how much less than its largest each action, [D], is a gripper that closes; of others no difference says so."""
    own = policy.action
    kinds = ["share" if name in own.toggled else unit for name, unit in zip(own.names, own.units, strict=True)]
    return np.array([_CLOSING.get(kind, np.inf) for kind in kinds], np.float32)


def _cache_name(policy: BundleConfig, autoencoder: Path, every: int, version: int) -> str:
    """Hash of everything that latents depend on."""
    stride = policy.video_stride if policy.frames_per_latent > 1 else 0
    about = [policy.layout.model_dump_json(), str(policy.video_frames), *([str(stride)] if stride else [])]
    digest = hashlib.sha256("".join(about).encode() + (f" every {every}" if every > 1 else "").encode())
    digest.update((autoencoder / "config.json").read_bytes())
    for weights in sorted(autoencoder.glob("*.safetensors")):
        digest.update(weights.read_bytes())
    if version:
        digest.update(f" version {version}".encode())
    return digest.hexdigest()[:12]


def _make_room(folder: Path, size: int) -> None:
    """Make the folder; ConfigError, RunError where it cannot be written or has not `size` bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: latents are kept in the dataset's folder, which cannot be written ({error.strerror}): make it "
            "writable, or train with a copy of it"
        ) from None
    require_space(folder, size, "the latents of the episodes that are left")


class _Pool:
    """Windows that are drawn from: their `numbers`, ascending, and which come before a gripper first closes."""

    def __init__(self, numbers: NDArray[np.int64], approach: NDArray[np.bool_]) -> None:
        self.numbers, self._early, self._rest = numbers, numbers[approach], numbers[~approach]

    def draw(self, random: np.random.Generator, count: int, approach_share: float) -> NDArray[np.int64]:
        if not approach_share or not len(self._early) or not len(self._rest):
            return self.numbers[random.integers(len(self.numbers), size=count)]
        early = random.choice(self._early, count)
        return np.where(random.random(count) < approach_share, early, random.choice(self._rest, count))


def _led_there(intervention: NDArray[np.bool_], span: int) -> NDArray[np.bool_]:
    """Which frames, [T], are up to `span` before somebody takes over."""
    led = np.zeros(len(intervention), bool)
    for begin in np.flatnonzero(np.diff(intervention.astype(np.int8), prepend=0) == 1):
        led[max(0, begin - span) : begin] = True
    return led & ~intervention


class Windows:
    """Samples at every frame, or `every` so many, normalised, as batches.

    Args:
        samples: episodes.
        policy: names, horizon and frames.
        state: normaliser of the joint state.
        action: normaliser of the actions.
        texts: prompt embedding [L, text_dim] and mask [L] of each instruction.
        left_out: s before each takeover whose frames are not among them.
        every: frames from one sample to the next; the pictures between are not looked at.
        seen: latents [C, h, w] in place of all others; None: each has its own.
    """

    def __init__(
        self, samples: Sequence[Sample], policy: BundleConfig, state: Normalizer, action: Normalizer,
        texts: dict[str, tuple[Tensor, Tensor]], *, left_out: float = 0.0, every: int = 1,
        seen: NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        self.samples, self.policy, self._every, self._seen = samples, policy, every, seen
        self._texts = texts
        self._relative = relative_dimensions(policy)
        self._state = [state.forward(sample.state) for sample in samples]
        self._action = [
            action.forward(windows(s.action, policy.horizon) - origins(s.state, self._relative)) for s in samples
        ]
        span = round(left_out * policy.fps)
        kept = [np.flatnonzero(~_led_there(sample.intervention, span)) for sample in samples]
        kept = [frames[frames % every == 0] for frames in kept]
        self.places = [(k, int(frame)) for k, frames in enumerate(kept) for frame in frames]
        approach = np.concatenate([frames < s.approach for s, frames in zip(samples, kept, strict=True)])
        taken_over = np.concatenate([s.intervention[frames] for s, frames in zip(samples, kept, strict=True)])
        self._all, self._corrected, self._others = (
            _Pool(np.flatnonzero(own), approach[own]) for own in (np.ones_like(approach), taken_over, ~taken_over)
        )

    def draw(
        self, random: np.random.Generator, count: int, approach_share: float, intervention_share: float = 0.0
    ) -> NDArray[np.int64]:
        """Numbers of `count` windows."""
        if not intervention_share or not len(self._corrected.numbers) or not len(self._others.numbers):
            return self._all.draw(random, count, approach_share)
        corrected, others = (pool.draw(random, count, approach_share) for pool in (self._corrected, self._others))
        return np.where(random.random(count) < intervention_share, corrected, others)

    def batch(self, numbers: Sequence[int] | NDArray[np.int64], device: torch.device) -> Batch:
        """The windows of those numbers."""
        policy, horizon = self.policy, self.policy.horizon
        rows = [self.places[number] for number in numbers]
        lengths = np.array([len(self.samples[k].state) for k, _ in rows])[:, None]
        begin = np.array([frame for _, frame in rows])[:, None]
        texts = [self._texts[self.samples[k].tasks[frame]] for k, frame in rows]
        return Batch(
            torch.from_numpy(np.stack([self._latents(k, frame) for k, frame in rows])).to(device).float(),
            torch.stack([text for text, _ in texts]).to(device),
            torch.stack([mask for _, mask in texts]).to(device),
            torch.from_numpy(np.stack([self._state[k][frame] for k, frame in rows])).to(device)
            if policy.model.proprio_dim is not None
            else None,
            torch.from_numpy(np.stack([self._action[k][frame] for k, frame in rows])).to(device),
            torch.from_numpy(begin + np.arange(horizon) >= lengths).to(device),
            torch.from_numpy(begin + policy.video_stride * np.arange(policy.video_frames) >= lengths).to(device),
        )

    def _latents(self, sample: int, frame: int) -> NDArray[np.floating]:
        """[C, f, h, w] of the frames that the model is given and the later ones; before the first frame, it again."""
        own, history = self.samples[sample], self.policy.model.history
        if self._seen is not None:
            return np.repeat(self._seen[:, None], len(history) + self.policy.latent_frames, axis=1)
        earlier = own.latents[[max(0, frame - steps) // self._every for steps in reversed(history)], 0]
        if self.policy.frames_per_latent == 1:
            later = own.latents[_video_places(len(own.state), self.policy, frame)[0] // self._every, 0]
        else:
            later = own.latents[frame // self._every]
        return np.moveaxis(np.concatenate([earlier, later]), 0, 1)


def relative_dimensions(policy: BundleConfig) -> NDArray[np.float32]:
    """1 for each action that is counted from the measured position, else 0, [D]."""
    return np.array([name in policy.action.relative for name in policy.action.names], np.float32)


def _video_places(length: int, policy: BundleConfig, frame: int | None = None) -> NDArray[np.int64]:
    """Frames of the video that begins at each frame, or at one, [N, video_frames]; the last one is repeated."""
    begin = np.arange(length) if frame is None else np.array([frame])
    return (begin[:, None] + policy.video_stride * np.arange(policy.video_frames)).clip(max=length - 1)


def _canvases(
    reader: Reader, episode: RecordedEpisode, policy: BundleConfig, step: int, version: int
) -> NDArray[np.uint8]:
    """Every so many, [N, H, W, 3]."""
    frames = range(0, episode.length, step)
    images = {tile.camera: reader.images(episode, tile.camera, frames) for tile in policy.layout.tiles}
    if version:
        random = np.random.default_rng((version, episode.index))
        images = {camera: augmented(pictures, random) for camera, pictures in images.items()}
    return np.stack(
        [policy.layout.compose(dict(zip(images, views, strict=True))) for views in zip(*images.values(), strict=True)]
    )
