"""The cost model of docs/scaling.md: how long a job takes, from a few constants and counts of arithmetic operations.

    load     images x (a + b megapixels); beside a GPU it goes on while the encoder works
    encode   images x (a + b FLOP of the walk + c FLOP of windows); views are walks
    text     categories x (a + b FLOP of the prompts), once per encoder
    read     images x (a + b bytes), features out of the store
    score    images x (a + b patches), a method's arithmetic on one image
    match    images x (images - 1) / 2 per batch x FLOP of a pair of images
    metrics  per category a + b P log2 P with P = images x pixels of a map, and masks x (a + b megapixels)
    close    per category a + b images: resamples for intervals, pictures, files

Constants are fitted by :mod:`scaling_measure`. The counts are those of a plain ViT: 24 d^2 FLOP per token and block in
linear layers, 4 T d in attention over T tokens; less where the encoder computes the class token alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from zsad_bench.contract import EncoderSpec, FeatureRequest
from zsad_bench.toolkit.matching import TABLE


@dataclass(frozen=True)
class Fit:
    """Seconds as a sum of terms, each a constant >= 0 times a quantity.

    Attributes:
        terms: name of each quantity.
        constants: seconds per unit of each.
        quantities: (points, terms) at which was measured.
        seconds: (points,) measured.
    """

    terms: tuple[str, ...]
    constants: tuple[float, ...]
    quantities: tuple[tuple[float, ...], ...]
    seconds: tuple[float, ...]

    def __call__(self, *quantities: float) -> float:
        """Seconds for given quantities, in the order of the terms."""
        return sum(constant * value for constant, value in zip(self.constants, quantities, strict=True))

    @property
    def deviation(self) -> float:
        """Largest relative deviation of a measured point from the fit."""
        return max(abs(self(*row) / second - 1) for row, second in zip(self.quantities, self.seconds, strict=True))


def fit(terms: Sequence[str], quantities: Sequence[Sequence[float]], seconds: Sequence[float]) -> Fit:
    """Least squares of relative deviations, all constants >= 0."""
    rows, measured = np.asarray(quantities, dtype=float), np.asarray(seconds, dtype=float)
    scale = rows.max(axis=0)
    scale[scale == 0] = 1
    solution, _ = nnls(rows / scale / measured[:, None], np.ones(len(measured)))
    return Fit(
        tuple(terms),
        tuple(float(value) for value in solution / scale),
        tuple(tuple(float(value) for value in row) for row in rows),
        tuple(float(value) for value in measured),
    )


def block_flops(tokens: int, width: int) -> float:
    """FLOP of one sequence through one block; a multiplication and an addition are two."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def class_block_flops(tokens: int, width: int, queries: bool = False) -> float:
    """As :func:`block_flops`, when the class token alone leaves the block.

    Args:
        tokens: of the sequence.
        width: channels.
        queries: whether the queries of all tokens are computed nevertheless, for a surgery stream.
    """
    rows = tokens if queries else 1
    return (4 * tokens + 2 * rows + 18) * width**2 + 4 * tokens * width


def walk_flops(spec: EncoderSpec, request: FeatureRequest) -> float:
    """FLOP per image of the walk over all patches, with surgery streams and projected taps; views are further walks."""
    patches = math.prod(spec.grid)
    tokens, width, last = 1 + patches, spec.width, spec.n_blocks
    taps = request.resolve(last).taps
    surgery: set[tuple[tuple[str, ...], int]] = set()
    for tap in taps:
        if tap.stream is not None:
            restart = tap.stream.restart
            first = tap.block - (tap.block - tap.stream.start) % restart if restart else tap.stream.start
            surgery |= {(tap.stream.attention, block) for block in range(first, tap.block + 1)}
    streams = sum(len(kind) * 4 * tokens**2 * width + 2 * tokens * width**2 for kind, _ in surgery)
    projections = sum(2 * (1 if tap.class_only else tokens) * width * spec.embed_dim for tap in taps if tap.projected)
    below = 6 * patches * spec.patch_size**2 * width + (last - 1) * block_flops(tokens, width)
    whole = any(tap.block == last and tap.stream is None and not tap.class_only for tap in taps)
    queries = any(block == last and "q" in kind for kind, block in surgery)
    end = block_flops(tokens, width) if whole else class_block_flops(tokens, width, queries)
    views = len(set(request.views) - {0}) * (below + class_block_flops(tokens, width))
    return below + end + streams + projections + views


