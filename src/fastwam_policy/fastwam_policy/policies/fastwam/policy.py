"""A bundle as a policy: images and joints in physical units in, absolute joint targets out."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastwam_policy.model.checkpoint import CheckpointError
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import TRAIN_TIMESTEPS, initial_noise, make_schedule
from fastwam_policy.model.realtime import soft_mask
from fastwam_policy.model.vae import ImageEncoder
from fastwam_policy.model.variants import VARIANTS, InferenceMode
from fastwam_policy.policies.base import ActionChunk, Frame, Observation, Pixels, PolicyInfo, Timing
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.canvas import to_model_input
from fastwam_policy.policies.fastwam.engine import Engine, EngineKind
from fastwam_policy.policies.fastwam.imagination import Imagination
from fastwam_policy.policies.fastwam.mean_pictures import read_mean_pictures
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TOKEN_PIXELS = 32
_LATENT_PIXELS = 16

Quantization = Literal["none", "int8", "fp8"]
Dtype = Literal["bundle", "float32", "bfloat16", "float16"]
Realtime = Literal["", "guidance", "prefix"]


@dataclass(frozen=True)
class Options:
    """How to run a bundle. The defaults change nothing; what each of the others costs in accuracy, check-engine says.

    Attributes:
        engine: `eager` or `compiled`.
        dtype: type of weights and activations; `bundle` leaves them as they are.
        quantize: weights of the blocks in `int8` or `fp8`, activations as they are (torchao).
        denoise_steps: 0 for the bundle's number.
        warm_start: this many of the first denoise steps are replaced by the previous chunk, noised again.
        mode: way to infer, for a variant that has several; empty for its first.
        realtime: how a chunk continues the running plan where the observation has one: by `guidance`, or by a `prefix`
            that the bundle was trained with (:mod:`fastwam_policy.model.realtime`); empty: by guidance where it can.
        seed: of the noise that every chunk is made from; None for the bundle's.
    """

    engine: EngineKind = "eager"
    dtype: Dtype = "bundle"
    quantize: Quantization = "none"
    denoise_steps: int = 0
    warm_start: int = 0
    mode: str = ""
    realtime: Realtime = ""
    seed: int | None = None

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The type to convert to, None for the bundle's own."""
        return None if self.dtype == "bundle" else getattr(torch, self.dtype)


