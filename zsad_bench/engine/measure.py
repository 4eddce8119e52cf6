"""From scores and maps of one category to its metrics, with a reason for everything that is left out or undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.spooled import Chosen, Masks
from zsad_bench.data.geometry import Geometry
from zsad_bench.engine.looked_at import small_mask
from zsad_bench.metrics.areas import SortedAreas
from zsad_bench.metrics.exact import area_metrics, image_metrics, undefined_reasons
from zsad_bench.metrics.units import OBJECTS_NOTE, units_of
from zsad_bench.statistics.histograms import PixelSummary, summarise_areas

Evaluated = tuple[dict[str, float], list[str]]


def evaluate_images(samples: Sequence[Sample], scores: NDArray[np.float32]) -> Evaluated:
    """Image-level metrics over the labelled units of :func:`units_of`; all NaN unless both classes are present.

    With one class only AUROC has no value, and AP and F1-max are 1 or 0 whatever the method does, so none is reported.
    """
    units = units_of(samples, scores)
    labels, unknown = units.truth, len(units) - len(units.labelled)
    unit = "object" if units.form_objects else "image"
    notes = []
    if len(labels) and unknown:
        notes.append(f"{unknown} {unit}s without a label left out of image metrics")
    if units.form_objects:
        notes.append(f"image metrics over {len(labels)} objects, {OBJECTS_NOTE}")
    if len(set(labels.tolist())) == 2:
        return image_metrics(labels, units.scores[units.labelled]), notes
    reason = "no labels" if not len(labels) else f"no anomalous {unit}" if not labels.any() else f"no normal {unit}"
    return dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), math.nan), [
        *notes,
        f"image metrics undefined: {reason}",
    ]


def read_masks(dataset: Dataset, samples: Sequence[Sample], geometry: Geometry, folder: Path | None = None) -> Masks:
    """Per sample the mask at the map's size, None where there is none. Raises UserError for a mask of another size."""
    masks = Masks(geometry.size, folder)
    for sample in samples:
        masks.append(small_mask(dataset, sample, geometry))
    return masks


@dataclass(frozen=True)
class MeasuredPixels:
    """Pixel metrics of a category, what must be said of them, and its histograms (None without an anomalous pixel)."""

    metrics: dict[str, float]
    notes: list[str]
    summary: PixelSummary | None


def evaluate_pixels(
    samples: Sequence[Sample],
    masks: Sequence[NDArray[np.bool_] | None],
    maps: Sequence[NDArray[np.float32]],
    sweep200: bool,
    folder: Path | None = None,
) -> MeasuredPixels:
    """Pixel-level metrics and histograms over all images with known pixels, normal images included.

    An anomalous image without a mask file is left out: counting its pixels as normal would punish a right answer.
    Masks and maps are read one by one; ``folder`` is where scores that are too many for memory lie meanwhile.
    """
    marked = [None if mask is None else bool(mask.any()) for mask in masks]
    known = [index for index, any_pixel in enumerate(marked) if any_pixel is not None]
    labels = [sample.label for sample in samples]
    without = sum(label == 1 and any_pixel is None for label, any_pixel in zip(labels, marked, strict=True))
    notes = [f"{without} anomalous images without a mask left out of pixel metrics"] if without else []
    names = ["pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro", *(["pixel_aupro_sweep200"] if sweep200 else [])]
    if not any(marked):
        reason = "no anomalous pixel in any mask" if known else "no masks"
        undefined = [*notes, f"pixel metrics undefined: {reason}"]
        return MeasuredPixels(dict.fromkeys(names, math.nan), undefined, None)
    truth = Chosen(masks, known)
    areas = SortedAreas(truth, Chosen(maps, known), folder)
    metrics = area_metrics(areas, sweep200, folder)
    summary = summarise_areas([samples[index].image_id for index in known], areas)
    vanished = sum(label == 1 and any_pixel is False for label, any_pixel in zip(labels, marked, strict=True))
    if vanished:
        notes.append(f"{vanished} anomalous images have an empty mask at the size of evaluation")
    notes += [f"{name} undefined: {why}" for name, why in undefined_reasons(metrics, truth).items()]
    return MeasuredPixels(metrics, notes, summary)
