"""Zero-shot quality of a demo encoder on the evaluation categories."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from demo_model import GRID, Forward, patchify
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from scipy import ndimage
from torch import Tensor

from zsad_bench.datasets.demo.procedural import CLASS_NAMES, EVALUATION, EVALUATION_ONLY_DEFECTS, VERSION, plan, render

DATASET_SEEDS = (0, 1, 2)
PER_STATE = 20
_STATES = (
    ("{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage"),
    ("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
)
_TEMPLATES = (
    "a photo of a {}.", "a photo of the {}.", "a cropped photo of the {}.", "a cropped photo of a {}.",
    "a close-up photo of a {}.", "a close-up photo of the {}.", "a bright photo of a {}.", "a bright photo of the {}.",
    "a dark photo of the {}.", "a dark photo of a {}.", "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.", "a blurry photo of the {}.", "a blurry photo of a {}.",
    "a photo of a small {}.", "a photo of the small {}.", "a photo of a large {}.", "a photo of the large {}.",
    "a photo of the {} for visual inspection.", "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.", "a photo of a {} for anomaly detection.",
)  # fmt: skip


@dataclass
class TestSet:
    """One category in one style: images uint8 (n, 112, 112, 3), masks bool (n, 224, 224), held_out bool (n,).

    held_out is true where the defect is of a type that is never trained.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    held_out: NDArray[np.bool_]

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.asarray(self.masks.any((1, 2)))


def _rendered(job: tuple[str, int]) -> TestSet:
    category, seed = job
    images, masks, held_out = [], [], []
    for index, defect in plan(category, PER_STATE, PER_STATE, seed):
        rendering = render(category, index, defect=defect, seed=seed)
        images.append(np.asarray(Image.fromarray(rendering.image).resize((112, 112), Image.Resampling.BICUBIC)))
        masks.append(rendering.mask)
        held_out.append(defect in EVALUATION_ONLY_DEFECTS)
    return TestSet(np.stack(images), np.stack(masks), np.array(held_out))


def test_sets(cache: Path, workers: int) -> dict[tuple[str, int], TestSet]:
    """All evaluation sets, rendered once per generator version and kept in `cache`."""
    jobs = [(category, seed) for seed in DATASET_SEEDS for category in EVALUATION]
    cache.mkdir(parents=True, exist_ok=True)
    paths = {job: cache / f"v{VERSION}_{job[0]}_{job[1]}.npz" for job in jobs}
    todo = [job for job in jobs if not paths[job].exists()]
    with ProcessPoolExecutor(workers) as executor:
        for job, made in zip(todo, executor.map(_rendered, todo), strict=True):
            np.savez_compressed(paths[job], images=made.images, masks=made.masks, held_out=made.held_out)
    return {job: TestSet(**np.load(path)) for job, path in paths.items()}


def ranked(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Area under the ROC curve and average precision; ties share their place."""
    order = np.argsort(-scores.ravel(), kind="stable")
    sorted_scores, hits = scores.ravel()[order], labels.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(hits) - 1)
    true, false = np.cumsum(hits)[last].astype(float), np.cumsum(~hits)[last].astype(float)
    roc = np.trapezoid(np.append(0, true), np.append(0, false)) / (true[-1] * false[-1])
    return float(roc), float((np.diff(true, prepend=0) * true / (true + false)).sum() / true[-1])


@torch.no_grad()
def text_direction(model: CLIP, name: str) -> Tensor:
    """Mean abnormal minus mean normal unit text vector (e,) of a class name, with WinCLIP's states and templates."""
    tokenize, forward, means = open_clip.SimpleTokenizer(), Forward(model, torch.float32), []
    for states in _STATES:
        texts = [template.format(state.format(name)) for state in states for template in _TEMPLATES]
        tokens = tokenize(texts)
        # What follows the end token is masked from everything before it: it can be cut off.
        vectors = forward.texts(tokens[:, : int(tokens.argmax(dim=1).max()) + 1])
        means.append(F.normalize(vectors.mean(0), dim=0))
    return means[1] - means[0]


def pixel_map(patches: NDArray[np.floating]) -> NDArray[np.floating]:
    """Patch scores (n, 196) as smooth maps (n, 224, 224)."""
    grid = torch.as_tensor(patches, dtype=torch.float32).view(-1, 1, GRID, GRID)
    full = F.interpolate(grid, size=(224, 224), mode="bilinear", align_corners=False)[:, 0]
    return np.asarray(ndimage.gaussian_filter(full.numpy(), (0, 4, 4)))


def neighbour_scores(states: list[Tensor]) -> NDArray[np.floating]:
    """How far each patch (n, 196) is from its nearest patches in the other images: layers 2 and 3, areas of 1 and 3
    patches, mean of the nearest 30 % of images."""
    total = torch.zeros(states[0].shape[0], GRID * GRID)
    parts = [(layer, side) for layer in (1, 2) for side in (1, 3)]
    for layer, side in parts:
        tokens = states[layer][:, 1:].float()
        n, _, d = tokens.shape
        plane = tokens.transpose(1, 2).reshape(n, d, GRID, GRID)
        plane = F.avg_pool2d(plane, side, 1, side // 2, count_include_pad=False)
        unit = F.normalize(plane.flatten(2).transpose(1, 2), dim=-1)
        for k in range(n):
            others = torch.cat([unit[:k], unit[k + 1 :]])
            nearest = (1 - torch.einsum("td,nsd->nts", unit[k], others)).amin(dim=2)
            total[k] += nearest.sort(dim=0).values[: max(1, round(0.3 * (n - 1)))].mean(0)
    return (total / len(parts)).numpy()


@torch.no_grad()
def evaluate(model: CLIP, sets: dict[tuple[str, int], TestSet], dtype: torch.dtype = torch.bfloat16) -> pd.DataFrame:
    """One row per category and dataset seed with all figures (AUROC and average precision in [0, 1])."""
    forward, rows = Forward(model, dtype), []
    directions = {name: text_direction(model, CLASS_NAMES[name]) for name in dict.fromkeys(name for name, _ in sets)}
    for (category, seed), test in sets.items():
        direction = directions[category]
        states, dual = forward.layers(patchify(test.images), dual=len(test.images))
        tokens = forward.project(states[-1])
        image = (tokens[:, 0] @ direction).numpy()
        assert dual is not None
        plain = (tokens[:, 1:] @ direction).numpy()
        vv = (forward.project(dual[:, 1:]) @ direction).numpy()
        match = neighbour_scores(states)
        maps = {"plain": pixel_map(plain), "vv": pixel_map(vv), "match": pixel_map(match)}
        row: dict[str, object] = {"category": category, "dataset_seed": seed}
        row["image_auroc"], row["image_ap"] = ranked(image, test.labels)
        unseen = ~test.labels | test.held_out
        row["image_auroc_unseen_defects"] = ranked(image[unseen], test.labels[unseen])[0]
        for name, smooth in maps.items():
            row[f"pixel_auroc_{name}"], row[f"pixel_ap_{name}"] = ranked(smooth, test.masks)
        row["image_auroc_match"] = ranked(maps["match"].max((1, 2)), test.labels)[0]
        rows.append(row)
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the dataset seeds per category, with the mean of all categories last."""
    table = frame.groupby("category", sort=False).mean(numeric_only=True).drop(columns="dataset_seed")
    table.loc["mean"] = table.mean()
    return table
