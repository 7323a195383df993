"""A policy bundle: a folder with everything a checkpoint needs to run, and nothing guessed.

policy.yaml            what it is: sizes, layout, units, normalisation, prompt, schedule
model.safetensors      weights (or an official .pt, as `weights` says)
vae/                   image autoencoder in diffusers' format
dataset_stats.json     official statistics for normalisation
text_embeddings/       one .safetensors for each instruction: context [L, text_dim], mask [L], and the prompt
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastwam_policy.common.files import refuse_pointer
from fastwam_policy.model.checkpoint import CheckpointError, load_into, load_weights
from fastwam_policy.model.config import ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.variants import VARIANTS, InferenceMode, VariantName
from fastwam_policy.policies.base import Ability, CameraInput, Identity, PolicyInfo
from fastwam_policy.policies.fastwam.canvas import Layout
from fastwam_policy.policies.fastwam.normalizer import Normalizer, load_statistics, state_band
from fastwam_policy.policies.fastwam.vector import Vector
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, StrictModel, load_yaml

FORMAT = 1
POLICY_FILE = "policy.yaml"
STATISTICS_FILE = "dataset_stats.json"
EMBEDDINGS = "text_embeddings"
_BLOCK = 2**20  # bytes read at a time
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_STEPS, _CHARACTERS = 10_000, 4096  # most of each in a policy.yaml
_OLDEST = 60.0  # s that frames are kept for a policy that looks back
_TASK = "{task}"
PROMPT_TEMPLATE = f"A video recorded from a robot's point of view executing the following instruction: {_TASK}"


class Prompt(StrictModel):
    """How an instruction becomes the text the model was trained with."""

    template: Annotated[str, Field(max_length=_CHARACTERS)]
    length: Annotated[int, Field(gt=0, le=_STEPS)] = 128
    default_instruction: Annotated[str, Field(max_length=_CHARACTERS)]

    @model_validator(mode="after")
    def _one_place(self) -> Prompt:
        if self.template.count(_TASK) != 1 or set("{}") & set(self.template.replace(_TASK, "")):
            raise ValueError(f"template: needs {_TASK} once and no other braces, got {self.template[:100]!r}")
        return self


class DistilledFrom(StrictModel):
    """The bundle whose denoise steps another one takes in fewer; see :mod:`fastwam_policy.training.distillation`."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of its weights."""
    denoise_steps: Annotated[int, Field(gt=1, le=_STEPS)]


