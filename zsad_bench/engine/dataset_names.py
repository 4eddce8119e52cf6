"""What rows call a dataset."""

from __future__ import annotations

from pathlib import Path

from zsad_bench.contract import Dataset
from zsad_bench.engine.dataset_card import Card, cards


def dataset_label(dataset: Dataset) -> str:
    """What rows call the dataset: its name, unless that is a published name and the categories are others.

    Any MVTec-style folder can be read with ``dataset=mvtec``; its numbers must not pass for those of MVTec AD, whatever
    nouns ``dataset.class_names`` gives to its categories. They get :func:`own_name`, or whatever ``dataset.name`` says.
    """
    same_name = _cards_named(dataset.name)
    published = {category for card in same_name for category in card.class_names}
    genuine = all(
        dataset.has_class_name(category) and (category in published or not published) for category in dataset.categories
    )
    return dataset.name if genuine or not same_name else own_name(dataset.root)


def lacks_categories(dataset: Dataset) -> bool:
    """True for a published dataset of which fewer categories are read than it has: its mean is another number."""
    return any(len(dataset.categories) < len(card.categories) for card in _cards_named(dataset_label(dataset)))


def own_name(folder: Path) -> str:
    """The name of a folder, with ``-copy`` behind it where a published dataset is called so."""
    name = folder.resolve().name or "images"
    return f"{name}-copy" if _cards_named(name) else name


def _cards_named(name: str) -> list[Card]:
    return [card for card in cards().values() if card.name == name]
