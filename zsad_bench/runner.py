"""One job: a config -> a result file per category."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from zsad_bench import console
from zsad_bench.batching import limited
from zsad_bench.config import CONFIG_MODULE, identity, without_seed
from zsad_bench.data import Dataset, Sample
from zsad_bench.encoder import ClipEncoder, shared_encoder
from zsad_bench.evaluation import fingerprint
from zsad_bench.evaluator import EvaluationOptions, Evaluator
from zsad_bench.method import Method
from zsad_bench.plugins import build
from zsad_bench.results import JobFolder, JobInfo
from zsad_bench.sheets import write_maps, write_worst
from zsad_bench.weights import local_weights_sha256, native_image_size


def build_encoder(config: DictConfig) -> ClipEncoder:
    """The encoder of a job, shared by all jobs of this process that ask for the same one."""
    options = cast(dict[str, Any], OmegaConf.to_container(config.encoder, resolve=True))
    return shared_encoder(**options)


def dataset_label(dataset: Dataset) -> str:
    """What rows call the dataset: its name, unless that is a published name and the categories are others.

    Any MVTec-style folder can be read with ``dataset=mvtec``; its numbers must not pass for those of MVTec AD. They get
    the root folder's name, or whatever ``dataset.name`` says.
    """
    genuine = all(dataset.has_class_name(category) for category in dataset.categories)
    return dataset.name if genuine or dataset.name not in bundled_dataset_names() else dataset.root.resolve().name


@lru_cache(maxsize=1)
def bundled_dataset_names() -> frozenset[str]:
    """Names that the YAML files in ``conf/dataset`` give."""
    folder = resources.files(CONFIG_MODULE) / "dataset"
    texts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return frozenset(str(OmegaConf.select(OmegaConf.create(text), "name")) for text in texts)


def describe(config: DictConfig, method: Method, dataset: Dataset) -> JobInfo:
    """The columns that identify a job's rows; nothing of the encoder is loaded."""
    protocol = [dataset.protocol]
    if config.dataset.get("categories") is not None:
        protocol.append(f"categories {'+'.join(dataset.categories)}")
    protocol += [f"{key} {config[key]}" for key in ("limit", "evaluation_size") if config[key] is not None]
    model, pretrained = config.encoder.model, config.encoder.pretrained
    return JobInfo(
        method=method.name,
        variant=method.variant,
        setting=method.setting,
        dataset=dataset_label(dataset),
        protocol=", ".join(protocol),
        encoder=Path(model).stem if model.endswith(".json") else model,
        pretrained="random" if pretrained is None else Path(pretrained).name,
        image_size=config.encoder.image_size or native_image_size(model),
        batch_size=config.batch_size,
        seed=config.seed,
        config_hash=identity(config, dataset.categories, local_weights_sha256(pretrained)),
        categories=dataset.categories,
        series=identity(without_seed(config), dataset.categories, local_weights_sha256(pretrained)),
    )


def run_job(config: DictConfig, run_folder: Path) -> JobFolder:
    """Evaluate every category that is not finished yet.

    Raises:
        UserError: a mistake in data, config or environment. Finished categories are kept.
    """
    dataset = build(config.dataset, Dataset, "dataset")  # type: ignore[type-abstract]
    method = build(config.method, Method, "method")  # type: ignore[type-abstract]
    folder = JobFolder(run_folder, describe(config, method, dataset))
    folder.start(OmegaConf.to_yaml(config, resolve=True))
    todo = _unfinished(config, dataset, folder)
    if not todo:
        console.err.print(f"{folder.path.name}: finished already; overwrite=always computes it again", style="dim")
        return folder
    encoder = build_encoder(config)
    if encoder.weights.path is None:
        console.warn(
            "encoder.pretrained=null: the weights are random. The numbers mean nothing; "
            "they only show that the pipeline runs."
        )
    options = EvaluationOptions(
        config.batch_size, config.seed, config.evaluation_size, config.sweep200, config.on_error == "skip"
    )
    evaluator = Evaluator(dataset, method, encoder, options)
    with console.progress() as bar:
        task = bar.add_task(folder.info.folder, total=sum(len(samples) for samples in todo.values()))
        for category, samples in todo.items():
            bar.update(task, description=f"{method.name} {dataset.name}/{category}")
            output = evaluator.evaluate(category, samples, advance=lambda count: bar.advance(task, count))
            write_maps(
                folder.path / "maps", category, dataset, output.samples, output.maps, config.maps, encoder.geometry
            )
            if config.maps != "none":
                scores = {image.image_id: image.score for image in output.result.images}
                write_worst(
                    folder.path / "maps", category, dataset, output.samples, output.maps, scores, encoder.geometry
                )
            folder.save(output.result, output.summary)
    return folder


def _unfinished(config: DictConfig, dataset: Dataset, folder: JobFolder) -> dict[str, list[Sample]]:
    """Categories to evaluate: all of them, or those without a result for today's files."""
    todo = {category: limited(dataset.samples(category), config.limit) for category in dataset.categories}
    if config.overwrite == "always":
        return todo
    finished = {category: folder.load(category) for category in todo}
    return {
        category: samples
        for category, samples in todo.items()
        if (kept := finished[category]) is None or kept.fingerprint != fingerprint(samples)
    }