class BundleConfig(StrictModel):
    """The whole of policy.yaml."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    description: str
    origin: Literal["random", "trained", "official"]
    """Where the weights come from; `random` means that the actions mean nothing."""
    robot_type: str
    variant: VariantName
    model: ModelConfig
    weights: str
    """A file of the bundle's folder."""
    horizon: Annotated[int, Field(gt=0, le=_STEPS)]
    fps: PositiveFloat
    denoise_steps: Annotated[int, Field(gt=0, le=_STEPS)]
    sigma_shift: PositiveFloat
    """Of the actions: 5.0 in the first released checkpoints, 1.0 in later ones."""
    video_sigma_shift: PositiveFloat
    video_frames: PositiveInt
    """Frames of a training video over the horizon, the observed one included; so many are imagined."""
    frames_per_latent: PositiveInt = 4
    """Video frames that a latent frame after the first stands for; 1 with an autoencoder for images."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type to compute in where it is not the one that the weights are stored in."""
    seed: int
    max_prefix: NonNegativeInt = 0
    """Most leading steps that training gave clean (prefix conditioning); 0: the weights do not know them."""
    distilled_from: DistilledFrom | None = None
    """Of few denoise steps that were learned from many; null: the weights know every number of steps."""
    layout: Layout
    state: Vector
    action: Vector
    prompt: Prompt

    @field_validator("weights")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"must be the name of a file in the bundle's folder, not a path, got {name[:100]!r}")
        return name

    @model_validator(mode="after")
    def _sizes(self) -> BundleConfig:
        later = self.video_frames - 1
        if later < 1 or later % self.frames_per_latent or self.horizon % later:
            raise ValueError(
                f"video_frames must be 1 + {self.frames_per_latent} n and divide the horizon of {self.horizon} into "
                f"equal parts, got {self.video_frames}"
            )
        if VARIANTS[self.variant].regression and self.denoise_steps != 1:
            raise ValueError(f"denoise_steps: {self.variant} takes 1 step, got {self.denoise_steps}")
        if (age := max(self.model.history, default=0) / self.fps) > _OLDEST:
            raise ValueError(f"model.history: reaches {age:.1f} s back, {_OLDEST:g} at most")
        if not self.state.is_plain:
            raise ValueError("state: stepwise, relative, kind and toggled are for actions only")
        if self.action.relative and self.state.names != self.action.names:
            raise ValueError("action.relative needs state.names and action.names in the same order")
        if len(self.action.names) != self.model.action_dim:
            raise ValueError(
                f"action.names: {len(self.action.names)} names, but model.action_dim is {self.model.action_dim}"
            )
        if self.model.proprio_dim is not None and len(self.state.names) != self.model.proprio_dim:
            raise ValueError(
                f"state.names: {len(self.state.names)} names, but model.proprio_dim is {self.model.proprio_dim}"
            )
        return self

    @model_validator(mode="after")
    def _distilled(self) -> BundleConfig:
        if self.distilled_from is None:
            return self
        if VARIANTS[self.variant].modes != ("first_frame",):
            raise ValueError(f"distilled_from: the variant {self.variant} imagines, in the same denoise steps")
        if self.max_prefix:
            raise ValueError("distilled_from: such weights know no prefix: max_prefix must be 0")
        if (before := self.distilled_from.denoise_steps) % self.denoise_steps or before == self.denoise_steps:
            raise ValueError(
                f"denoise_steps: {before} cannot be taken in {self.denoise_steps}, only in fewer that divide them"
            )
        return self

    @property
    def latent_frames(self) -> int:
        """Latent frames of a training video, the observed one included."""
        return 1 + (self.video_frames - 1) // self.frames_per_latent

    @property
    def video_stride(self) -> int:
        """Steps from one frame of a training video to the next."""
        return self.horizon // (self.video_frames - 1)

    @property
    def step_ns(self) -> int:
        """Time between two actions, ns."""
        return round(1e9 / self.fps)

    def prompt_of(self, instruction: str) -> str:
        """Full prompt of an instruction; white space is collapsed as in training."""
        return self.prompt.template.replace(_TASK, " ".join(instruction.split()))

    def info(
        self,
        prompts: Iterable[str] = (),
        mode: InferenceMode | None = None,
        identity: Identity | None = None,
        state_band: tuple[tuple[float, float], ...] = (),
    ) -> PolicyInfo:
        """What such a policy is to a runner.

        Args:
            prompts: those that there are embeddings for.
            mode: how it infers; None: the variant's first way.
            identity: of its weights.
            state_band: as :attr:`PolicyInfo.state_band`.
        """
        before, _, after = self.prompt.template.partition(_TASK)
        known = [prompt for prompt in prompts if prompt.startswith(before) and prompt.endswith(after)]
        variant = VARIANTS[self.variant]
        abilities: set[Ability] = {"imagination"} if variant.lambda_video else set()
        if (mode or variant.modes[0]) == "first_frame" and not variant.regression:
            abilities.add("realtime_chunking")
        return PolicyInfo(
            name=self.name,
            cameras=tuple(CameraInput(tile.camera) for tile in self.layout.tiles),
            state=self.state.channels,
            action=self.action.channels,
            fps=self.fps,
            horizon=self.horizon,
            action_kind=self.action.kind,
            default_instruction=self.prompt.default_instruction,
            instructions=tuple(sorted(prompt[len(before) : len(prompt) - len(after)] for prompt in known)),
            abilities=frozenset(abilities),
            robot_type=self.robot_type,
            identity=identity or Identity(self.origin),
            state_band=state_band,
            history=tuple(steps / self.fps for steps in self.model.history),
        )

    def check_files(self, folder: Path) -> None:
        """ConfigError where files of the bundle in `folder` are missing, pointers of git-lfs, or links out of it."""
        needed = ("vae/config.json", STATISTICS_FILE, self.weights)
        if missing := [name for name in needed if not (folder / name).is_file()]:
            raise ConfigError(f"{folder}: files missing from the bundle: {', '.join(missing)}")
        for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
            refuse_pointer(path)
        base = (folder / POLICY_FILE).resolve().parent  # an installed bundle may be links, all to one other folder
        if outside := [name for name in needed if not (folder / name).resolve().is_relative_to(base)]:
            raise ConfigError(f"{folder}: {outside[0]} is a link to a file outside of the bundle: copy the file there")

    def statistics(self, folder: Path, kind: Literal["state", "action"]) -> dict[str, Any]:
        """For the normalisation of state or action; ConfigError where those in `folder` do not fit."""
        vector = self.state if kind == "state" else self.action
        path = folder / STATISTICS_FILE
        return load_statistics(path, kind, vector.names, vector.normalization, stepwise=vector.stepwise)

    def identity(self, folder: Path) -> Identity:
        """Of this bundle's weights in `folder`; ConfigError where they cannot be read."""
        before = self.distilled_from
        distilled = (
            f"{before.name} ({before.sha256}), {before.denoise_steps} denoise steps in {self.denoise_steps}"
            if before
            else ""
        )
        plain = self.model_dump(mode="json", exclude_defaults=True, exclude={"name", "description"})
        files = [folder / STATISTICS_FILE, *sorted(path for path in (folder / "vae").iterdir() if path.is_file())]
        settings = _hash(*files, begin=json.dumps(plain, sort_keys=True).encode())[:12]
        return Identity(self.origin, _hash(folder / self.weights), str(folder.resolve()), distilled, settings)


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. `model` and `vae_folder` are ready to run; embeddings are keyed by the full prompt."""

    folder: Path
    config: BundleConfig
    model: FastWam
    state: Normalizer
    action: Normalizer
    embeddings: dict[str, tuple[Tensor, Tensor]]
    state_band: tuple[tuple[float, float], ...] = ()

    @property
    def vae_folder(self) -> Path:
        """Folder of the image autoencoder, in diffusers' format."""
        return self.folder / "vae"

    def proprio(self, joints: Mapping[str, float]) -> Tensor | None:
        """Normalised joint state [1, P] where the model is; None for a model that does not take one.

        Raises:
            ValueError: a joint is missing.
        """
        if self.config.model.proprio_dim is None:
            return None
        state = self.state.forward(self.config.state.values(joints))
        return torch.from_numpy(state)[None].to(self.model.device, self.model.dtype)

    def normalise_actions(self, actions: NDArray[np.float64], joints: Mapping[str, float]) -> NDArray[np.float32]:
        """Targets [steps, D] as the robot takes them -> model; `joints` are those of the observation."""
        action = self.config.action
        return self.action.first(len(actions)).forward(action.untoggle(actions) - action.origin(joints))

    def restore_actions(self, actions: NDArray[np.float32], joints: Mapping[str, float]) -> NDArray[np.float64]:
        """Model [steps, D] -> targets as the robot takes them; see :meth:`normalise_actions`."""
        action = self.config.action
        rows = action.toggle(self.action.first(len(actions)).backward(actions))
        return rows.astype(np.float64) + action.origin(joints)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: torch.dtype | None = None) -> Bundle:
        """Read and check every file of a bundle; `dtype` None leaves the weights as they were saved.

        Weights are mapped from disk and go to the device one by one: no second copy is ever held.

        Raises:
            ConfigError: something is missing or does not fit; the text names the file and the fix.
        """
        target = torch_device(device)
        config = cls.read_config(folder)
        config.check_files(folder)
        statistics = {kind: config.statistics(folder, kind) for kind in ("state", "action")}
        state, action = (
            Normalizer.from_statistics(statistics[kind], vector.normalization, stepwise=vector.stepwise)
            for kind, vector in (("state", config.state), ("action", config.action))
        )
        with torch.device("meta"):
            model = FastWam(config.model)
        try:
            load_into(model, load_weights(folder / config.weights), str(folder / config.weights))
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        if dtype is None:
            dtype = next(model.parameters()).dtype if config.dtype is None else getattr(torch, config.dtype)
        _check_memory(model, target, dtype)
        model.to(target, dtype).eval().requires_grad_(False)
        embeddings = load_embeddings(folder / EMBEDDINGS, config)
        return cls(folder, config, model, state, action, embeddings, state_band(statistics["state"]))

    @staticmethod
    def read_config(folder: Path) -> BundleConfig:
        """Only policy.yaml of a bundle; raises ConfigError."""
        if not (folder / POLICY_FILE).is_file():
            raise ConfigError(
                f"{folder}: not a policy bundle: {POLICY_FILE} is missing. `fastwam make-bundle DIR` writes one to try"
            )
        refuse_pointer(folder / POLICY_FILE)
        return load_yaml(folder / POLICY_FILE, BundleConfig, aliases=False)

    @staticmethod
    def read_info(folder: Path) -> PolicyInfo:
        """What the bundle is to a runner; reads the weights once for their hash, about 1 s for each GB.

        Raises:
            ConfigError: a file is missing, or does not fit.
        """
        config = Bundle.read_config(folder)
        config.check_files(folder)
        band = state_band(config.statistics(folder, "state"))
        config.statistics(folder, "action")
        return config.info(load_embeddings(folder / EMBEDDINGS, config), None, config.identity(folder), band)

    def embedding(self, instruction: str) -> tuple[Tensor, Tensor]:
        """Text context [L, text_dim] and mask [L] of an instruction.

        Raises:
            ConfigError: the bundle has none for it; lists those it has.
        """
        prompt = self.config.prompt_of(instruction)
        if prompt not in self.embeddings:
            known = "; ".join(sorted(self.embeddings)) or "none"
            raise ConfigError(
                f"{self.folder}: no text embedding for the prompt '{prompt}'. The bundle has: {known}. Make one with: "
                f"fastwam encode-prompt {self.folder} '{instruction}' --text-encoder PTH --tokenizer DIR"
            )
        return self.embeddings[prompt]


