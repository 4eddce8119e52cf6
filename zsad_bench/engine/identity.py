"""Everything that decides whether a finished result may be kept, and nothing else.

A result belongs to a *job* and a *category*. The job's :func:`identity` is a hash of everything in its configuration
that can change a number; the category's :func:`fingerprint` is a hash of what is read for it. A finished category is
kept while both stay the same. Contents count: photos, masks, references, weights, a model's JSON, checkpoints, prompt
lists and the code of plugins outside of this package. Names of files, devices and places on disk do not, except for the
root of data without a published identity: two folders called ``photos`` are two datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from omegaconf import DictConfig

from zsad_bench.config.compose import plain
from zsad_bench.config.plugins import is_bundled, target_of
from zsad_bench.config.schema import METHOD_CARD, NOT_IN_FEATURES
from zsad_bench.contract import Sample
from zsad_bench.core.checksums import file_sha256, read_ahead
from zsad_bench.core.errors import UserError
from zsad_bench.encoder.model_files import local_weights_sha256, native_image_size, read_model_config
from zsad_bench.engine.dataset_card import cards
from zsad_bench.engine.plugin_code import code_of
from zsad_bench.results.rows import RESULT_FORMAT
from zsad_bench.text.ensembles import load_ensemble

# Keys of the configuration, besides those of method, dataset and encoder, that can change a number.
TOP_LEVEL = ("batch_size", "seed", "limit", "sweep200", "on_error")
# Keys of bundled methods that name files, as ``Method.FILES`` says for others.
FILE_KEYS = ("checkpoint",)
DATASET_DESCRIPTION = ("root", "title", "page", "licence", "citation", "expected", "about")


def identity(config: DictConfig, categories: Sequence[str]) -> str:
    """Hash of everything in a job's config that can change its numbers: 12 hex digits.

    Device, chunk size, output options and places are left out, so the same job has the same identity on every machine,
    unless ``encoder.precision=auto``, for which the precision chosen here counts, or data without a published identity,
    whose root counts. A key without effect in this job (``last_batch`` with ``batch_size=1``) counts as the default.
    """
    content = {
        **{key: config[key] for key in TOP_LEVEL},
        "last_batch": effective_last_batch(config),
        "evaluation_size": evaluation_size(config),
        "method": _method(config),
        "dataset": {**_dataset(config, categories), "categories": list(categories)},
        "encoder": _encoder(config),
        "format": RESULT_FORMAT,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def series_identity(config: DictConfig, categories: Sequence[str]) -> str:
    """The identity that jobs have in common that differ in the seed only."""
    common = config.copy()
    common.seed = 0
    return identity(common, categories)


def effective_last_batch(config: DictConfig) -> str:
    """``last_batch``, or ``fill`` where no batch can be short."""
    return "fill" if config.batch_size in (1, "all") else str(config.last_batch)


def image_size(config: DictConfig) -> int:
    """Side of the encoder's input in pixels."""
    return config.encoder.image_size or native_image_size(config.encoder.model)


def evaluation_size(config: DictConfig) -> int:
    """Side in pixels at which maps and masks are compared: ``evaluation_size``, or the encoder's input size."""
    return config.evaluation_size or image_size(config)


def precision(config: DictConfig) -> str:
    """The number format of the encoder, never ``auto``."""
    wanted = str(config.encoder.precision)
    if wanted != "auto":
        return wanted  # known without torch
    from zsad_bench.encoder.plan import choose_device
    from zsad_bench.encoder.precision import resolve_precision

    return resolve_precision(wanted, choose_device(config.encoder.device))


def _method(config: DictConfig) -> dict[str, object]:
    """Keys of the method with files by content, without what only describes it, and its code if it is not ours."""
    files = FILE_KEYS if is_bundled(config.method) else getattr(target_of(config.method), "FILES", ())
    described = tuple(key for key in METHOD_CARD if key != "version")
    values = {key: value for key, value in plain(config.method).items() if key not in described}
    for key in values.keys() & set(files):
        values[key] = file_digest(values.get(key))
    if isinstance(prompts := values.get("prompts"), str):
        values["prompts"] = _prompts(prompts)
    return {**values, "code": _code(config.method)}


def _code(plugin: DictConfig) -> str | None:
    """Hash of the code of a plugin outside of this package; a bundled one is not even imported."""
    return None if is_bundled(plugin) else code_of(target_of(plugin))


def _prompts(name: str) -> object:
    """What an ensemble says, whatever its file is called; the name of one that does not exist, which fails later."""
    try:
        return {key: value for key, value in asdict(load_ensemble(name)).items() if key != "name"}
    except UserError:
        return name


def _dataset(config: DictConfig, categories: Sequence[str]) -> dict[str, object]:
    values = {key: value for key, value in plain(config.dataset).items() if key not in DATASET_DESCRIPTION}
    values["root"] = data_root(config, categories)
    return {**values, "code": _code(config.dataset)}


def data_root(config: DictConfig, categories: Sequence[str]) -> str | None:
    """The folder of data that has no published identity, with all links resolved; None for a published dataset."""
    dataset = config.dataset
    known = [card for card in cards().values() if card.name == dataset.name and card.target == dataset["_target_"]]
    # A card without names of categories is of data that the configuration describes wholly, as it does the demo's.
    published = [card for card in known if card.about.kind not in ("", "yours")]
    if any(not card.class_names or set(categories) <= set(card.class_names) for card in published):
        return None
    return str(Path(str(dataset.root)).expanduser().resolve())


def _encoder(config: DictConfig) -> dict[str, object]:
    values = {key: value for key, value in plain(config.encoder).items() if key not in NOT_IN_FEATURES}
    values["precision"] = precision(config)
    values["image_size"] = image_size(config)
    if (digest := local_weights_sha256(config.encoder.pretrained)) is not None:
        values["pretrained"] = digest
    if str(config.encoder.model).endswith(".json"):
        values["model"] = cast(Mapping[str, object], read_model_config(config.encoder.model))
    return values


def file_digest(value: object) -> object:
    """SHA-256 of the file that a value names; the value itself if there is no such file, which fails later."""
    path = Path(value).expanduser() if isinstance(value, str) and value else None
    return file_sha256(path) if path is not None and path.is_file() else value


def fingerprint(samples: Sequence[Sample], references: Sequence[Sample] = ()) -> str:
    """Hash of what is read for a category: 16 hex digits.

    Args:
        samples: its test images; names, labels, defect types, objects, and the content of images and masks count.
        references: normal images that a few-shot method gets, in their order.
    """
    lines = [_line(sample) for sample in samples]
    lines += ["references", *map(_line, references)] if references else []
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_files_ahead(samples: Sequence[Sample]) -> None:
    """Learn the checksums of all files behind samples, so that fingerprints need not read them one after another."""
    paths = [path for sample in samples for path in (sample.path, sample.mask_path) if path is not None]
    read_ahead(file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]))


def _line(sample: Sample) -> str:
    contents = [_content(path) for path in (sample.path, sample.mask_path)]
    about = (sample.image_id, sample.label, sample.defect_type, sample.group)
    return json.dumps([*about, *contents])


def _content(path: Path | None) -> object:
    """SHA-256 of a file, or names and hashes of all files in a folder of masks; None where nothing can be read."""
    try:
        if path is None:
            return None
        if path.is_dir():
            return [[file.name, file_sha256(file)] for file in sorted(path.iterdir()) if file.is_file()]
        return file_sha256(path)
    except OSError:
        return None
