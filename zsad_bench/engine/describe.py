"""What the rows of a job say: never more than what was run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from zsad_bench.config.compose import plain
from zsad_bench.config.schema import METHOD_CARD, NOT_IN_FEATURES
from zsad_bench.contract import Dataset
from zsad_bench.encoder.model_files import file_metadata, local_path, local_weights_sha256
from zsad_bench.engine.dataset_names import dataset_label, lacks_categories
from zsad_bench.engine.identity import (
    DATASET_DESCRIPTION,
    TOP_LEVEL,
    data_root,
    effective_last_batch,
    evaluation_size,
    identity,
    image_size,
    precision,
    series_identity,
)
from zsad_bench.engine.method_card import MethodCard, departures, literal, presets_digest, variant_text
from zsad_bench.results.commands import text_hash
from zsad_bench.results.rows import MODIFIED, JobInfo

if TYPE_CHECKING:
    from zsad_bench.contract import Method

# In the metadata of weights that tools/train_demo_encoder.py made from drawn images.
_DRAWN_IMAGES = "generator_version"
_LAST_BATCH = {"keep": "last batch kept short", "drop": "last batch dropped"}
_SHORTEST_DIGEST = 8


def describe(config: DictConfig, method: Method, dataset: Dataset) -> JobInfo:
    """The columns that identify a job's rows; nothing of the encoder is loaded.

    Raises:
        UserError: the method refuses the dataset.
    """
    label = dataset_label(dataset)
    values = plain(config.method)
    changed = departures(values, method)
    variant = method.variant_on(label, dataset.categories)
    root = data_root(config, dataset.categories)
    return JobInfo(
        method=method.name,
        variant=variant_text(variant, changed),
        setting=method.setting,
        dataset=label,
        protocol=protocol(config, dataset),
        encoder=encoder_label(config),
        pretrained=weights_label(config),
        image_size=image_size(config),
        batch_size=config.batch_size,
        seed=config.seed,
        config_hash=identity(config, dataset.categories),
        categories=dataset.categories,
        series=series_identity(config, dataset.categories),
        precision=precision(config),
        fidelity=MODIFIED if changed else MethodCard.of(values).level,
        preset=variant,
        root="" if root is None else hashlib.sha256(root.encode()).hexdigest()[:6],
        keys=dict(_keys(config)),
        stamp=stamp(config),
    )


def stamp(config: DictConfig) -> str:
    """Hash of what a job's columns are made from, besides what its identity holds: 12 hex digits.

    A job's ``job.json`` with the same identity and stamp says all that :func:`describe` would say.
    """
    return text_hash([json.dumps(dict(_keys(config))), str(config.dataset.get("root")), presets_digest()])


def protocol(config: DictConfig, dataset: Dataset) -> str:
    """How images were chosen, composed into batches and measured; rows that differ in it are never ranked together."""
    found = [dataset.protocol]
    if config.dataset.get("categories") is not None or lacks_categories(dataset):
        found.append(f"categories {'+'.join(dataset.categories)}")
    if config.limit is not None:
        found.append(f"limit {config.limit}")
    if (last := effective_last_batch(config)) in _LAST_BATCH:
        found.append(_LAST_BATCH[last])
    if config.encoder.resize != "squash":
        found.append(f"resize {config.encoder.resize}")
    return ", ".join([*found, f"{evaluation_size(config)} px"])


def encoder_label(config: DictConfig) -> str:
    """The open_clip name, or the stem of a config file; weights that were trained on drawn images say so."""
    model = str(config.encoder.model)
    name = Path(model).stem if model.endswith(".json") else model
    weights = None if config.encoder.pretrained is None else local_path(config.encoder.pretrained)
    teaching = weights is not None and weights.is_file() and _DRAWN_IMAGES in file_metadata(weights)
    return f"{name} (teaching)" if teaching else name


def weights_label(config: DictConfig) -> str:
    """The tag, ``random``, or the name of a file; of a file that is no known release, with the start of its SHA-256."""
    model, pretrained = str(config.encoder.model), config.encoder.pretrained
    digest = local_weights_sha256(pretrained)
    if pretrained is None or digest is None:
        return pretrained or "random"
    released = next((tag for tag, start in _released(model) if digest.startswith(start)), None)
    bundled = str(pretrained).startswith("pkg://")
    name = Path(pretrained).name
    return released or (name if bundled else f"{name} {digest[:_SHORTEST_DIGEST]}")


def _released(model: str) -> Iterator[tuple[str, str]]:
    """Tag and beginning of the SHA-256 of the release files of a model, as far as their addresses hold it."""
    import open_clip

    for tag in open_clip.list_pretrained_tags_by_model(model):
        address = open_clip.get_pretrained_url(model, tag) or ""
        for found in re.findall(r"(?<![0-9a-f])[0-9a-f]{8,64}(?![0-9a-f])", address):
            yield tag, found


def _keys(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Every key that can change a number, with its value as it is written on the command line."""
    ignored = {"method": {"_target_", *METHOD_CARD}, "dataset": {"_target_", *DATASET_DESCRIPTION}}
    for group in ("method", "dataset", "encoder"):
        for key, value in plain(config[group]).items():
            if key not in ignored.get(group, NOT_IN_FEATURES):
                yield f"{group}.{key}", literal(value)
    for key in (*TOP_LEVEL, "last_batch", "evaluation_size"):
        yield key, literal(config[key])
