"""One job: a config -> a result file per category."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from zsad_bench import console
from zsad_bench.batching import limited
from zsad_bench.config import identity, without_seed
from zsad_bench.data import Dataset, Sample
from zsad_bench.encoder import LazyEncoder, shared_encoder
from zsad_bench.encoder_plan import weights_label
from zsad_bench.evaluation import fingerprint
from zsad_bench.evaluator import CategoryOutput, EvaluationOptions, Evaluator
from zsad_bench.feature_source import FeatureSource
from zsad_bench.labels import dataset_label, lacks_categories
from zsad_bench.method import Method
from zsad_bench.plugins import build
from zsad_bench.results import JobFolder, JobInfo
from zsad_bench.sharding import Shard
from zsad_bench.sheets import write_maps, write_worst
from zsad_bench.store import DiskStore, FeatureStore, MemoryStore
from zsad_bench.union import read_union
from zsad_bench.weights import local_weights_sha256, native_image_size


def configured_encoder(config: DictConfig) -> LazyEncoder:
    """The encoder of a job, shared by all jobs of this process that ask for the same one."""
    options = cast(dict[str, Any], OmegaConf.to_container(config.encoder, resolve=True))
    return shared_encoder(**options)


@lru_cache(maxsize=2)
def _shared_store(mode: str, root: str, max_gb: float) -> FeatureStore:
    return MemoryStore(max_gb) if mode == "memory" else DiskStore(Path(root).expanduser(), max_gb)


def configured_store(config: DictConfig) -> FeatureStore | None:
    """Where features are kept, shared by all jobs of this process; None if they are not."""
    features = config.features
    return None if features.mode == "off" else _shared_store(features.mode, features.root or "", features.max_gb)


def configured_source(config: DictConfig, dataset: Dataset) -> FeatureSource:
    """Where a job's features come from."""
    encoder, store = configured_encoder(config), configured_store(config)
    may_encode = config.overwrite != "cached"
    encoder.texts.may_encode = may_encode
    if isinstance(store, DiskStore):
        encoder.texts.folder = store.root / encoder.plan.key / "texts"
    skip = config.on_error == "skip"
    return FeatureSource(
        dataset, encoder, store, skip_unreadable=skip, may_encode=may_encode, workers=config.workers
    )


def describe(config: DictConfig, method: Method, dataset: Dataset) -> JobInfo:
    """The columns that identify a job's rows; nothing of the encoder is loaded.

    Raises:
        UserError: the method refuses the dataset.
    """
    protocol = [dataset.protocol]
    if config.dataset.get("categories") is not None or lacks_categories(dataset):
        protocol.append(f"categories {'+'.join(dataset.categories)}")
    protocol += [f"{key} {config[key]}" for key in ("limit", "evaluation_size") if config[key] is not None]
    model, pretrained = config.encoder.model, config.encoder.pretrained
    label = dataset_label(dataset)
    return JobInfo(
        method=method.name,
        variant=method.variant_on(label, dataset.categories),
        setting=method.setting,
        dataset=label,
        protocol=", ".join(protocol),
        encoder=Path(model).stem if model.endswith(".json") else model,
        pretrained=weights_label(pretrained),
        image_size=config.encoder.image_size or native_image_size(model),
        batch_size=config.batch_size,
        seed=config.seed,
        config_hash=identity(config, dataset.categories, local_weights_sha256(pretrained)),
        categories=dataset.categories,
        series=identity(without_seed(config), dataset.categories, local_weights_sha256(pretrained)),
    )


def run_job(config: DictConfig, run_folder: Path, show_progress: bool = True) -> JobFolder:
    """Evaluate every category that is not finished yet.

    Args:
        config: of the job.
        run_folder: results folder of the command.
        show_progress: bars on the error stream; processes that share a terminal cannot all draw there.

    Raises:
        UserError: a mistake in data, config or environment. Finished categories are kept.
    """
    dataset = build(config.dataset, Dataset, "dataset")  # type: ignore[type-abstract]
    method = build(config.method, Method, "method")  # type: ignore[type-abstract]
    folder = JobFolder(run_folder, describe(config, method, dataset))
    folder.start(OmegaConf.to_yaml(config, resolve=True))
    if config.overwrite == "never":
        return folder
    todo = _unfinished(config, dataset, folder)
    if not todo:
        console.err.print(f"{folder.path.name}: finished already; overwrite=always computes it again", style="dim")
        return folder
    source = configured_source(config, dataset)
    if source.encoder.weights.path is None:
        console.warn(
            "encoder.pretrained=null: the weights are random. The numbers mean nothing; "
            "they only show that the pipeline runs."
        )
    options = EvaluationOptions(
        config.batch_size, config.last_batch, config.seed, config.evaluation_size, config.sweep200
    )
    evaluator = Evaluator(source, method, options, read_union(run_folder, config), folder.path)
    total = sum(len(samples) for samples in todo.values())
    with console.JobProgress(folder.info.folder, total, show_progress) as bar:
        for category, samples in todo.items():
            bar.category(f"{method.name} {dataset.name}/{category}")
            output = evaluator.evaluate(category, samples, bar.predicted, bar.listener)
            _save(config, evaluator, folder, category, output)
    return folder


def _save(
    config: DictConfig, evaluator: Evaluator, folder: JobFolder, category: str, output: CategoryOutput
) -> None:
    """Draw a category's pictures and keep its result."""
    dataset, geometry = evaluator.dataset, evaluator.encoder.geometry
    pictures = folder.path / "maps"
    write_maps(pictures, category, dataset, output.samples, output.maps, config.maps, geometry)
    if config.maps != "none":
        scores = {image.image_id: image.score for image in output.result.images}
        write_worst(pictures, category, dataset, output.samples, output.maps, scores, geometry)
    folder.save(output.result, output.summary)


def _unfinished(config: DictConfig, dataset: Dataset, folder: JobFolder) -> dict[str, list[Sample]]:
    """Categories to evaluate: all of them, or those without a result for today's files."""
    mine = Shard.parse(config.shard).categories(dataset.categories) if config.shard else dataset.categories
    todo = {category: limited(dataset.samples(category), config.limit) for category in mine}
    if config.overwrite == "always":
        return todo
    finished = {category: folder.load(category) for category in todo}
    return {
        category: samples
        for category, samples in todo.items()
        if (kept := finished[category]) is None or kept.fingerprint != fingerprint(samples)
    }
