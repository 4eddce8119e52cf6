"""One job: a config -> a result file per category. What is finished already is recognised without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from zsad_bench.config.plugins import build, is_bundled
from zsad_bench.contract import Dataset, Sample
from zsad_bench.core import console
from zsad_bench.core.checksums import index
from zsad_bench.engine.batches import category_references, limited
from zsad_bench.engine.describe import describe, stamp
from zsad_bench.engine.identity import fingerprint, identity, read_files_ahead
from zsad_bench.engine.shards import Shard
from zsad_bench.results.files import JobFolder, find_job
from zsad_bench.results.rows import JobInfo

if TYPE_CHECKING:
    from zsad_bench.contract import FeatureRequest, Method


def run_job(
    config: DictConfig,
    run_folder: Path,
    show_progress: bool = True,
    wanted: Callable[[DictConfig], FeatureRequest | None] = lambda _: None,
) -> JobFolder:
    """Evaluate every category that is not finished yet.

    Args:
        config: of the job.
        run_folder: results folder of the command.
        show_progress: bars on the error stream; processes that share a terminal cannot all draw there.
        wanted: tells what the jobs of the same sweep ask of the images together, to be encoded in the same pass.

    Raises:
        UserError: a mistake in data, config or environment. Finished categories are kept.
    """
    dataset = build(config.dataset, Dataset, "dataset")
    method = cache(partial(_method, config))
    folder = JobFolder(run_folder, _info(config, dataset, run_folder, method))
    if config.overwrite == "never":
        folder.require_started()
        return folder
    folder.start(OmegaConf.to_yaml(config, resolve=True))
    todo = _unfinished(config, dataset, folder, method)
    if not todo:
        console.err.print(f"{folder.path.name}: finished already; overwrite=always computes it again", style="dim")
        return folder
    from zsad_bench.engine.compute import compute_categories

    compute_categories(config, dataset, method(), folder, todo, show_progress, wanted(config))
    index().save()
    return folder


def _info(config: DictConfig, dataset: Dataset, run_folder: Path, method: Callable[[], Method]) -> JobInfo:
    """The columns of the job, as an earlier run of it wrote them if nothing that they are made from has changed."""
    known = find_job(run_folder, identity(config, dataset.categories))
    if known is not None and known.stamp == stamp(config):
        return replace(known, superseded=False)
    return describe(config, method(), dataset)


def _method(config: DictConfig) -> Method:
    from zsad_bench.contract import Method

    return build(config.method, Method, "method")


def _unfinished(
    config: DictConfig, dataset: Dataset, folder: JobFolder, method: Callable[[], Method]
) -> dict[str, list[Sample]]:
    """Categories to evaluate: all of them, or those without a result for the files as they are now."""
    mine = Shard.parse(config.shard).categories(dataset.categories) if config.shard else dataset.categories
    todo = {category: limited(dataset.samples(category), config.limit) for category in mine}
    if config.overwrite == "always":
        return todo
    kept = {category: result for category in todo if (result := folder.load(category)) is not None}
    if not kept:
        return todo
    with console.status("looking whether photos have changed"):
        read_files_ahead([sample for category in kept for sample in todo[category]])
    k_shot = int(config.method.get("k_shot") or 0) if is_bundled(config.method) else method().k_shot

    def now(category: str) -> str:
        return fingerprint(todo[category], category_references(dataset, category, k_shot, config.seed))

    return {
        category: samples
        for category, samples in todo.items()
        if category not in kept or kept[category].fingerprint != now(category)
    }