def window_flops(spec: EncoderSpec, request: FeatureRequest) -> float:
    """FLOP per image of all windows, each a sequence of its own patches; the first block's projections are shared."""
    rows, columns = spec.grid
    width, total = spec.width, 0.0
    for side in set(request.windows):
        tokens = 1 + side**2
        blocks = (spec.n_blocks - 1) * block_flops(tokens, width) - 6 * tokens * width**2
        total += (rows - side + 1) * (columns - side + 1) * (blocks + class_block_flops(tokens, width))
    shared = (1 + rows * columns) * 6 * width**2 + 6 * rows * columns * spec.patch_size**2 * width
    return total + (shared if request.windows else 0)


def feature_bytes(spec: EncoderSpec, request: FeatureRequest) -> float:
    """Bytes per image in the store, 16 bits a number."""
    tokens, (rows, columns) = 1 + math.prod(spec.grid), spec.grid
    numbers = spec.embed_dim * (1 + len(set(request.views) - {0}))
    numbers += sum(
        (1 if tap.class_only else tokens) * (spec.embed_dim if tap.projected else spec.width)
        for tap in request.resolve(spec.n_blocks).taps
    )
    numbers += sum((rows - side + 1) * (columns - side + 1) * spec.embed_dim for side in set(request.windows))
    return 2 * numbers


def pair_flops(spec: EncoderSpec, maps: int) -> float:
    """FLOP of comparing all patches of two images, ``maps`` times (tapped blocks x neighbourhood sides)."""
    return 2 * math.prod(spec.grid) ** 2 * spec.width * maps


@dataclass(frozen=True)
class MethodCost:
    """What the model knows of a method.

    Attributes:
        request: of the encoder.
        ensemble: name of its prompts, None without text.
        prompts: per category.
        maps: comparisons of patches per pair of images.
        references: images that each image is compared with; None means all others of its batch.
        score: fit over (images, images x patches, FLOP of matching).
    """

    request: FeatureRequest
    ensemble: str | None
    prompts: int
    maps: int = 0
    references: int | None = None
    score: Fit = field(default_factory=lambda: fit(("images",), [[1.0]], [1.0]))

    def match_flops(self, spec: EncoderSpec, batch: int) -> float:
        """FLOP of matching in one batch. Very large batches are multiplied twice, see zsad_bench/matching.py."""
        if self.references is not None:
            return batch * min(self.references, batch - 1) * pair_flops(spec, self.maps)
        again = 2 if batch**2 * math.prod(spec.grid) > TABLE else 1
        return again * batch * (batch - 1) / 2 * pair_flops(spec, self.maps)


@dataclass(frozen=True)
class Constants:
    """Everything that was measured on one machine."""

    load: dict[str, Fit]
    walk: Fit
    windows: Fit
    text: Fit
    read: Fit
    metrics: Fit
    masks: Fit
    close: Fit
    start: float
    methods: dict[str, MethodCost]


@dataclass(frozen=True)
class DatasetSize:
    """A dataset as the model sees it.

    Attributes:
        categories: test images of each category.
        anomalous: test images with a mask, altogether.
        megapixels: of an image file.
        kind: ``png`` or ``jpeg``.
    """

    name: str
    categories: tuple[int, ...]
    anomalous: int
    megapixels: float
    kind: str

    @property
    def images(self) -> int:
        """All test images."""
        return sum(self.categories)


@dataclass(frozen=True)
class Hardware:
    """Where a job runs, relative to the machine that was measured.

    Attributes:
        encode: how many times faster the encoder runs.
        match: how many times faster matching runs.
        load: how many times faster images are decoded: the number of threads that do so.
        processes: that share the images of a dataset.
        overlap: whether images are decoded while the encoder works, because it does not need the CPU.
    """

    name: str
    encode: float = 1.0
    match: float = 1.0
    load: float = 1.0
    processes: int = 1
    overlap: bool = False


@dataclass(frozen=True)
class Seconds:
    """Seconds of a job by stage."""

    start: float = 0.0
    load: float = 0.0
    encode: float = 0.0
    text: float = 0.0
    read: float = 0.0
    score: float = 0.0
    match: float = 0.0
    metrics: float = 0.0
    close: float = 0.0
    overlap: bool = False

    @property
    def total(self) -> float:
        """Wall time."""
        loading = max(0.0, self.load - self.encode) if self.overlap else self.load
        arithmetic = self.encode + self.text + self.score + self.match + self.metrics
        return self.start + loading + arithmetic + self.read + self.close


