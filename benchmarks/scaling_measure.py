"""Measure the constants of :mod:`scaling_model` on this machine, each at three sizes or more.

Everything runs in one thread and is measured in CPU seconds, so that other work on the machine disturbs it little.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scaling_model import (
    Constants,
    Fit,
    MethodCost,
    fit,
    pixel_sort_work,
    walk_flops,
    window_flops,
)

from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.contract import Dataset, EncoderSpec, FeatureBatch, FeatureRequest, Method, Stream, Tap, TextFeatures
from zsad_bench.core.machine import limit_threads
from zsad_bench.data.geometry import Geometry, image_to_array, mask_to_array
from zsad_bench.data.images import read_image_file
from zsad_bench.encoder.base import Encoder
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.encoder.plan import encoder_spec
from zsad_bench.encoder.tower import window_forward
from zsad_bench.engine.compute import configured_encoder
from zsad_bench.engine.describe import describe
from zsad_bench.engine.measure import read_masks
from zsad_bench.engine.pictures import write_maps, write_worst
from zsad_bench.feature_store.disk_store import DiskStore
from zsad_bench.metrics import pixel_metrics
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import CategoryResult, ImageResult
from zsad_bench.statistics.histograms import summarise
from zsad_bench.statistics.kept import kept_arrays
from zsad_bench.text.ensembles import load_ensemble

MODEL = "ViT-B-16-plus-240"
ENCODER = ("encoder=vit_b_16_plus_240", "encoder.pretrained=null", "encoder.device=cpu")
IMAGE_SIZES = (128, 176, 240)
WINDOW_SIZES = (80, 96, 128)
SIDES = (512, 1024, 2048)
METHODS = ("clip_ad", "anoclip", "winclip", "dual_image", "fiseclip", "musc")
REPEATS = 2


def shortest_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Fewest CPU seconds of all threads; a first run does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def encoder_at(image_size: int) -> Encoder:
    """The default encoder with random weights at an input size; precision and chunk as configured."""
    return configured_encoder(compose_config([*ENCODER, f"encoder.image_size={image_size}"]))


def photo(side: int, kind: str, seed: int = 0) -> bytes:
    """A file of side x side pixels with soft structures and sensor noise, so that it compresses like a photo."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(60, 200, (24, 24, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + random.normal(0, 3, smooth.shape).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG" if kind == "png" else "JPEG", quality=92)
    return buffer.getvalue()


def photo_dataset(root: Path, count: int) -> Path:
    """``count`` photos of a megapixel in MVTec layout, six of ten with a mask."""
    photos = [photo(1024, "jpeg", seed) for seed in range(4)]
    for index in range(count):
        kind = "spot" if index < count * 6 // 10 else "good"
        path = root / "plate" / "test" / kind / f"{index:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photos[index % len(photos)] + bytes(index))  # no two files are equal
        if kind == "spot":
            mask = root / "plate" / "ground_truth" / kind / f"{index:03}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((1024, 1024), dtype=np.uint8)
            pixels[200 + 2 * index : 320 + 2 * index, 300:420] = 255
            Image.fromarray(pixels).save(mask)
    return root


