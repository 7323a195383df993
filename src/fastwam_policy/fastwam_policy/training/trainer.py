"""`fastwam train`: from LeRobot datasets to a policy bundle.

Started directly it runs on one device; started with `accelerate launch` on as many as there are, on one machine or
several, each with the whole model (DDP) or a share of it (FSDP). Each step's random numbers come from the seed and the
step alone, so a run that is killed and started again gives the losses that it would have given.

    OUTPUT/bundle         the averaged weights with the smallest open-loop error so far
    OUTPUT/last           the averaged weights of the last checkpoint
    OUTPUT/checkpoints    what a restart needs
    OUTPUT/logs           TensorBoard, or another log
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    broadcast_object_list,
    find_executable_batch_size,
    set_seed,
)
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import alone_in, naming_a_full_disk, write_json
from fastwam_policy.common.parallel import THIS_PROCESS, Where
from fastwam_policy.common.progress import counted
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.training_loss import Batch, Losses, TimestepSampler, action_sampler, draw, training_loss
from fastwam_policy.model.variants import VARIANTS, InferenceMode
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.training.average import Average
from fastwam_policy.training.checkpoints import finish, newest, put_aside, read_progress
from fastwam_policy.training.config import TrainingConfig
from fastwam_policy.training.datasets import open_datasets
from fastwam_policy.training.distillation import Distillation
from fastwam_policy.training.initialization import check_start, initialise
from fastwam_policy.training.mean_pictures import keep_mean_pictures, mean_pictures
from fastwam_policy.training.optimizer import make_optimizer
from fastwam_policy.training.output_folder import (
    CONFIG_FILE,
    begin_bundle,
    check_data,
    check_output,
    claim_output,
    parts_of_a_batch,
    require_space_for,
    write_weights,
)
from fastwam_policy.training.precision import resolved
from fastwam_policy.training.prompts import embeddings
from fastwam_policy.training.statistics import bundle_statistics, dataset_statistics, with_spread
from fastwam_policy.training.trained import choose_trained, hold_frozen, merged
from fastwam_policy.training.validation import Validation, validate
from fastwam_policy.training.windows import (
    Sample,
    Windows,
    cache_latents,
    encoded,
    load_samples,
    relative_dimensions,
)
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

SUMMARY_FILE = "summary.json"  # in the output once training has ended; with the validation of OUTPUT/bundle
_LOG_EVERY = 20  # steps
_LAG = timedelta(hours=3)  # that one process may lag behind the others, as with a slow disk while latents are computed
_LOWEST_RATE = 0.1  # of the learning rate, at the end


def train(
    config: TrainingConfig,
    output: Path,
    robot: Path | None = None,
    where: Where = THIS_PROCESS,
    like: Path | None = None,
) -> Validation:
    """Train to the end, from the last checkpoint in `output` if there is one; return the last validation.

    `robot` is another robot file than the installed one. Latents that are missing are made at `where`. The data must be
    what the bundle `like` was trained with.

    Raises:
        ConfigError: data or weights do not fit, or `output` was begun with another configuration, or another process
            trains into it.
        RunError: the loss is not finite any more, the disk is too small, or one of several processes has ended or lags
            too far.
    """
    with contextlib.ExitStack() as held, _naming_the_others():
        return _Trainer(config, robot, output, held, where, like).run()


def with_batch_that_fits(
    config: TrainingConfig, output: Path, robot: Path | None = None, where: Where = THIS_PROCESS
) -> TrainingConfig:
    """The configuration with a `batch_size`, from its own downward, of which a step fits into memory.

    In an `output` that was begun the batch is what it was then.

    Raises:
        ConfigError: there are several processes, or as :func:`train`.
        RunError: not one observation fits.
    """
    written = output / CONFIG_FILE
    if written.exists():
        return config.model_copy(update={"batch_size": yaml.safe_load(written.read_text())["batch_size"]})
    if PartialState().num_processes > 1:
        raise ConfigError("--find-batch-size is for one process: find it with one, and set batch_size for the others")
    output.parent.mkdir(parents=True, exist_ok=True)

    def attempt(size: int) -> TrainingConfig:
        tried = config.model_copy(update={"batch_size": size})
        with tempfile.TemporaryDirectory(dir=output.parent) as folder, contextlib.ExitStack() as held:
            _Trainer(tried, robot, Path(folder), held, where).step(0)
        return tried

    try:
        found: TrainingConfig = find_executable_batch_size(attempt, starting_batch_size=config.batch_size)()
    except RuntimeError as error:
        if "No executable batch size" not in str(error):
            raise
        raise RunError(
            "not one observation fits into memory: try gradient_checkpointing, or trained: lora with frozen_as"
        ) from None
    return found


@contextlib.contextmanager
def _naming_the_others() -> Iterator[None]:
    """RunError in place of what the network says when another process has ended, or lags too far."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        hours = _LAG.total_seconds() / 3600
        raise RunError(
            f"another process did not come within {hours:.1g} hours, or has ended: see what it says. Start all of "
            "them again to continue after the last checkpoint"
        ) from error


