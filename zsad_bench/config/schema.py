"""What the keys of the top level, the encoder, the store and the board are, and which values they take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

CONFIG_MODULE = "zsad_bench.conf"
# Keys of an encoder that change features in their last bits at most, or not at all.
NOT_IN_FEATURES = ("device", "chunk_size", "sha256")
# What a method's YAML says about the method to readers; nothing of it reaches the method.
METHOD_CARD = ("version", "paper", "code", "citation", "fidelity")
GROUPS = ("method", "dataset", "encoder", "features", "cluster", "tracker")
CHOICES = {
    "on_error": ("stop", "skip"),
    "last_batch": ("fill", "keep", "drop"),
    "maps": ("sheet", "all", "none"),
    "overwrite": ("missing", "always", "never", "cached"),
    "features.mode": ("disk", "memory", "off"),
    "encoder.resize": ("squash", "shortest"),
    "encoder.precision": ("fp32", "bf16", "fp16", "auto"),
}
MINIMUM = {
    "batch_size": 1,
    "limit": 1,
    "threads": 1,
    "workers": 1,
    "seed": 0,
    "evaluation_size": 1,
    "encoder.chunk_size": 1,
    "encoder.image_size": 1,
}


@dataclass(unsafe_hash=True)  # nobody changes one; OmegaConf makes nodes of frozen ones read-only
class EncoderConfig:
    """Keys of ``conf/encoder/*.yaml``; their meaning stands at :func:`zsad_bench.encoder.loading.load_encoder`."""

    model: str = MISSING
    pretrained: str | None = None
    image_size: int | None = None
    resize: str = "squash"
    device: str = "auto"
    precision: str = "fp32"
    chunk_size: int | str | None = "auto"
    sha256: str | None = None
    feature_bits: int = 16
    compile: bool = False


@dataclass
class FeaturesConfig:
    """Keys of ``conf/features/*.yaml``: whether features are kept, where, and how many GiB of them."""

    mode: str = "disk"
    root: str | None = None
    max_gb: float = 20.0


@dataclass
class BoardConfig:
    """Keys ``board.*``; their meaning stands at :class:`zsad_bench.leaderboard.board.BoardOptions`."""

    metric: str = "image_auroc"
    group: Any = "setting"
    filter: Any = None


@dataclass
class BenchConfig:
    """Top-level keys; ``conf/config.yaml`` says what each means. Keys of methods and datasets stand in their YAML."""

    method: Any = MISSING
    dataset: Any = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    batch_size: int | str = 8
    last_batch: str = "fill"
    seed: int = 0
    limit: int | None = None
    evaluation_size: int | None = None
    sweep200: bool = False
    on_error: str = "stop"
    maps: str = "sheet"
    overwrite: str = "missing"
    fail_fast: bool = False
    threads: int | None = None
    workers: int | None = None
    shard: str | None = None
    board: BoardConfig = field(default_factory=BoardConfig)
    tracker: Any = MISSING
    results_dir: str = "results"
    name: str = MISSING