def measure_load(kind: str) -> Fit:
    """Decode and resize."""
    quantities, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            path = Path(folder) / f"{side}.{kind}"
            path.write_bytes(photo(side, kind))
            count = max(4, 8 * SIDES[0] // side)

            def run(path: Path = path, count: int = count) -> None:
                geometry = Geometry(240)
                for _ in range(count):
                    image_to_array(read_image_file(path), geometry)

            quantities.append((1.0, side**2 / 1e6))
            seconds.append(shortest_seconds(run) / count)
    return fit(("images", "megapixels"), quantities, seconds)


def measure_masks() -> Fit:
    """Decode and resize a mask."""
    quantities, seconds = [], []
    for side in SIDES:
        pixels = np.zeros((side, side), dtype=np.uint8)
        pixels[side // 4 : side // 3, side // 4 : side // 2] = 255
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        content = buffer.getvalue()

        def run(content: bytes = content) -> None:
            mask_to_array(np.asarray(Image.open(io.BytesIO(content))) > 0, Geometry(240))

        quantities.append((1.0, side**2 / 1e6))
        seconds.append(shortest_seconds(run, 5))
    return fit(("masks", "megapixels"), quantities, seconds)


def measure_image_tower() -> tuple[Fit, Fit]:
    """The walk with the taps of the matching methods and the value-value stream, and WinCLIP's windows, per image.

    Windows are measured at smaller sizes, because they cost ten times as much as the walk; 128 is measured twice.
    """
    request = FeatureRequest(taps=(*map(Tap, (3, 6, 9, 12)), Tap(-1, Stream(("v",), embedding=True), projected=True)))
    sides = (2, 3)
    works: list[list[tuple[float, ...]]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for size in (*WINDOW_SIZES, *IMAGE_SIZES):
        encoder = configured_encoder(compose_config([*ENCODER, f"encoder.image_size={size}"])).load()
        pixels = torch.randn(2, 3, size, size)
        if size in IMAGE_SIZES:
            works[0].append((1.0, walk_flops(encoder.spec, request)))
            seconds[0].append(shortest_seconds(lambda e=encoder, p=pixels: e.encode(p, request), 2) / 2)  # type: ignore[misc]
        if size in WINDOW_SIZES:

            def run(encoder: ClipEncoder = encoder, pixels: torch.Tensor = pixels[:1]) -> None:
                with torch.inference_mode():
                    window_forward(encoder.tower, pixels, encoder.spec.grid, sides)

            works[1].append((window_flops(encoder.spec, FeatureRequest(windows=sides)),))
            seconds[1].append(shortest_seconds(run, 2))
    return fit(("images", "FLOP"), works[0], seconds[0]), fit(("FLOP",), works[1], seconds[1])


def measure_text() -> Fit:
    """Prompts of one category."""
    encoder = encoder_at(240)
    normal, abnormal = load_ensemble("anoclip").write("metal nut")
    prompts = list(dict.fromkeys(normal + abnormal))
    quantities, seconds = [], []
    for count in (8, 16, 32):
        chosen = prompts[:count]
        quantities.append((1.0, float(count)))
        seconds.append(shortest_seconds(lambda c=chosen: encoder.encode_text(c), 2))  # type: ignore[misc]
    return fit(("categories", "prompts"), quantities, seconds)


def measure_read() -> Fit:
    """Features of one image out of the store, checksum included; the files are in the system's cache."""
    quantities, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = DiskStore(Path(folder), 10.0)
        for tokens in (101, 226, 401):
            keys = [f"{tokens} {index}" for index in range(16)]
            items = {f"tap.{block}": torch.randn(16, tokens, 896).half() for block in (3, 6, 9, 12)}
            store.put("place", keys, items)
            quantities.append((1.0, 4.0 * tokens * 896 * 2))
            seconds.append(shortest_seconds(lambda k=keys, n=list(items): store.get("place", k, n), 5) / 16)  # type: ignore[misc]
    return fit(("images", "bytes"), quantities, seconds)


def smooth_maps(count: int, side: int) -> NDArray[np.float32]:
    """Random maps (count, side, side) that are as smooth as those of methods."""
    coarse = torch.rand(count, 1, 15, 15, generator=torch.Generator().manual_seed(0))
    maps: NDArray[np.float32] = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0].numpy()
    return maps


def measure_metrics() -> Fit:
    """Pixel metrics and histograms of one category with 60 % anomalous images."""
    quantities, seconds = [], []
    random = np.random.default_rng(0)
    for count, side in ((20, 240), (60, 240), (160, 240)):
        maps = smooth_maps(count, side)
        masks = np.zeros(maps.shape, dtype=bool)
        for index in range(count * 6 // 10):
            top, left = random.integers(0, side - side // 8, 2)
            masks[index, top : top + side // 9, left : left + side // 12] = True
        names = [str(index) for index in range(count)]

        def run(names: list[str] = names, masks: NDArray[np.bool_] = masks, maps: NDArray[np.float32] = maps) -> None:
            pixel_metrics(masks, maps)
            summarise(names, list(masks), maps)

        quantities.append((1.0, pixel_sort_work(maps.size)))
        seconds.append(shortest_seconds(run))
    return fit(("categories", "P log2 P"), quantities, seconds)


def measure_close() -> Fit:
    """What follows the metrics of a category: resamples for intervals, result files and pictures."""
    counts = (20, 80, 160)
    seconds = [close_seconds(count) for count in counts]
    return fit(("categories", "images"), [(1.0, float(count)) for count in counts], seconds)


def close_seconds(count: int) -> float:
    """Seconds to close a category of ``count`` images."""
    with tempfile.TemporaryDirectory() as folder:
        root = photo_dataset(Path(folder) / "photos", count)
        config = compose_config([*ENCODER, "dataset=mvtec", f"dataset.root={root}", "name=close"])
        dataset = build(config.dataset, Dataset, "dataset")
        method = build(config.method, Method, "method")
        job = JobFolder(Path(folder) / "results", describe(config, method, dataset))
        samples, maps, geometry = dataset.samples("plate"), smooth_maps(count, 240), Geometry(240)
        ids = [sample.image_id for sample in samples]
        summary = summarise(ids, read_masks(dataset, samples, geometry), maps)
        scores = dict(zip(ids, maps.max(axis=(1, 2)).tolist(), strict=True))
        images = tuple(
            ImageResult(sample.image_id, sample.label, sample.defect_type, scores[sample.image_id])
            for sample in samples
        )
        result = CategoryResult("plate", count, count * 6 // 10, 0, {}, "", "", images)

        def run() -> None:
            write_maps(job.path / "maps", "plate", dataset, samples, maps, "sheet", geometry)
            write_worst(job.path / "maps", "plate", dataset, samples, maps, scores, geometry)
            job.save(result, kept_arrays(result.category, result.units, summary))

        return shortest_seconds(run)


def features(spec: EncoderSpec, request: FeatureRequest, count: int) -> FeatureBatch:
    """Random features of the right shapes."""
    generator = torch.Generator().manual_seed(0)
    (rows, columns), width, dimension = spec.grid, spec.width, spec.embed_dim

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    return FeatureBatch(
        image_ids=tuple(f"{index:04}" for index in range(count)),
        class_tokens=draw(dimension),
        tokens={tap: draw(1 + rows * columns, dimension if tap.projected else width) for tap in request.taps},
        grid=spec.grid,
        image_size=(spec.image_size, spec.image_size),
        windows={side: draw((rows - side + 1) * (columns - side + 1), dimension) for side in request.windows},
        views={view: draw(dimension) for view in request.views},
    )


def measure_method(name: str) -> MethodCost:
    """A method's own arithmetic over input sizes and, for those that compare images, batch sizes."""
    batch_sizes: Sequence[int] = (2, 4, 8) if name in ("musc", "fiseclip", "dual_image") else (8,)
    cost, quantities, seconds = None, [], []
    for size, count in product(IMAGE_SIZES, batch_sizes):
        spec = encoder_spec(MODEL, None, size)
        method = build(compose_config([f"method={name}"]).method, Method, "method")
        method.attach(spec)
        request = method.request()
        ensemble = load_ensemble(method.prompts) if method.prompts else None
        prompts = len({prompt for state in ensemble.write("metal nut") for prompt in state}) if ensemble else 0
        text = TextFeatures("metal nut", torch.randn(64, spec.embed_dim), torch.randn(64, spec.embed_dim))
        maps = len(getattr(method, "taps", ())) * len(getattr(method, "sides", ()))
        references = getattr(method, "n_references", None)
        cost = MethodCost(request, method.prompts, prompts, maps, references)
        batch = features(spec, request, count)

        def run(method: Method = method, text: TextFeatures | None = text, batch: FeatureBatch = batch) -> None:
            with torch.inference_mode():
                method.prepare(text if method.prompts else None)
                method.predict(batch)

        patches = spec.grid[0] * spec.grid[1]
        quantities.append((float(count), float(count * patches), cost.match_flops(spec, count) if maps else 0.0))
        seconds.append(shortest_seconds(run))
    assert cost is not None
    measured = fit(("images", "patches", "matching FLOP"), quantities, seconds)
    return MethodCost(cost.request, cost.ensemble, cost.prompts, cost.maps, cost.references, measured)


def measure_start() -> float:
    """Seconds until a fresh process can begin: imports."""
    command = [sys.executable, "-c", "import zsad_bench.engine.job"]
    seconds = []
    for _ in range(2):
        before = os.times()
        subprocess.run(command, check=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of child processes, user and system
    return min(seconds)


def measure(say: Callable[[str], None]) -> Constants:
    """All constants; ``say`` hears what is being measured."""

    limit_threads(1)

    def told(what: str, run: Callable[[], Fit]) -> Fit:
        begin = time.perf_counter()
        found = run()
        say(f"{what:12s} {time.perf_counter() - begin:6.1f} s, fit within {found.deviation:.0%}")
        return found

    loads = {kind: told(f"load {kind}", lambda k=kind: measure_load(k)) for kind in ("png", "jpeg")}  # type: ignore[misc]
    masks = told("masks", measure_masks)
    walk, windows = measure_image_tower()
    say(f"image tower fit within {walk.deviation:.0%}, windows within {windows.deviation:.0%}")
    text = told("text", measure_text)
    read = told("read", measure_read)
    metrics = told("metrics", measure_metrics)
    close = told("close", measure_close)
    methods = {}
    for name in METHODS:
        methods[name] = measure_method(name)
        say(f"{name:12s} fit within {methods[name].score.deviation:.0%}")
    return Constants(loads, walk, windows, text, read, metrics, masks, close, measure_start(), methods)
