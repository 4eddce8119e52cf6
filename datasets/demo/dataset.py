"""The bundled demo: procedural inspection photos, rendered once from a seed and kept as PNG in MVTec layout."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Unpack

from PIL import Image
from rich.console import Console
from rich.progress import track

from zsad_bench.contract import DatasetOptions, Index
from zsad_bench.core.checksums import file_sha256
from zsad_bench.core.errors import UserError

from ..mvtec import MVTec
from .procedural import AUXILIARY, CLASS_NAMES, EVALUATION, TEXTURES, VERSION, plan, render

MANIFEST = "demo.json"
# Train images get numbers that no test image has, so the two never show the same scene.
FIRST_TRAIN_INDEX = 1000


@dataclass(frozen=True)
class Recipe:
    """Everything the rendered files depend on."""

    categories: str
    seed: int
    n_normal: int
    n_anomalous: int
    n_train: int
    size: int
    version: int = VERSION


@dataclass(frozen=True)
class Shot:
    """One image to render; paths are relative to the root."""

    category: str
    index: int
    defect: str | None
    image: str
    mask: str | None


class Demo(MVTec):
    """Renders what is missing when it is first used; afterwards it is an ordinary folder in MVTec layout.

    Args beyond those of :class:`~zsad_bench.contract.Dataset`, whose ``root`` says where the PNG files are kept:
        group: ``evaluation`` (what methods are measured on) or ``auxiliary`` (what the demo encoder was trained on).
        seed: draws every scene.
        n_normal: normal test images per category.
        n_anomalous: anomalous test images per category; the defect types take turns.
        n_train: normal training images per category.
        size: side in pixels.
    """

    def __init__(
        self,
        *,
        group: str = "evaluation",
        seed: int = 0,
        n_normal: int = 18,
        n_anomalous: int = 22,
        n_train: int = 4,
        size: int = 224,
        **options: Unpack[DatasetOptions],
    ) -> None:
        if group not in ("evaluation", "auxiliary"):
            raise UserError(f"dataset.group={group}: choose evaluation or auxiliary")
        if min(n_normal, n_anomalous, n_train) < 0 or n_normal + n_anomalous < 1 or size < 32:
            raise UserError("dataset: n_normal, n_anomalous and n_train must not be negative, size at least 32 pixels")
        options.setdefault("name", "demo")
        options["class_names"] = CLASS_NAMES
        options["textures"] = sorted(TEXTURES)
        super().__init__(**options)
        self.recipe = Recipe(group, seed, n_normal, n_anomalous, n_train, size)

    def _require_root(self) -> None:
        ensure_rendered(self.root, self.recipe)

    def _index(self) -> Index:
        index = super()._index()
        index.problems = [problem for problem in index.problems if problem.path != MANIFEST]
        return index


def shots(recipe: Recipe) -> list[Shot]:
    """Every image of a demo dataset, in a fixed order."""
    found = []
    for category in EVALUATION if recipe.categories == "evaluation" else AUXILIARY:
        for index, defect in plan(category, recipe.n_normal, recipe.n_anomalous, recipe.seed):
            kind = defect or "good"
            mask = f"{category}/ground_truth/{kind}/{index:03}_mask.png" if defect else None
            found.append(Shot(category, index, defect, f"{category}/test/{kind}/{index:03}.png", mask))
        found += [
            Shot(category, FIRST_TRAIN_INDEX + number, None, f"{category}/train/good/{number:03}.png", None)
            for number in range(recipe.n_train)
        ]
    return found


def ensure_rendered(root: Path, recipe: Recipe) -> None:
    """Make ``root`` hold exactly the images of ``recipe``: render all, render damaged ones again, or do nothing.

    A new dataset is rendered beside ``root`` and moved there in one step, so that an interruption leaves nothing half
    done and of two processes that render at once one wins and both end with a good copy.

    Raises:
        UserError: ``root`` holds something else, or cannot be written.
    """
    try:
        if root.exists() and not (root / MANIFEST).exists() and any(root.iterdir()):
            raise UserError(f"dataset.root={root}: holds other files; give an empty or new folder for the demo dataset")
        hashes = _read_manifest(root, recipe)
        if hashes is None:
            _render_new(root, recipe)
        else:
            _repair(root, recipe, hashes)
    except OSError as error:
        raise UserError(
            f"dataset.root={root}: cannot be written ({error.strerror}); "
            "set dataset.root or ZSAD_DATA to a folder that can"
        ) from None


def _read_manifest(root: Path, recipe: Recipe) -> dict[str, str] | None:
    """File -> SHA-256, or None if there is no manifest of this recipe."""
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        return dict(manifest["files"]) if manifest["recipe"] == asdict(recipe) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _render_new(root: Path, recipe: Recipe) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        fresh = Path(temporary) / "fresh"
        hashes = _render(fresh, recipe, shots(recipe))
        content = {"recipe": asdict(recipe), "files": hashes}
        (fresh / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if root.exists() and not _is_complete(root, recipe):
            root.replace(Path(temporary) / "old")
        try:
            fresh.replace(root)
        except OSError:
            if not _is_complete(root, recipe):  # another process was faster: its copy is as good
                raise


def _is_complete(root: Path, recipe: Recipe) -> bool:
    hashes = _read_manifest(root, recipe)
    return hashes is not None and not _damaged(root, hashes)


def _damaged(root: Path, hashes: dict[str, str]) -> list[str]:
    return [name for name, sha256 in hashes.items() if _sha256(root / name) != sha256]


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _repair(root: Path, recipe: Recipe, hashes: dict[str, str]) -> None:
    damaged = set(_damaged(root, hashes))
    if not damaged:
        return
    Console(stderr=True).print(
        f"{root}: {len(damaged)} files are damaged or missing and are rendered again", style="yellow"
    )
    affected = [shot for shot in shots(recipe) if {shot.image, shot.mask} & damaged]
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        for name in _render(Path(temporary), recipe, affected):
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(temporary) / name).replace(target)


def _render(folder: Path, recipe: Recipe, wanted: Sequence[Shot]) -> dict[str, str]:
    """Render shots into a folder on all cores; returns file -> SHA-256 in a fixed order."""
    place = folder.absolute()  # workers of an earlier call may have started in another folder
    import joblib  # not needed where everything is rendered already

    jobs = (joblib.delayed(_render_one)(place, recipe, shot) for shot in wanted)
    results: Iterable[dict[str, str]] = joblib.Parallel(n_jobs=os.cpu_count(), return_as="generator")(jobs)
    console = Console(stderr=True)
    shown = track(results, "rendering the demo dataset", total=len(wanted), console=console, transient=True)
    return {name: sha256 for result in shown for name, sha256 in result.items()}


def _render_one(folder: Path, recipe: Recipe, shot: Shot) -> dict[str, str]:
    rendering = render(shot.category, shot.index, defect=shot.defect, seed=recipe.seed, size=recipe.size)
    written = {shot.image: Image.fromarray(rendering.image)}
    if shot.mask is not None:
        written[shot.mask] = Image.fromarray(rendering.mask.astype("uint8") * 255)
    for name, image in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return {name: _sha256(folder / name) for name in written}
