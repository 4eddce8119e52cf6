"""``dataset=auto``: which layout, and which dataset, does a folder hold?

Layouts are tried from the most to the least particular one. A folder gets the name of a published dataset only if
nothing else looks like it: a layout of its own, or in MVTec style exactly the published categories. Otherwise rows
carry the folder's name (``mvtec-copy`` for a folder called mvtec), so that nobody's own photos pass for a benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from zsad_bench.contract import Dataset
from zsad_bench.core.errors import UserError
from zsad_bench.data.folders import innermost
from zsad_bench.engine.dataset_card import cards, dataset_at
from zsad_bench.engine.dataset_names import own_name

from .mvtec import is_category
from .original_or_copy import Published
from .reading.layout import list_folder

# Layouts that belong to one dataset, in the order in which they are tried.
_OWN_LAYOUT = (
    *("visa", "real_iad", "mvtec_ad2"),
    *("dagm", "ksdd", "ksdd2", "rsdd", "gc10", "bsd", "msd", "crackforest", "magnetic_tile", "neu_seg"),
    *("elpv", "headct", "isic", "tn3k", "deepcrack"),
)
# Layouts that several datasets share: the categories decide.
_MVTEC_STYLE = ("mvtec", "visa_converted", "btad", "mpdd", "dtd_synthetic")
_UNITED_MASKS = "mvtec_loco"
# no/ and yes/ alone do not tell BrainMRI from Br35H: its layout, but the folder's name.
_YES_NO = "brainmri"


def auto(
    *,
    root: str | Path,
    name: str | None = None,
    categories: Sequence[str] | None = None,
    protocol: str | None = None,
    mask_threshold: int | None = None,
    fast_jpeg: bool = False,
    class_names: Mapping[str, str] | None = None,
    textures: Sequence[str] = (),
    title: str = "",
) -> Dataset:
    """The dataset that a folder holds; says on the error stream what it took it for.

    Args:
        root: the folder, or one that holds it alone.
        name, protocol, mask_threshold: None takes those of the dataset that is recognised.
        categories, fast_jpeg: as for :class:`~zsad_bench.contract.Dataset`.
        class_names, textures: replace or add to those of the dataset that is recognised.
        title: not used; every dataset has this key.

    Raises:
        UserError: the folder does not exist or cannot be listed, or the options do not fit what was recognised.
    """
    given = Path(root).expanduser()
    if not given.is_dir():
        raise UserError(f"dataset.root: the folder {given.absolute()} does not exist; set dataset.root=<folder>")
    candidates = {key: dataset_at(key, given) for key in (*_OWN_LAYOUT, _UNITED_MASKS, _YES_NO)}
    # Particular layouts first: a folder that holds one, such as <folder>/train, may look like MVTec style itself.
    folder = innermost(given, lambda place: _particular(place, candidates) is not None)
    if _particular(folder, candidates) is None:
        folder = innermost(given, lambda place: _shared(place, candidates) is not None)
    key, is_known = _particular(folder, candidates) or _shared(folder, candidates) or ("folder", False)
    card = cards()[key]
    changes: dict[str, object] = {"categories": categories, "fast_jpeg": fast_jpeg}
    changes["name"] = name or (card.name if is_known else own_name(folder))
    if is_known:
        changes["class_names"] = {**card.class_names, **(class_names or {})}
        changes["textures"] = sorted({*card.textures, *textures})
    else:
        changes |= {"class_names": dict(class_names or {}), "textures": list(textures), "expected": {}}
        changes |= {"title": str(changes["name"]), "page": "", "citation": "", "licence": "", "about": {}}
    changes |= {k: v for k, v in {"protocol": protocol, "mask_threshold": mask_threshold}.items() if v is not None}
    what = card.title if is_known else "a folder of this layout"
    message = f"{folder}: taken for {what} ({card.about.layout}), as with dataset={key}"
    Console(stderr=True, highlight=False).print(Text(message), soft_wrap=True)
    return dataset_at(key, folder, **changes)


def _particular(root: Path, candidates: Mapping[str, Dataset]) -> tuple[str, bool] | None:
    """(name of the YAML, is it that published dataset) for a layout that means one dataset, or a meta.json."""
    if (root / "meta.json").is_file():
        return "meta_json", False
    for key in _OWN_LAYOUT:
        if _begins_here(candidates[key], root):
            return key, True
    return None


def _shared(root: Path, candidates: Mapping[str, Dataset]) -> tuple[str, bool] | None:
    """As :func:`_particular` for layouts that many datasets have; None for none of them."""
    found = {folder.name for folder in list_folder(root).folders if is_category(list_folder(folder))}
    if found and _begins_here(candidates[_UNITED_MASKS], root):
        return _UNITED_MASKS, found == set(cards()[_UNITED_MASKS].categories)
    if found:
        known = [key for key in _MVTEC_STYLE if found == set(cards()[key].categories)]
        return (known[0], True) if known else ("mvtec", False)
    return (_YES_NO, False) if _begins_here(candidates[_YES_NO], root) else None


def _begins_here(dataset: Dataset, root: Path) -> bool:
    return dataset.is_original(root) if isinstance(dataset, Published) else dataset.recognises(root)
