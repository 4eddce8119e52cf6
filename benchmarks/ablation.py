"""What the parts of the batch methods contribute: components, choices, batch sizes, share of anomalous images, pairs.

    python benchmarks/ablation.py --dataset demo --tables components --into docs/methods/fiseclip.md
    python benchmarks/ablation.py --dataset mvtec --root <folder> --model <config.json> --pretrained <weights>

Every image is encoded once; all variants and batch compositions work on the cached features, and each variant of a
table sees the same batches. A table shows means over categories and seeds in percent and, in brackets, the difference
from its first row with the standard error over (category, seed). ``--into`` puts a table in place of the one between
the comments ``<!-- begin NAME -->`` and ``<!-- end -->`` of a page, where NAME is ``<table> <dataset>``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from variants import TABLES, Variant

from zsad_bench import load_dataset, load_encoder, load_method
from zsad_bench.api import Value
from zsad_bench.contract import Dataset, FeatureBatch, FeatureRequest, Method, Prediction, Sample, TextFeatures
from zsad_bench.core.seeds import named_seed
from zsad_bench.data.geometry import image_to_array
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.engine.batches import compose_batches, limited, shuffled
from zsad_bench.engine.measure import read_masks
from zsad_bench.metrics import image_metrics, pixel_metrics
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.toolkit.maps import resize_maps

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
DEMO = "pkg://zsad_bench/demo_encoder/demo_clip"


@dataclass(frozen=True)
class Category:
    """Everything about one category, encoded."""

    name: str
    samples: list[Sample]
    features: FeatureBatch
    labels: np.ndarray
    masks: np.ndarray
    texts: dict[str, TextFeatures]

    def batch(self, images: Sequence[int]) -> FeatureBatch:
        """The features of some images, with their pixels for methods that adapt."""
        return self.features.select(images)


def ready(variant: Variant, encoder: ClipEncoder, seed: int = 0) -> Method:
    """The plugin of a row, attached to the encoder."""
    method = load_method(variant.method, encoder=encoder, **variant.keys).method
    method.attach(encoder.spec, seed)
    return method


def encode_category(
    dataset: Dataset, name: str, samples: list[Sample], encoder: ClipEncoder, request: FeatureRequest, prompts: set[str]
) -> Category:
    """Read and encode the images of a category, 32 at a time."""
    parts, pixels = [], []
    for first in range(0, len(samples), 32):
        chosen = samples[first : first + 32]
        arrays = np.stack([image_to_array(dataset.read_image(sample), encoder.geometry) for sample in chosen])
        pixels.append(encoder.normalise(arrays))
        parts.append(encoder.encode(pixels[-1], request, [sample.image_id for sample in chosen]))
    masks = read_masks(dataset, samples, encoder.geometry)
    if any(mask is None for mask in masks):
        raise SystemExit(f"{name}: an anomalous image has no mask")
    return Category(
        name=name,
        samples=samples,
        features=replace(FeatureBatch.concatenate(parts), pixels=torch.cat(pixels), encode=encoder.encode),
        labels=np.array([sample.label for sample in samples]),
        masks=np.stack([mask for mask in masks if mask is not None]),
        texts={
            prompt: encoder.texts.features(load_ensemble(prompt), dataset.class_name(name), dataset.is_texture(name))
            for prompt in prompts
        },
    )


@dataclass(frozen=True)
class Together:
    """Images that a method sees together, by their number; the first ``n_new`` are scored here."""

    images: np.ndarray
    n_new: int


def in_batches(samples: Sequence[Sample], size: int | str, seed: int) -> list[Together]:
    """Batches of a category by the protocol: in random order, a short last one filled."""
    number = {sample.image_id: position for position, sample in enumerate(samples)}
    return [
        Together(np.array([number[sample.image_id] for sample in batch.samples]), batch.n_new)
        for batch in compose_batches(shuffled(samples, seed), size, seed)
    ]


def composed(labels: np.ndarray, size: int, share: float, n_batches: int, seed: int) -> list[Together]:
    """Batches with a fixed share of anomalous images; an image can be in several batches."""
    random = np.random.default_rng(seed)
    anomalous, normal = (np.flatnonzero(labels == label) for label in (1, 0))
    n_anomalous = round(size * share)
    drawn = [
        np.concatenate([random.permutation(anomalous)[:n_anomalous], random.permutation(normal)[: size - n_anomalous]])
        for _ in range(n_batches)
    ]
    return [Together(images, len(images)) for images in drawn]


def measure(method: Method, category: Category, batches: Sequence[Together], size: int) -> dict[str, float]:
    """Metrics of a category over all its batches together, maps and masks at ``size`` pixels."""
    method.prepare(category.texts[method.prompts] if method.prompts else None)
    predictions: list[Prediction] = [method.predict(category.batch(batch.images.tolist())) for batch in batches]
    pairs = list(zip(predictions, batches, strict=True))
    scores = torch.cat([prediction.scores[: batch.n_new] for prediction, batch in pairs]).numpy()
    maps = torch.cat([prediction.maps[: batch.n_new] for prediction, batch in pairs]).numpy()
    images = np.concatenate([batch.images[: batch.n_new] for batch in batches])
    step = category.masks.shape[1] // size
    masks = category.masks[images][:, ::step, ::step]
    values = {**image_metrics(category.labels[images], scores), **pixel_metrics(masks, resize_maps(maps, size))}
    return {metric: values[metric] for metric in METRICS}


Row = dict[str, str | int | float]


def measure_table(
    variants: Sequence[Variant],
    categories: Sequence[Category],
    encoder: ClipEncoder,
    seeds: Sequence[int],
    compositions: Mapping[str, Mapping[tuple[str, int], list[Together]]],
    size: int,
) -> list[Row]:
    """All measured rows of a table: one per composition, variant, category and seed."""
    rows: list[Row] = []
    for composition, batches in compositions.items():
        for variant in variants:
            for category in categories:
                for seed in seeds:
                    measured = measure(ready(variant, encoder, seed), category, batches[category.name, seed], size)
                    about = {"composition": composition, "variant": variant.label}
                    rows.append({**about, "category": category.name, "seed": seed, **measured})
            print(f"  {composition}: {variant.label}", file=sys.stderr, flush=True)
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table of :func:`measure_table`'s rows: means in percent and differences from the first variant."""
    frame = pd.DataFrame(rows)
    several = frame["composition"].nunique() > 1
    header = [*(["batches"] if several else []), "", *(metric.replace("_", " ") for metric in METRICS)]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for composition, block in frame.groupby("composition", sort=False):
        groups = dict(list(block.groupby("variant", sort=False)))
        baseline = 100 * next(iter(groups.values()))[list(METRICS)].to_numpy()
        for position, (label, group) in enumerate(groups.items()):
            found = 100 * group[list(METRICS)].to_numpy()
            cells = [f"{value:.1f}" for value in found.mean(axis=0)]
            if position:
                gain = found - baseline
                errors = [""] * len(METRICS)  # one measurement tells nothing about its error
                if len(gain) > 1:
                    errors = [f" ± {error:.1f}" for error in gain.std(axis=0, ddof=1) / len(gain) ** 0.5]
                changes = zip(cells, gain.mean(axis=0), errors, strict=True)
                cells = [f"{cell} ({change:+.1f}{error})" for cell, change, error in changes]
            lines.append(f"| {' | '.join([*([str(composition)] if several else []), str(label), *cells])} |")
    return "\n".join(lines)


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- begin NAME -->`` and ``<!-- end -->``; SystemExit if nothing does."""
    content = page.read_text("utf-8")
    before, begin, rest = content.partition(f"<!-- begin {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not begin or not end:
        raise SystemExit(f"{page}: no place marked <!-- begin {name} --> ... <!-- end -->")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", "utf-8")


def compositions_of(
    name: str, categories: Sequence[Category], options: argparse.Namespace
) -> dict[str, dict[tuple[str, int], list[Together]]]:
    """The batches of every block of a table."""

    def random_order(size: int | str) -> dict[tuple[str, int], list[Together]]:
        return {
            (category.name, seed): in_batches(category.samples, size, named_seed(seed, category.name))
            for category in categories
            for seed in options.seeds
        }

    def with_share(share: float) -> dict[tuple[str, int], list[Together]]:
        return {
            (category.name, seed): composed(
                category.labels, options.batch_size, share, options.batches, named_seed(seed, category.name)
            )
            for category in categories
            for seed in options.seeds
        }

    if name == "sizes":
        return {f"batch size {size}": random_order(size) for size in (2, 4, 8, 16, 32, "all")}
    if name == "shares":
        return {f"{share:.0%} anomalous": with_share(share) for share in options.shares}
    return {f"batch size {options.batch_size}": random_order(options.batch_size)}


def main() -> None:
    """Parse the command line, encode, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=sorted(TABLES), default=["components"])
    parser.add_argument("--dataset", default="demo", help="a conf/dataset name")
    parser.add_argument("--root", help="folder of the dataset")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="further dataset keys")
    parser.add_argument("--model", default=f"{DEMO}.json")
    parser.add_argument("--pretrained", default=f"{DEMO}.safetensors")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--limit", type=int, help="at most so many images a category, half of them anomalous")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4, help="batches per category, seed and share")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluation-size", type=int, help="side of maps and masks; a divisor of the input size")
    parser.add_argument("--label", help="what the tables call the dataset; its name if not given")
    parser.add_argument("--into", type=Path, help="a page of docs whose tables are replaced")
    parser.add_argument("--csv", type=Path, help="where to write every value")
    options = parser.parse_args()

    encoder = load_encoder(options.model, options.pretrained, precision=options.precision)
    keys: dict[str, Value] = {key: int(value) for key, value in (text.split("=", 1) for text in options.set)}
    dataset = load_dataset(options.dataset, **keys, **({"root": options.root} if options.root else {}))
    variants = [variant for name in options.tables for variant in TABLES[name]]
    methods = [ready(variant, encoder) for variant in variants]
    taps = tuple(dict.fromkeys(tap for method in methods for tap in method.request().taps))
    prompts = {method.prompts for method in methods if method.prompts}
    categories = []
    for name in dataset.categories:
        samples = limited(dataset.samples(name), options.limit)
        categories.append(encode_category(dataset, name, samples, encoder, FeatureRequest(taps=taps), prompts))
        print(f"encoded {name}: {len(samples)} images", file=sys.stderr, flush=True)
    size = options.evaluation_size or encoder.geometry.size
    kept: list[Row] = []
    for name in options.tables:
        rows = measure_table(
            TABLES[name], categories, encoder, options.seeds, compositions_of(name, categories, options), size
        )
        title = f"{name} {options.label or options.dataset}"
        print(f"\n{title}\n\n{markdown(rows)}", flush=True)
        if options.into:
            put_into(options.into, title, markdown(rows))
        kept += [{"table": name, **row} for row in rows]
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(kept).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
