"""The training pool of the demo encoder: pairs of procedural images, rendered once and kept in chunks on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsad_bench.datasets.demo.procedural.categories import TRAINED_DEFECTS
from zsad_bench.datasets.demo.procedural.training import SOURCES, training_pair

IMAGE_SIZE = 112
CHUNK = 500
_STREAMS = 2
# Every seventh pair is rendered at twice the size and reduced like an evaluation image: the encoder sees both kinds.
_FINE_EVERY = 7


@dataclass
class Pool:
    """Pairs: images uint8 (n, 2, 112, 112, 3), normal then defective; masks uint8 (n, 112, 14), one bit a pixel;
    source int (n,) into SOURCES; defects bool (n, number of trained defects)."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    source: NDArray[np.int64]
    defects: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(small)


def _chunk(path: Path, seed: int, first: int) -> None:
    names = list(SOURCES)
    images = np.empty((CHUNK, 2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    masks, source = np.empty((CHUNK, IMAGE_SIZE, IMAGE_SIZE // 8), np.uint8), np.empty(CHUNK, np.int64)
    defects = np.zeros((CHUNK, len(TRAINED_DEFECTS)), np.bool_)
    for k in range(CHUNK):
        fine = (first + k) % _FINE_EVERY == 0
        pair = training_pair(first + k, seed=seed, size=2 * IMAGE_SIZE if fine else IMAGE_SIZE)
        views = (pair.normal, pair.defective)
        images[k] = np.stack([_reduced(view) for view in views] if fine else views)
        side = pair.mask.shape[0] // IMAGE_SIZE
        covered = pair.mask.reshape(IMAGE_SIZE, side, IMAGE_SIZE, side).mean((1, 3)) >= 0.5
        masks[k] = np.packbits(covered, axis=1)
        source[k] = names.index(pair.source)
        defects[k] = [kind in pair.defects for kind in TRAINED_DEFECTS]
    # Renamed when complete: an interrupted run leaves no half chunk behind.
    draft = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(draft, images=images, masks=masks, source=source, defects=defects)
    draft.replace(path)


def build(folder: Path, pairs: int, workers: int, report: Callable[[str], None]) -> Pool:
    """`pairs` pairs, read from `folder` where already rendered there.

    The pool is the same for every training seed: rendering it is a fifth of the work, and it holds no choice to repeat.
    Its chunks alternate between the two streams of pairs of the seeds 0 and 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = [(number % _STREAMS, number // _STREAMS * CHUNK) for number in range(-(-pairs // CHUNK))]
    paths = [folder / f"seed{seed}_{first:06d}.npz" for seed, first in places]
    todo = [(path, *place) for path, place in zip(paths, places, strict=True) if not path.exists()]
    if workers > 1 and todo:
        with ProcessPoolExecutor(workers) as executor:
            for done, _ in enumerate(executor.map(_chunk, *zip(*todo, strict=True)), start=1):
                report(f"pool: {done} of {len(todo)} chunks rendered")
    else:
        for done, job in enumerate(todo, start=1):
            _chunk(*job)
            report(f"pool: {done} of {len(todo)} chunks rendered")
    parts = [np.load(path) for path in paths]
    keys = ("images", "masks", "source", "defects")
    return Pool(*(np.concatenate([part[key] for part in parts])[:pairs] for key in keys))