def _hash(*files: Path, begin: bytes = b"") -> str:
    digest = hashlib.sha256(begin)
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
    return digest.hexdigest()


def torch_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one, and else the CPU.

    Raises:
        ConfigError: it is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name} was asked for, but torch {torch.__version__} finds no CUDA GPU here: "
            "use device cpu, or install a CUDA build of torch and the GPU's driver"
        )
    return device


def save_embedding(folder: Path, prompt: str, context: Tensor, mask: Tensor) -> None:
    """Write one text embedding into a bundle's folder; `context` [L, text_dim], `mask` bool [L]."""
    target = folder / EMBEDDINGS
    target.mkdir(parents=True, exist_ok=True)
    words = "".join(letter if letter.isalnum() else "_" for letter in prompt.rsplit(":", 1)[-1].strip().lower())[:40]
    name = f"{words}_{hashlib.sha256(prompt.encode()).hexdigest()[:8]}.safetensors"
    save_file({"context": context.contiguous(), "mask": mask.contiguous()}, target / name, {"prompt": prompt})


def _check_memory(model: FastWam, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that cannot fit on a GPU before it is copied there; on the CPU it stays mapped from disk."""
    if device.type != "cuda":
        return
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise ConfigError(
            f"the weights need {needed / 1e9:.1f} GB as {dtype} and {device} has {free / 1e9:.1f} GB free. "
            "Lower it with the option dtype bfloat16, or run on another device"
        )


def load_embeddings(folder: Path, config: BundleConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """Context [L, text_dim] and mask [L] of every prompt in a folder; ConfigError where one does not fit."""
    result: dict[str, tuple[Tensor, Tensor]] = {}
    expected = (config.prompt.length, config.model.video.text_dim)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                prompt: str = (file.metadata() or {})["prompt"]
                result[prompt] = (file.get_tensor("context"), file.get_tensor("mask"))
        except (SafetensorError, KeyError, OSError) as error:
            raise ConfigError(f"{path}: not a text embedding: {error!r}") from None
        if tuple(result[prompt][0].shape) != expected:
            raise ConfigError(
                f"{path}: context has shape {list(result[prompt][0].shape)}, policy.yaml needs {list(expected)}"
            )
    return result