class FastWamPolicy:
    """Runs a bundle on this machine. See :class:`fastwam_policy.policies.base.Policy`."""

    def __init__(self, bundle: Bundle, options: Options | None = None) -> None:
        self.bundle = bundle
        self.options = options = options or Options()
        config, model = bundle.config, bundle.model
        if options.torch_dtype is not None:
            model.to(options.torch_dtype)
        _quantize(model, options.quantize)
        steps = options.denoise_steps or config.denoise_steps
        if config.distilled_from and steps != config.denoise_steps:
            raise ConfigError(
                f"{config.name} is distilled: it denoises in {config.denoise_steps} and knows no other "
                f"number of steps, got {steps}"
            )
        if not 0 <= options.warm_start < steps:
            raise ConfigError(
                f"warm_start must be 0 to {steps - 1}, one less than the denoise steps; got {options.warm_start}"
            )
        variant = VARIANTS[config.variant]
        modes = variant.modes
        if options.mode and options.mode not in modes:
            raise ConfigError(
                f"mode must be one of {', '.join(modes)} for the variant {config.variant}, got {options.mode!r}"
            )
        self.mode: InferenceMode = next(mode for mode in modes if options.mode in ("", mode))
        self._realtime = self.mode == "first_frame" and not options.warm_start
        if options.realtime and not self._realtime:
            raise ConfigError(
                f"realtime {options.realtime} needs the mode first_frame and no warm_start; "
                f"got mode {self.mode} and warm_start {options.warm_start}"
            )
        if options.realtime == "prefix" and not config.max_prefix:
            raise ConfigError(
                f"realtime prefix needs a bundle trained with prefix conditioning (max_prefix in policy.yaml); "
                f"{config.name} was not. realtime guidance works with any bundle"
            )
        self._schedule = make_schedule(steps, config.sigma_shift, model.dtype, model.device)
        video_schedule = make_schedule(steps, config.video_sigma_shift, model.dtype, model.device)
        try:
            encoder = ImageEncoder.load(bundle.vae_folder)
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        self._encoder = encoder.to(model.device, model.dtype).eval().requires_grad_(False)
        grid = (config.layout.height // _TOKEN_PIXELS, config.layout.width // _TOKEN_PIXELS)
        shape = (1, config.horizon, config.model.action_dim)
        seed = config.seed if options.seed is None else options.seed
        self._noise = variant.start(shape, seed, model.dtype, model.device)
        cells = (config.layout.height // _LATENT_PIXELS, config.layout.width // _LATENT_PIXELS)
        frames = 1 if self.mode == "first_frame" else config.latent_frames
        video_shape = (1, config.model.latent_channels, len(config.model.history) + frames, *cells)
        self._video_noise = initial_noise(video_shape, seed, model.dtype, model.device)
        with torch.no_grad():
            self._engine = Engine(
                model, grid, config.horizon, self._schedule, config.prompt.length, options.engine, frames,
                video_schedule,
            )  # fmt: skip
        self._prepared: str | None = None
        self._previous: tuple[int, NDArray[np.float64]] | None = None

    @cached_property
    def info(self) -> PolicyInfo:
        """See :class:`PolicyInfo`; the first time the weights are read for their hash."""
        config = self.bundle.config
        info = config.info(
            self.bundle.embeddings, self.mode, config.identity(self.bundle.folder), self.bundle.state_band
        )
        return info if self._realtime else replace(info, abilities=info.abilities - {"realtime_chunking"})

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", options: Options | None = None) -> FastWamPolicy:
        """Load a bundle; raises ConfigError where :meth:`Bundle.load` does."""
        options = options or Options()
        return cls(Bundle.load(folder, device, options.torch_dtype), options)

    def prepare(self, instruction: str) -> None:
        """Take an instruction's embedding into use, and run twice, so that the first real inference is not slower."""
        context, mask = self.bundle.embedding(instruction)
        model = self.bundle.model
        with torch.no_grad():
            self._engine.set_prompt(context[None].to(model.device, model.dtype), mask[None])
        self._prepared = instruction
        tiles = self.bundle.config.layout.tiles
        images = {tile.camera: np.zeros((tile.height, tile.width, 3), np.uint8) for tile in tiles}
        joints = dict.fromkeys(self.bundle.config.state.names, 0.0)
        earlier = (Frame(0, images, joints),) * len(self.bundle.config.model.history)
        for _ in range(2):
            self.infer(Observation(0, images, joints, instruction, earlier=earlier))
        self._previous = None

    def reset(self) -> None:
        """Forget the chunk that a warm start would begin from."""
        self._previous = None

    def close(self) -> None:
        """Nothing: memory is freed with the last reference."""

    @cached_property
    def imagination(self) -> Imagination:
        """What this bundle imagines; the first time the whole autoencoder is read. ConfigError as `Imagination`."""
        return Imagination(self.bundle)

    def imagine(self, observation: Observation) -> Pixels:
        """See :class:`ImaginingPolicy`, and :attr:`imagination`."""
        return self.imagination.imagine(self._canvases(observation), observation.joints, observation.instruction)

    def mean_pictures(self) -> dict[str, Pixels]:
        """See :class:`BlindablePolicy`."""
        tiles = self.bundle.config.layout.tiles
        return read_mean_pictures(self.bundle.folder, [tile.camera for tile in tiles])

    def infer(self, observation: Observation) -> ActionChunk:
        """One chunk.

        Raises:
            ValueError: the instruction was not prepared, or there are more or fewer earlier frames than in
                :attr:`info`.
            MemoryError: the GPU is full; names the options that need less.
        """
        try:
            return self._infer(observation)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(
                f"{str(error).splitlines()[0]} The options dtype bfloat16 and quantize int8 need less memory"
            ) from error

    @torch.no_grad()  # not inference_mode: guidance differentiates through what is computed here
    def _infer(self, observation: Observation) -> ActionChunk:
        if observation.instruction != self._prepared:
            raise ValueError(f"instruction not prepared: {observation.instruction!r}")
        config, model = self.bundle.config, self.bundle.model
        marks = [self._now()]
        canvases = [to_model_input(each, model.dtype, model.device) for each in self._canvases(observation)]
        proprio = self.bundle.proprio(observation.joints)
        marks.append(self._now())
        with torch.inference_mode():
            latents = self._encoder(torch.cat(canvases)).transpose(0, 2)
        marks.append(self._now())
        self._engine.prefill(latents, proprio)
        marks.append(self._now())
        actions = self._denoise(observation)
        normalised = actions[0].float().cpu().numpy()
        marks.append(self._now())
        positions = self.bundle.restore_actions(normalised, observation.joints)
        self._previous = (observation.stamp_ns, positions)
        running, committed = observation.running, 0
        if running is not None and self._realtime:
            committed = min(running.committed, len(running.actions), config.horizon)
            positions[:committed] = running.actions[:committed]
        timing = Timing(*(1e3 * np.diff(marks)).tolist())
        names = list(config.action.names)
        return ActionChunk(observation.stamp_ns, config.step_ns, names, positions, timing, committed)

    def _canvases(self, observation: Observation) -> list[Pixels]:
        """Of each frame that the model is given, oldest first, [H, W, 3]."""
        config = self.bundle.config
        if len(observation.earlier) != len(config.model.history):
            raise ValueError(f"expected {len(config.model.history)} earlier frames, got {len(observation.earlier)}")
        frames = [frame.images for frame in reversed(observation.earlier)]
        return [config.layout.compose(images) for images in (*frames, observation.images)]

    def _denoise(self, observation: Observation) -> Tensor:
        """Normalised actions [1, H, D] for the observation in use."""
        running, engine = observation.running, self._engine
        if self.mode == "joint":
            return engine.imagine_and_denoise(self._video_noise, self._noise).actions
        if self.mode == "idm":
            engine.imagine(self._video_noise)
        if running is None or not self._realtime:
            return engine.denoise(*self._start(observation))
        horizon = self.bundle.config.horizon
        overlap = min(len(running.actions), horizon)
        target = torch.zeros_like(self._noise)
        plan = torch.from_numpy(self.bundle.normalise_actions(running.actions[:overlap], observation.joints))
        target[0, :overlap] = plan.to(target.device, target.dtype)
        if self.options.realtime != "prefix":
            mask = soft_mask(min(running.committed, overlap), overlap, horizon).to(target.device, target.dtype)
            return engine.denoise_guided(self._noise, target, mask)
        prefix = min(running.committed, overlap, self.bundle.config.max_prefix, horizon - 1)
        return engine.denoise_after(self._noise, target[:, :prefix])

    def _start(self, observation: Observation) -> tuple[Tensor, int]:
        """Where denoising begins: pure noise at step 0, or with warm start the shifted last chunk, noised again."""
        first = self.options.warm_start
        if first == 0 or self._previous is None:
            return self._noise, 0
        previous_ns, previous = self._previous
        shift = round((observation.stamp_ns - previous_ns) / self.bundle.config.step_ns)
        if not 0 <= shift < len(previous):
            return self._noise, 0
        tail = previous[-1:].repeat(shift, axis=0)  # past the end of the last chunk its last step is held
        rows = self.bundle.normalise_actions(np.concatenate([previous[shift:], tail]), observation.joints)
        sigma = self._schedule.timesteps[first] / TRAIN_TIMESTEPS
        return (1 - sigma) * torch.from_numpy(rows)[None].to(self._noise) + sigma * self._noise, first

    def _now(self) -> float:
        """Seconds, after the device has finished what it was given."""
        if self.bundle.model.device.type == "cuda":
            torch.cuda.synchronize(self.bundle.model.device)
        return time.perf_counter()


def load_bundle(folder: Path, device: str = "auto", **options: Any) -> FastWamPolicy:
    """A bundle with options as in :class:`Options`; what `load_policy` calls for a folder.

    Raises:
        ConfigError: as :meth:`FastWamPolicy.load`, or there is no such option.
    """
    known = [field.name for field in fields(Options)]
    if unknown := sorted(set(options) - {*known}):
        raise ConfigError(f"{folder}: a bundle has no option {', '.join(unknown)}, but device, {', '.join(known)}")
    return FastWamPolicy.load(folder, device, Options(**options))


def _quantize(model: FastWam, kind: Quantization) -> None:
    """Replace the weights of both experts' blocks by smaller ones, in place.

    Raises:
        ConfigError: torchao is not installed.
    """
    if kind == "none":
        return
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ConfigError(f"quantize {kind} needs torchao: .venv/bin/python -m pip install torchao ({error})") from None
    config = Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig()
    for expert in (model.video, model.action):
        quantize_(expert.blocks, config)
