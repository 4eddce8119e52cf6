"""One job: a config -> a result file per category."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from zsad_bench.config.plugins import build
from zsad_bench.contract import Dataset, FeatureRequest, Method, Sample
from zsad_bench.core import console
from zsad_bench.core.checksums import index
from zsad_bench.encoder.loading import LazyEncoder, shared_encoder
from zsad_bench.engine.batches import category_references, limited
from zsad_bench.engine.describe import describe
from zsad_bench.engine.evaluator import CategoryOutput, EvaluationOptions, Evaluator
from zsad_bench.engine.identity import fingerprint, read_files_ahead
from zsad_bench.engine.pictures import write_maps, write_worst
from zsad_bench.engine.shards import Shard
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.feature_store.store import DiskStore, FeatureStore, MemoryStore
from zsad_bench.results.files import JobFolder


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
    return FeatureSource(dataset, encoder, store, skip_unreadable=skip, may_encode=may_encode, workers=config.workers)


def run_job(
    config: DictConfig, run_folder: Path, show_progress: bool = True, wanted: FeatureRequest | None = None
) -> JobFolder:
    """Evaluate every category that is not finished yet.

    Args:
        config: of the job.
        run_folder: results folder of the command.
        show_progress: bars on the error stream; processes that share a terminal cannot all draw there.
        wanted: what other jobs of the same sweep will ask of the images; encoded in the same pass.

    Raises:
        UserError: a mistake in data, config or environment. Finished categories are kept.
    """
    dataset = build(config.dataset, Dataset, "dataset")
    method = build(config.method, Method, "method")
    folder = JobFolder(run_folder, describe(config, method, dataset))
    if config.overwrite == "never":
        folder.require_started()
        return folder
    folder.start(OmegaConf.to_yaml(config, resolve=True))
    todo = _unfinished(config, dataset, method, folder)
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
    evaluator = Evaluator(source, method, options, wanted, folder.path)
    total = sum(len(samples) for samples in todo.values())
    with console.JobProgress(folder.info.folder, total, show_progress) as bar:
        for category, samples in todo.items():
            bar.category(f"{method.name} {dataset.name}/{category}")
            output = evaluator.evaluate(category, samples, bar.predicted, bar.listener)
            _save(config, evaluator, folder, category, output)
    index().save()
    return folder


def _save(config: DictConfig, evaluator: Evaluator, folder: JobFolder, category: str, output: CategoryOutput) -> None:
    """Draw a category's pictures and keep its result."""
    dataset, geometry = evaluator.dataset, evaluator.encoder.geometry
    pictures = folder.path / "maps"
    write_maps(pictures, category, dataset, output.samples, output.maps, config.maps, geometry)
    if config.maps != "none":
        scores = {image.image_id: image.score for image in output.result.images}
        write_worst(pictures, category, dataset, output.samples, output.maps, scores, geometry)
    folder.save(output.result, output.summary)


def _unfinished(config: DictConfig, dataset: Dataset, method: Method, folder: JobFolder) -> dict[str, list[Sample]]:
    """Categories to evaluate: all of them, or those without a result for the files as they are now."""
    mine = Shard.parse(config.shard).categories(dataset.categories) if config.shard else dataset.categories
    todo = {category: limited(dataset.samples(category), config.limit) for category in mine}
    if config.overwrite == "always":
        return todo
    kept = {category: result for category in todo if (result := folder.load(category)) is not None}
    if kept:
        with console.status("looking whether photos have changed"):
            read_files_ahead([sample for category in kept for sample in todo[category]])

    def now(category: str) -> str:
        return fingerprint(todo[category], category_references(dataset, category, method.k_shot, config.seed))

    return {
        category: samples
        for category, samples in todo.items()
        if category not in kept or kept[category].fingerprint != now(category)
    }