def longest_share(sizes: Sequence[float], processes: int) -> float:
    """The largest sum if sizes are given one by one, the largest first, to the process with the least so far."""
    loads = [0.0] * min(processes, max(len(sizes), 1))
    for size in sorted(sizes, reverse=True):
        loads[loads.index(min(loads))] += size
    return max(loads)


def batch_sizes(images: int, batch_size: int | str) -> list[int]:
    """Images in each batch of a category."""
    width = images if batch_size == "all" else int(batch_size)
    return [min(width, images - start) for start in range(0, images, width)]


def predict(
    constants: Constants,
    spec: EncoderSpec,
    dataset: DatasetSize,
    method: str,
    batch_size: int | str,
    hardware: Hardware,
    stored: bool = False,
) -> Seconds:
    """Wall seconds of one method on one dataset.

    With several processes a dataset is cut into shares of whole batches, and a category is measured and closed by one
    process once its shares are there; a batch that is the whole category cannot be cut.

    Args:
        constants: measured.
        spec: the encoder.
        dataset: its size.
        method: name.
        batch_size: images per batch, or ``all``.
        hardware: where.
        stored: features and text embeddings are stored already.
    """
    cost, patches = constants.methods[method], math.prod(spec.grid)
    batches = [batch for size in dataset.categories for batch in batch_sizes(size, batch_size)]
    share = longest_share([float(batch) for batch in batches], hardware.processes)
    per_image, per_patch, per_flop = cost.score.constants
    match = [cost.match_flops(spec, batch) * per_flop for batch in batches]
    categories = len(dataset.categories)
    text = 0.0 if cost.prompts == 0 or stored else constants.text(1, cost.prompts) / hardware.encode
    metrics = [constants.metrics(1, pixel_sort_work(size * spec.image_size**2)) for size in dataset.categories]
    masks = constants.masks(1, dataset.megapixels) * dataset.anomalous / categories
    encode = 0.0
    if not stored:
        work = constants.walk(1, walk_flops(spec, cost.request)) + constants.windows(window_flops(spec, cost.request))
        encode = share * work / hardware.encode
    return Seconds(
        start=constants.start,
        load=0.0 if stored else share * constants.load[dataset.kind](1, dataset.megapixels) / hardware.load,
        encode=encode,
        text=text * math.ceil(categories / hardware.processes),
        read=share * constants.read(1, feature_bytes(spec, cost.request)),
        score=share * (per_image + per_patch * patches),
        match=longest_share(match, hardware.processes) / hardware.match,
        metrics=longest_share([value + masks for value in metrics], hardware.processes),
        close=longest_share([constants.close(1, size) for size in dataset.categories], hardware.processes),
        overlap=hardware.overlap,
    )


def union_request(constants: Constants, cells: Sequence[tuple[str, int | str]]) -> FeatureRequest:
    """What all methods of a sweep ask for together."""
    request = FeatureRequest()
    for name in sorted({method for method, _ in cells}):
        request = request.union(constants.methods[name].request)
    return request


def predict_sweep(
    constants: Constants,
    spec: EncoderSpec,
    dataset: DatasetSize,
    cells: Sequence[tuple[str, int | str]],
    hardware: Hardware,
) -> float:
    """Wall seconds of a sweep over (method, batch size): the union of all features is encoded once."""
    stored = [predict(constants, spec, dataset, method, size, hardware, stored=True) for method, size in cells]
    names = sorted({method for method, _ in cells})
    request = union_request(constants, cells)
    share = dataset.images / hardware.processes
    work = constants.walk(1, walk_flops(spec, request)) + constants.windows(window_flops(spec, request))
    encode = share * work / hardware.encode
    load = share * constants.load[dataset.kind](1, dataset.megapixels) / hardware.load
    prompts = {constants.methods[name].ensemble: constants.methods[name].prompts for name in names}
    text = sum(constants.text(1, count) for count in prompts.values() if count) / hardware.encode
    text *= math.ceil(len(dataset.categories) / hardware.processes)
    loading = max(0.0, load - encode) if hardware.overlap else load
    return constants.start + loading + encode + text + sum(cell.total - cell.start for cell in stored)


def pixel_sort_work(pixels: float) -> float:
    """P log2 P."""
    return pixels * math.log2(max(pixels, 2))
