"""Where the time of an inference goes, with random weights of any size, and how it compares with the plain arithmetic.

Timings on a shared machine drift: what is compared is measured alternately in one run, and stated as a ratio.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKLWan
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import initial_noise, make_schedule
from fastwam_policy.model.vae import OFFICIAL_CONFIG, ImageEncoder, VideoAutoencoder
from fastwam_policy.model.variants import VARIANTS, InferenceMode, VariantName
from fastwam_policy.performance.plain import plain_inference
from fastwam_policy.policies.fastwam.canvas import ROBOTWIN, to_model_input
from fastwam_policy.policies.fastwam.engine import Engine, EngineKind
from fastwam_policy.policies.fastwam.normalizer import Normalizer

_CAMERAS = {"head": (720, 1280), "wrist_left": (360, 640), "wrist_right": (360, 640)}  # height, width of the R1 Lite's
_TEXT_TOKENS, _HORIZON, _VIDEO_FRAMES, _SHIFT = 128, 32, 3, 5.0
_VAE_WIDTHS = {"tiny": 8, "mid": 160, "full": 160}  # 160 is the official encoder
_PEAK_SIZE = 2048  # of the square matrices whose product is the machine's limit


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    size: str
    variant: VariantName
    engine: EngineKind
    dtype: torch.dtype
    steps: int
    device: torch.device

    @property
    def mode(self) -> InferenceMode:
        """How the variant infers."""
        return VARIANTS[self.variant].modes[0]


class Workload:
    """Random weights, one observation of the R1 Lite's size, and the stages of an inference on them."""

    def __init__(self, setup: Setup, *, materialised: bool = True) -> None:
        """Without `materialised` everything stays on the meta device, to count arithmetic."""
        self.setup = setup
        device = setup.device if materialised else torch.device("meta")
        config = PRESETS[setup.size]
        with torch.device("meta"):
            self.model = FastWam(config).to(setup.dtype).eval().requires_grad_(False)
            width = _VAE_WIDTHS[setup.size]
            sizes = json.loads(OFFICIAL_CONFIG.read_text()) | {"base_dim": width, "decoder_base_dim": 8}
            vae = nn.Module.to(AutoencoderKLWan(**sizes), setup.dtype).eval().requires_grad_(False)
        if materialised:
            torch.manual_seed(0)
            _fill(self.model, device)
            _fill(vae, device)
        self.vae = VideoAutoencoder(vae).to(device)
        self.encoder = ImageEncoder(vae).to(device)
        self.schedule = make_schedule(setup.steps, _SHIFT, setup.dtype, device)
        grid = (ROBOTWIN.height // 32, ROBOTWIN.width // 32)

        def random(*shape: int) -> Tensor:
            return initial_noise(shape, 0, setup.dtype, device)

        self.noise = random(1, _HORIZON, config.action_dim)
        frames = 1 if setup.mode == "first_frame" else _VIDEO_FRAMES
        self.video_noise = random(1, config.latent_channels, frames, 2 * grid[0], 2 * grid[1])
        self.text = random(1, _TEXT_TOKENS, config.video.text_dim)
        self._visible = torch.ones(1, _TEXT_TOKENS, dtype=torch.bool)  # on the CPU: only asked whether it is all true
        self.text_mask = torch.ones(1, _TEXT_TOKENS, dtype=torch.bool, device=device)
        self.proprio = random(1, config.action_dim)
        self.image = random(1, 3, ROBOTWIN.height, ROBOTWIN.width)
        self.latents = random(1, config.latent_channels, 1, 2 * grid[0], 2 * grid[1])
        self.engine = Engine(self.model, grid, _HORIZON, self.schedule, _TEXT_TOKENS, setup.engine, frames)
        self.prompt()
        self._normalizer = Normalizer.z_score(
            np.zeros(config.action_dim, np.float32), np.ones(config.action_dim, np.float32)
        )
        noise = np.random.default_rng(0)
        self._jpegs = {
            name: cv2.imencode(".jpg", cv2.blur(noise.integers(0, 255, (*shape, 3), np.uint8), (9, 9)))[1]
            for name, shape in _CAMERAS.items()
        }

    def decode(self) -> dict[str, np.ndarray]:
        """JPEGs of all cameras to RGB."""
        return {
            name: np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
            for name, data in self._jpegs.items()
        }

    def preprocess(self, images: dict[str, np.ndarray]) -> Tensor:
        """RGB images to the model's canvas."""
        return to_model_input(ROBOTWIN.compose(images), self.setup.dtype, self.setup.device)

    def postprocess(self, actions: Tensor) -> np.ndarray:
        """Normalised actions to physical units."""
        return self._normalizer.backward(actions[0].float().cpu().numpy())

    def prompt(self) -> None:
        """Everything that depends on the prompt alone; once an instruction."""
        self.engine.set_prompt(self.text, self._visible)

    def prefill(self) -> None:
        """Latents to the keys and values of the observed frame."""
        self.engine.prefill(self.latents, self.proprio)

    def denoise(self) -> Tensor:
        """From the observed frame to actions, as the variant does."""
        if self.setup.mode == "joint":
            return self.engine.imagine_and_denoise(self.video_noise, self.noise).actions
        if self.setup.mode == "idm":
            self.engine.imagine(self.video_noise)
        return self.engine.denoise(self.noise)

    def infer(self) -> Tensor:
        """Latents to actions."""
        self.prefill()
        return self.denoise()

    def plain(self) -> Tensor:
        """Latents to actions, nothing cached."""
        inputs = (self.model, self.latents, self.text, self.text_mask, self.proprio, self.noise, self.schedule)
        return plain_inference(*inputs, self.setup.mode, self.video_noise)

    def encode(self) -> Tensor:
        """Canvas to latents, in two dimensions."""
        return self.encoder(self.image)

    def plain_encode(self) -> Tensor:
        """Canvas to latents, as a video of one frame."""
        return self.vae.encode(self.image[:, :, None])


@torch.inference_mode()
def run_benchmark(setup: Setup, repeats: int, *, against_plain: bool) -> dict[str, Any]:
    """Measure one setup; times in ms, sizes in bytes."""
    _say(f"building {setup.size} {setup.variant} {setup.engine} {setup.dtype}")
    work = Workload(setup)
    images = work.decode()
    stages: dict[str, Callable[[], Any]] = {
        "decode": work.decode,
        "preprocess": lambda: work.preprocess(images),
        "vae": work.encode,
        "prompt": work.prompt,
        "prefill": work.prefill,
        "denoise": work.denoise,
        "inference": work.infer,
    }
    stages["postprocess"] = lambda: work.postprocess(work.noise)
    if against_plain:
        stages |= {"plain vae": work.plain_encode, "plain inference": work.plain}
    _say("warming up")
    for stage in stages.values():
        stage()
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in track(range(repeats), description="measuring", disable=not sys.stderr.isatty()):
        for name, stage in stages.items():
            begin = _now(setup.device)
            stage()
            times[name].append(1e3 * (_now(setup.device) - begin))
    result: dict[str, Any] = {
        "setup": {
            "size": setup.size,
            "variant": setup.variant,
            "engine": setup.engine,
            "dtype": str(setup.dtype).removeprefix("torch."),
            "steps": setup.steps,
            "device": _device_name(setup.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "repeats": repeats,
            "vae_width": _VAE_WIDTHS[setup.size],
            "image": [ROBOTWIN.height, ROBOTWIN.width],
        },
        "ms": {
            name: {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)} for name, values in times.items()
        },
        "peak_memory_bytes": _peak_memory(setup.device),
        "gflop": count_gflop(setup, against_plain=against_plain),
    }
    result["ms"]["each step"] = {key: value / setup.steps for key, value in result["ms"]["denoise"].items()}
    total = [
        sum(row)
        for row in zip(
            *(times[name] for name in ("decode", "preprocess", "vae", "inference", "postprocess")), strict=True
        )
    ]
    result["ms"]["image to chunk"] = {f"p{q}": float(np.percentile(total, q)) for q in (50, 90, 99)}
    result["bytes_read"] = _weights_read(work)
    result["share_of_limit"] = _shares(work, result)
    if against_plain:
        result["ratio"] = _ratios(times)
        difference = work.infer() - work.plain()
        result["largest_difference"] = float(difference.abs().max())
        result["vae_difference"] = float((work.encode() - work.plain_encode()).abs().max())
    return result


def count_gflop(setup: Setup, *, against_plain: bool) -> dict[str, float]:
    """Counted arithmetic of one inference in 1e9 operations, on the meta device: nothing is computed."""
    with torch.inference_mode():
        work = Workload(
            Setup(setup.size, setup.variant, "eager", setup.dtype, setup.steps, torch.device("meta")),
            materialised=False,
        )
        stages: dict[str, Callable[[], Any]] = {
            "vae": work.encode, "prompt": work.prompt, "prefill": work.prefill, "denoise": work.denoise,
            "inference": work.infer,
        }  # fmt: skip
        if against_plain:
            stages |= {"plain vae": work.plain_encode, "plain inference": work.plain}
        counted = {}
        for name, stage in stages.items():
            with FlopCounterMode(display=False) as counter:
                stage()
            counted[name] = counter.get_total_flops() / 1e9
    return counted


def table(result: dict[str, Any]) -> Table:
    """One setup for a terminal."""
    setup_text = "{size} {variant}, {engine}, {dtype}, {steps} steps, {device}, {threads} threads".format(
        **result["setup"]
    )
    shown = Table(title=setup_text)
    for column in ("stage", "p50 ms", "p90 ms", "p99 ms", "GFLOP", "share of the machine's limit"):
        shown.add_column(column, justify="left" if column == "stage" else "right")
    for name, values in result["ms"].items():
        gflop, share = result["gflop"].get(name), result["share_of_limit"].get(name)
        shown.add_row(
            name, *(f"{values[q]:.2f}" for q in ("p50", "p90", "p99")),
            "" if gflop is None else f"{gflop:.2f}", "" if share is None else f"{100 * share:.0f} %",
        )  # fmt: skip
    shown.caption = f"peak memory {result['peak_memory_bytes'] / 1e9:.2f} GB, torch {result['setup']['torch']}"
    return shown


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Stages of each setup as stacked bars."""
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(results)), layout="constrained")
    axis = figure.subplots()
    for row, result in enumerate(results):
        left = 0.0
        for number, stage in enumerate(("decode", "preprocess", "vae", "prefill", "denoise")):
            width = result["ms"].get(stage, {}).get("p50", 0.0)
            axis.barh(row, width, left=left, color=f"C{number}", label=stage if row == 0 else None)
            left += width
    axis.set_yticks(range(len(results)), ["{size} {variant} {engine} {dtype}".format(**r["setup"]) for r in results])
    axis.set_xlabel("p50 [ms]")
    axis.legend(ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)


def _ratios(times: dict[str, list[float]]) -> dict[str, float]:
    median = {name: float(np.median(values)) for name, values in times.items()}
    ours, plain = median["vae"] + median["inference"], median["plain vae"] + median["plain inference"]
    images = median["decode"] + median["preprocess"]
    return {
        "vae": median["vae"] / median["plain vae"],
        "inference": median["inference"] / median["plain inference"],
        "image to chunk": (images + ours) / (images + plain),
    }


def _shares(work: Workload, result: dict[str, Any]) -> dict[str, float]:
    """Share of the time that the machine would need at its measured peak of arithmetic or of reading weights."""
    flops, bandwidth = _machine_limits(work.setup)
    return {
        name: 1e3 * max(1e9 * result["gflop"][name] / flops, size / bandwidth) / result["ms"][name]["p50"]
        for name, size in result["bytes_read"].items()
        if name in result["ms"]
    }


def _weights_read(work: Workload) -> dict[str, int]:
    """Bytes of weights that each stage reads at least."""
    model = work.model
    return {
        "vae": _bytes(work.encoder),
        "prefill": _bytes(model.video.blocks),
        "denoise": _bytes(model.action.blocks) * work.setup.steps,
    }


def _machine_limits(setup: Setup) -> tuple[float, float]:
    """Measured peaks of this machine: operations per second of a matrix product, bytes per second of reading memory."""
    square = torch.ones(_PEAK_SIZE, _PEAK_SIZE, dtype=setup.dtype, device=setup.device)
    block = torch.ones(2**28, dtype=torch.uint8, device=setup.device).view(torch.float32)

    def fastest(run: Callable[[], Any]) -> float:
        spans = []
        for _ in range(10):
            begin = _now(setup.device)
            run()
            spans.append(_now(setup.device) - begin)
        return min(spans)

    return 2 * _PEAK_SIZE**3 / fastest(lambda: square @ square), 2**28 / fastest(block.sum)


def _fill(module: nn.Module, device: torch.device) -> None:
    """Random weights of the usual scale, in place: a default initialisation would need the model in float32 first."""
    module.to_empty(device=device)
    for name, parameter in module.named_parameters():
        if parameter.squeeze().ndim >= 2:
            parameter.uniform_(-1, 1).mul_((3 / parameter[0].numel()) ** 0.5)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