class _Loss(nn.Module):
    """The loss as a module, so that accelerate can wrap it."""

    def __init__(self, model: FastWam, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        variant = VARIANTS[config.policy.variant]
        self.sampler = action_sampler(variant, config.policy.sigma_shift)
        self.video_sampler = TimestepSampler(config.policy.video_sigma_shift)
        self.lambda_video = variant.lambda_video

    def forward(self, batch: Batch, mode: InferenceMode) -> Losses:
        config, video_sampler = self.config, self.video_sampler
        drawn = draw(batch, mode, self.sampler, config.policy.max_prefix, config.action_draws, video_sampler)
        return training_loss(
            self.model, mode, batch, drawn, self.sampler, self.lambda_video, video_sampler=video_sampler
        )


class _Trainer:
    def __init__(
        self,
        config: TrainingConfig,
        robot: Path | None,
        output: Path,
        held: contextlib.ExitStack,
        where: Where,
        like: Path | None = None,
    ) -> None:
        self.config, self.output, policy = config, output, config.policy
        self.accelerator = Accelerator(
            mixed_precision=resolved(config.precision),
            log_with=_tracker(config.log_with),
            project_dir=output / "logs",
            cpu=not torch.cuda.is_available(),  # several processes on a CPU are only seen with this
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_LAG)],
        )
        self._parts = self.accelerator.num_processes  # of each batch: another training may have been begun with more
        check_output(config, output)
        check_start(config.start_from)
        _check_teacher(config)
        _check_packages(config)
        if self.accelerator.distributed_type == DistributedType.FSDP:
            if config.frozen_as != "float32":
                raise ConfigError("frozen_as: FSDP shards weights of one type: leave it out, or train without FSDP")
            if config.optimizer != "adamw":
                raise ConfigError("optimizer: FSDP shards the figures of adamw alone: take that, or train without FSDP")
        readers = open_datasets(config, robot)
        for note in [note for reader in readers for note in reader.notes]:
            self.accelerator.print(note, file=sys.stderr)
        share = (self.accelerator.process_index, self.accelerator.num_processes)
        for version in range(config.augmented + 1):
            cache_latents(readers, policy, config.autoencoder, share, config.every, where, version)
        self.accelerator.wait_for_everyone()
        samples = load_samples(readers, policy, config.autoencoder, config.every)
        training, held_out = split(samples, config.validation_share)
        statistics = self._statistics(training)
        if like is not None:
            check_data(like, config, statistics)
        for version in range(1, config.augmented + 1):
            others = load_samples(readers, policy, config.autoencoder, config.every, version)
            training += split(others, config.validation_share)[0]
        tasks = {task for sample in samples for task in sample.tasks}
        texts = embeddings(config, output, tasks | {policy.prompt.default_instruction})
        self._modes = VARIANTS[policy.variant].modes
        normalizers = (
            Normalizer.from_statistics(statistics["state"]["default"], policy.state.normalization),
            Normalizer.from_statistics(
                statistics["action"]["default"], policy.action.normalization, stepwise=policy.action.stepwise
            ),
        )
        by_task = {task: texts[policy.prompt_of(task)] for task in tasks}
        left_out = config.before_takeover if config.intervention_share else 0.0
        cameras = [tile.camera for tile in policy.layout.tiles]
        seen = encoded(mean_pictures(readers, cameras), policy, config.autoencoder) if config.blind else None
        self._windows, self._held_out = (
            Windows(part, policy, *normalizers, by_task, left_out=left_out, every=config.every, seen=seen)
            for part in (training, held_out)
        )
        self._normalizers = normalizers

        set_seed(config.seed)
        model = FastWam(policy.model)
        initialise(model, config.start_from)
        model.float()  # stored weights may be halves, which an optimizer cannot work with
        model.gradient_checkpointing = config.gradient_checkpointing
        loss = _loss(model, config)
        require_space_for(output, sum(weights.numel() for weights in loss.parameters()))
        optimizer = make_optimizer(config.optimizer, _trained(loss), config.learning_rate, config.weight_decay)
        self._loss, self._optimizer = self.accelerator.prepare(loss, optimizer)
        self._schedule = get_cosine_with_min_lr_schedule_with_warmup(
            self._optimizer, config.warm_up, config.steps, min_lr_rate=_LOWEST_RATE
        )
        self._average = Average(
            _trained(self._loss), decay=config.ema_decay, use_ema_warmup=True, power=0.75,
            foreach=not isinstance(self._loss, FSDPModule),  # of which PyTorch has no such operations
        )  # fmt: skip
        self._average.to(self.accelerator.device)
        self._start = [weight.detach().clone() for weight in _trained(self._loss)] if config.start_share else []
        self.accelerator.register_for_checkpointing(self._schedule, self._average)
        self._bundles = {name: output / name for name in ("bundle", "last")}
        if self.accelerator.is_main_process:  # now that data and weights are known to fit
            held.enter_context(alone_in(output))
            claim_output(config, output)
            for folder in self._bundles.values():
                begin_bundle(folder, config, statistics, texts)
            keep_mean_pictures(readers, cameras, self._bundles.values())

    def run(self) -> Validation:
        """All steps that are left."""
        config, accelerator = self.config, self.accelerator
        first, best, seconds = self._resume()
        begin = time.monotonic() - seconds
        name = self.output.name
        places = {"wandb": {"dir": str(self.output / "logs"), "name": name}, "trackio": {"name": name}}
        accelerator.init_trackers("fastwam", init_kwargs=places)
        result: Validation | None = None
        with counted(shown=accelerator.is_main_process) as progress:
            task = progress.add_task("steps", total=config.steps, completed=first)
            for step in range(first, config.steps):
                losses, norm = self.step(step)
                done = step + 1
                validates = done % config.validate_every == 0 or done == config.steps
                saves = done % config.checkpoint_every == 0 or done == config.steps
                if (validates or saves) and not np.isfinite(losses.total.item() + float(norm)):
                    raise RunError(
                        f"step {done}: the loss or its gradient is not finite any more. Nothing was written since the "
                        "last checkpoint; look at the loss before, and lower learning_rate in another folder"
                    )
                if done % _LOG_EVERY == 0 or done == config.steps:
                    figures = {name: getattr(losses, name).item() for name in ("total", "video", "action")}
                    rate = self._schedule.get_last_lr()[0]
                    accelerator.log(
                        {f"loss/{name}": value for name, value in figures.items()}
                        | {"gradient_norm": float(norm), "learning_rate": rate},
                        step=done,
                    )
                    text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
                    progress.update(task, description=f"loss {text}")
                progress.update(task, completed=done)
                if validates:
                    result = self._validate()
                    accelerator.log(result.figures(), step=done)
                    if accelerator.is_main_process:
                        progress.console.print(f"step {done}: {result}")
                    if result.error < best.get(f"validation/{result.unit}", np.inf):
                        best = result.figures()
                        self._write_weights("bundle")
                if saves:
                    self._save(done, best, time.monotonic() - begin)
        accelerator.end_training()
        result = result or self._validate()
        if accelerator.is_main_process:
            figures = {
                "steps": config.steps,
                "processes": accelerator.num_processes,
                "seconds": time.monotonic() - begin,
                **best,
            }
            write_json(self.output / SUMMARY_FILE, figures)
        return result

    def step(self, step: int) -> tuple[Losses, Tensor]:
        """Of the optimizer, the one with this number."""
        config, accelerator = self.config, self.accelerator
        numbers = self._windows.draw(
            np.random.default_rng((config.seed, step)),
            config.batch_size * self._parts,
            config.approach_share,
            config.intervention_share,
        )
        own = range(accelerator.process_index, self._parts, accelerator.num_processes)
        for part in own:
            torch.manual_seed((config.seed * config.steps + step) * self._parts + part)
            batch = self._disturbed(self._windows.batch(numbers[part :: self._parts], accelerator.device))
            with accelerator.autocast():
                losses: Losses = self._loss(batch, self._modes[step % len(self._modes)])
                accelerator.backward(losses.total / len(own))
        norm = accelerator.clip_grad_norm_(_trained(self._loss), config.gradient_clip)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._average.step(_trained(self._loss))
        return losses, norm

    def _disturbed(self, batch: Batch) -> Batch:
        """With noise on the joint state, and none at all for some observations."""
        if batch.proprio is None or not (self.config.proprio_noise or self.config.proprio_dropout):
            return batch
        noisy = batch.proprio + self.config.proprio_noise * torch.randn_like(batch.proprio)
        hidden = torch.rand(len(noisy), 1, device=noisy.device) < self.config.proprio_dropout
        return dataclasses.replace(batch, proprio=noisy.masked_fill(hidden, 0.0))

    def _validate(self) -> Validation:
        mixed = self.config.frozen_as != "float32"
        with self._averaged(), self._unsharded(), self.accelerator.autocast() if mixed else contextlib.nullcontext():
            model = self.accelerator.unwrap_model(self._loss).model.eval()
            try:
                result = validate(model, self.config.policy, self._held_out, self._normalizers[1])
            finally:
                model.train()
        [same] = broadcast_object_list([result])  # all processes must find the same one the best
        return same

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in the model, with their share of those that it began with."""
        self._average.store(_trained(self._loss))
        try:
            if self.config.ema_decay:
                self._average.copy_to(_trained(self._loss))
            with torch.no_grad():
                for weight, start in zip(_trained(self._loss) if self._start else (), self._start, strict=True):
                    weight.lerp_(start, self.config.start_share)
            yield
        finally:
            self._average.restore(_trained(self._loss))

    @contextlib.contextmanager
    def _unsharded(self) -> Iterator[None]:
        """Every weight on every process, in the type they compute in, where FSDP has spread them."""
        if not isinstance(self._loss, FSDPModule):
            yield
            return
        self._loss.unshard()
        try:
            with self.accelerator.autocast():
                yield
        finally:
            self._loss.reshard()

    def _write_weights(self, name: str) -> None:
        """Averaged weights into one of the bundles, complete or not at all."""
        with self._averaged():
            state = self.accelerator.get_state_dict(self._loss)
            if self.accelerator.is_main_process:  # in here: the state is a view of the parameters
                # Not on a GPU, which may have no room for a second copy of all weights.
                whole = merged({key.removeprefix("model."): value.cpu() for key, value in state.items()})
                write_weights(self._bundles[name] / self.config.policy.weights, whole, self.config.stored_as)

    def _save(self, step: int, best: dict[str, float], seconds: float) -> None:
        self._write_weights("last")
        unfinished = self.output / "checkpoints" / "unfinished"
        if self.accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with naming_a_full_disk(self.output):
            self.accelerator.save_state(unfinished)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            finish(unfinished, step, {"best": best, "seconds": seconds, "processes": self._parts})

    def _resume(self) -> tuple[int, dict[str, float], float]:
        """Load the last checkpoint; first step, the best validation so far, and seconds it took."""
        folder = self.output / "checkpoints"
        checkpoint, problems = newest(folder)
        if checkpoint is None:
            return 0, {}, 0.0
        self.accelerator.wait_for_everyone()
        if problems and self.accelerator.is_main_process:
            self.accelerator.print(f"{'; '.join(problems)}: the checkpoint before it is used")
            put_aside(folder, checkpoint)
        progress = read_progress(checkpoint)
        self._parts = parts_of_a_batch(progress.get("processes", self._parts), self._parts, self.output)
        self.accelerator.load_state(checkpoint)
        self._average.to(self.accelerator.device)
        self.accelerator.print(f"continuing after step {progress['step']}")
        return progress["step"], progress["best"], progress["seconds"]

    def _statistics(self, samples: Sequence[Sample]) -> dict[str, Any]:
        config, policy = self.config, self.config.policy
        if config.keep_statistics:
            return bundle_statistics(config.start_from, policy)
        vectors = [(sample.state, sample.action) for sample in samples]
        return with_spread(dataset_statistics(vectors, policy.horizon, relative=relative_dimensions(policy)))


def _loss(model: FastWam, config: TrainingConfig) -> nn.Module:
    """From batch and mode to :class:`Losses`; what of the model is trained has gradients."""
    policy = config.policy
    choose_trained(model, config.trained, config.lora_rank)
    hold_frozen(model, getattr(torch, config.frozen_as))
    if (teacher := policy.distilled_from) is None:
        return _Loss(model, config)
    return Distillation(model, policy.denoise_steps, teacher.denoise_steps, policy.sigma_shift)


def _check_teacher(config: TrainingConfig) -> None:
    """ConfigError where the policy is distilled from another bundle than the one that its weights come from."""
    teacher, source = config.policy.distilled_from, config.start_from
    if teacher and (source is None or Bundle.read_config(source).identity(source).sha256 != teacher.sha256):
        raise ConfigError(f"start_from: {source} is not the bundle {teacher.name} that policy.distilled_from names")


def _check_packages(config: TrainingConfig) -> None:
    """ConfigError where a package is missing that something in the configuration needs."""
    for chosen, wanted, package, requirements in (
        ("trained: lora", config.trained == "lora", "peft", "requirements-lora.txt"),
        ("optimizer: adamw_8bit", config.optimizer == "adamw_8bit", "bitsandbytes", "requirements-8bit.txt"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise ConfigError(f"{chosen} needs {package}: .venv/bin/python -m pip install --no-deps -r {requirements}")


def _tracker(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"log_with: {name} is not installed: .venv/bin/python -m pip install {name}")
    return name


def _trained(loss: nn.Module) -> list[nn.Parameter]:
    return [weights for weights in loss.parameters() if weights.requires_grad]


def split(samples: list[Sample], validation_share: float) -> tuple[list[Sample], list[Sample]]:
    """Episodes for training, and every n-th one, at least one, for validation.

    Raises:
        ConfigError: fewer than two episodes.
    """
    if len(samples) < 2:
        raise ConfigError("training needs at least two episodes: one is left out for validation")
    every = max(2, round(1 / validation_share))
    held_out = set(range(every // 2, len(samples), every)) or {len(samples) - 1}
    return (
        [sample for k, sample in enumerate(samples) if k not in held_out],
        [samples[k] for k in sorted(held_out)],
    )
