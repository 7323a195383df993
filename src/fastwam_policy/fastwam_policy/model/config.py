"""Sizes of a Fast-WAM, and the three that are used most: tiny (tests), mid (benchmarks), full (the paper's)."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

_MOST_LAYERS, _LARGEST = 256, 65_536  # beyond them it is a mistake, which would cost hours or all memory
_MOST_EARLIER = 64  # frames
_FORBID_UNKNOWN = {"extra": "forbid"}  # read by pydantic where a bundle's YAML is checked


@dataclass(frozen=True)
class ExpertConfig:
    """One transformer of the mixture. `num_heads * head_dim` is the width of the shared attention."""

    hidden_dim: int
    ffn_dim: int
    num_heads: int
    head_dim: int
    num_layers: int
    text_dim: int
    freq_dim: int = 256
    eps: float = 1e-6

    __pydantic_config__ = _FORBID_UNKNOWN

    @property
    def attention_dim(self) -> int:
        """Width of queries, keys and values, all heads together; not necessarily `hidden_dim`."""
        return self.num_heads * self.head_dim


@dataclass(frozen=True)
class ModelConfig:
    """A video expert and an action expert that share attention.

    Raises:
        ValueError: sizes that cannot work together; names the field.
    """

    video: ExpertConfig
    action: ExpertConfig
    action_dim: int
    proprio_dim: int | None
    latent_channels: int = 48
    patch: int = 2
    positions: tuple[int, int] | None = None
    """Rows and columns of tokens that get a learned position of their own. Official models know places only through
    rotary embedding, which a small model that starts from scratch needs much longer to read."""
    history: tuple[int, ...] = ()
    """Steps from each earlier frame to the observation, ascending: their latents are given besides the observation's,
    oldest first. Official models see the observation alone."""

    __pydantic_config__ = _FORBID_UNKNOWN

    def __post_init__(self) -> None:
        shared = {"action_dim": self.action_dim, "latent_channels": self.latent_channels, "patch": self.patch}
        rows, columns = self.positions or (1, 1)
        shared |= {"proprio_dim": self.proprio_dim or 1, "rows of positions": rows, "columns of positions": columns}
        for name, value in itertools.chain(shared.items(), *(asdict(e).items() for e in (self.video, self.action))):
            most = _MOST_LAYERS if name == "num_layers" else _LARGEST
            if not 0 < value <= most:
                raise ValueError(f"{name} must be above 0 and at most {most}, got {value}")
        for name in ("num_heads", "head_dim", "num_layers", "text_dim"):
            video, action = getattr(self.video, name), getattr(self.action, name)
            if video != action:
                raise ValueError(
                    f"{name} must be equal in both experts, whose attention is shared: {video} and {action}"
                )
        for expert in (self.video, self.action):
            if expert.freq_dim % 2:
                raise ValueError(f"freq_dim must be even, got {expert.freq_dim}")
        third = self.video.head_dim // 3
        if third % 2 or self.video.head_dim % 2:
            raise ValueError(
                f"head_dim {self.video.head_dim} cannot be split for frame, row and column rotary embedding: "
                f"head_dim // 3 must be even, as in 24, 36, 48, 60, 66, 72, 96 and 128; got {third}"
            )
        earlier = [*self.history]
        if earlier != sorted({*earlier}) or min(earlier, default=1) < 1 or len(earlier) > _MOST_EARLIER:
            raise ValueError(
                f"history must be at most {_MOST_EARLIER} numbers of steps, ascending, such as [4, 8]; got {earlier}"
            )

    @property
    def given_frames(self) -> int:
        """Latent frames that the model is given: the earlier ones and the observation."""
        return len(self.history) + 1


def _config(video: dict[str, Any], action: dict[str, Any], **shared: Any) -> ModelConfig:
    return ModelConfig(ExpertConfig(**video, **shared), ExpertConfig(**action, **shared), action_dim=14, proprio_dim=14)


PRESETS: dict[str, ModelConfig] = {
    "tiny": _config(
        {"hidden_dim": 64, "ffn_dim": 128},
        {"hidden_dim": 32, "ffn_dim": 64},
        num_heads=4, head_dim=24, num_layers=3, text_dim=64, freq_dim=32,
    ),
    "mid": _config(
        {"hidden_dim": 512, "ffn_dim": 2048},
        {"hidden_dim": 256, "ffn_dim": 1024},
        num_heads=4, head_dim=128, num_layers=10, text_dim=4096,
    ),
    "full": _config(
        {"hidden_dim": 3072, "ffn_dim": 14336},
        {"hidden_dim": 1024, "ffn_dim": 4096},
        num_heads=24, head_dim=128, num_layers=30, text_dim=4096,
    ),
}  # fmt: skip
