"""The categories of a job that are not finished: encoder, features, predictions, metrics, pictures, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from zsad_bench.config.schema import EncoderConfig
from zsad_bench.contract import Dataset, FeatureRequest, Method, Sample
from zsad_bench.core import console
from zsad_bench.core.machine import limit_threads
from zsad_bench.encoder.loading import LazyEncoder, shared_encoder
from zsad_bench.engine.evaluator import CategoryOutput, EvaluationOptions, Evaluator
from zsad_bench.engine.pictures import write_maps, write_worst
from zsad_bench.feature_store.disk_store import DiskStore
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.feature_store.store import FeatureStore, MemoryStore
from zsad_bench.results.files import JobFolder
from zsad_bench.statistics.kept import kept_arrays


def configured_encoder(config: DictConfig) -> LazyEncoder:
    """The encoder of a job, shared by all jobs of this process that ask for the same one."""
    keys = cast(dict[str, Any], OmegaConf.to_container(config.encoder, resolve=True))
    return shared_encoder(EncoderConfig(**keys))


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
    return FeatureSource(dataset, encoder, store, skip_unreadable=skip, may_encode=may_encode, workers=config.workers)


def compute_categories(
    config: DictConfig,
    dataset: Dataset,
    method: Method,
    folder: JobFolder,
    todo: Mapping[str, Sequence[Sample]],
    show_progress: bool = True,
    wanted: FeatureRequest | None = None,
) -> None:
    """Evaluate categories one after another and keep each as soon as it is finished.

    Args:
        config: of the job.
        dataset: that the samples are of.
        method: of the job.
        folder: of the job, started.
        todo: the images of each category.
        show_progress: bars on the error stream; processes that share a terminal cannot all draw there.
        wanted: what other jobs of the same sweep will ask of the images; encoded in the same pass.

    Raises:
        UserError: a mistake in data, config or environment. Finished categories are kept.
    """
    limit_threads(config.threads)
    source = configured_source(config, dataset)
    if source.encoder.weights.path is None:
        console.warn(
            "encoder.pretrained=null: the weights are random. The numbers mean nothing; "
            "they only show that the pipeline runs."
        )
    options = EvaluationOptions(
        config.batch_size, config.last_batch, config.seed, config.evaluation_size, config.sweep200
    )
    evaluator = Evaluator(source, method, options, wanted, folder.path)
    total = sum(len(samples) for samples in todo.values())
    with console.JobProgress(folder.info.folder, total, show_progress) as bar:
        for category, samples in todo.items():
            bar.category(f"{method.name} {dataset.name}/{category}")
            output = evaluator.evaluate(category, samples, bar.predicted, bar.listener)
            _save(config, evaluator, folder, category, output)


def _save(config: DictConfig, evaluator: Evaluator, folder: JobFolder, category: str, output: CategoryOutput) -> None:
    """Draw a category's pictures and keep its result."""
    dataset, geometry = evaluator.dataset, evaluator.encoder.geometry
    pictures = folder.path / "maps"
    write_maps(pictures, category, dataset, output.samples, output.maps, config.maps, geometry)
    if config.maps != "none":
        scores = {image.image_id: image.score for image in output.result.images}
        write_worst(pictures, category, dataset, output.samples, output.maps, scores, geometry)
    folder.save(output.result, kept_arrays(category, output.result.units, output.summary))
