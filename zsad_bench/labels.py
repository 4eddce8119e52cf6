"""What rows call a dataset."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from omegaconf import OmegaConf

from zsad_bench.config import CONFIG_MODULE
from zsad_bench.data import Dataset


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
