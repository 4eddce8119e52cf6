"""Which images form a batch, and how broken files are handled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsad_bench import load_dataset
from zsad_bench.batching import choose_references, compose_batches, limited, load_batches
from zsad_bench.data import Dataset, Sample, UnreadableImage
from zsad_bench.errors import UserError
from zsad_bench.preprocess import Geometry, image_to_array, mask_to_array
from zsad_bench.seeds import named_seed


def samples(count: int, anomalous: int) -> list[Sample]:
    return [Sample(f"{i:03}", Path(f"{i}.png"), "c", int(i < anomalous), "", None) for i in range(count)]


def test_batches_hold_every_image_once() -> None:
    images = samples(23, 10)
    batches = compose_batches(images, 5, seed=1)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(sample.image_id for batch in batches for sample in batch) == [sample.image_id for sample in images]
    assert compose_batches(images, "all", 1) == [[sample for batch in batches for sample in batch]]


def test_seeds_change_the_composition_only() -> None:
    images = samples(23, 10)
    assert compose_batches(images, 5, 1) == compose_batches(images, 5, 1)
    assert compose_batches(images, 5, 1) != compose_batches(images, 5, 2)
    assert named_seed(0, "mvtec", "bottle") != named_seed(0, "mvtecb", "ottle")


@pytest.mark.parametrize("limit", [1, 2, 5, 22])
def test_limit_keeps_both_classes(limit: int) -> None:
    kept = limited(samples(30, 10), limit)
    assert len(kept) == len({sample.image_id for sample in kept}) == limit
    if limit > 1:
        assert {sample.label for sample in kept} == {0, 1}
    assert limited(samples(3, 3), 2)[0].label == 1


def test_broken_images_stop_or_are_counted(photo_folder: Path) -> None:
    broken = next((photo_folder / "plate" / "test" / "good").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    dataset = load_dataset("mvtec", root=str(photo_folder))
    batches = compose_batches(dataset.samples("plate"), 5, 0)
    with pytest.raises(UnreadableImage, match=broken.name):
        list(load_batches(dataset, batches, Geometry(48), skip_unreadable=False))
    loaded = list(load_batches(dataset, batches, Geometry(48), skip_unreadable=True))
    assert sum(len(batch.samples) for batch in loaded) == 11
    assert [str(error) for batch in loaded for error in batch.unreadable] == [str(loaded_error(dataset, broken))]
    for batch in loaded:
        for sample, pixels in zip(batch.samples, batch.pixels, strict=True):
            np.testing.assert_array_equal(pixels, image_to_array(dataset.read_image(sample), Geometry(48)))


def loaded_error(dataset: Dataset, path: Path) -> UnreadableImage:
    sample = next(sample for sample in dataset.samples("plate") if sample.path == path)
    with pytest.raises(UnreadableImage) as caught:
        dataset.read_image(sample)
    return caught.value


def test_masks_shrink_by_area() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[20:60, 40:120] = True
    small = mask_to_array(mask, Geometry(50))
    assert small.shape == (50, 50)
    assert small.sum() == 20 * 20
    assert not mask_to_array(np.zeros((7, 9), dtype=bool), Geometry(50)).any()
    centre = mask_to_array(mask, Geometry(50, "shortest"))
    assert centre.sum() == 20 * 35  # columns 50 to 150 remain, of which 50 to 120 are anomalous


def test_references_are_normal_and_nested(tmp_path: Path, photo_folder: Path) -> None:
    (photo_folder / "plate" / "test" / "good").rename(photo_folder / "plate" / "train_good")
    (photo_folder / "plate" / "train").mkdir()
    (photo_folder / "plate" / "train_good").rename(photo_folder / "plate" / "train" / "good")
    dataset = load_dataset("mvtec", root=str(photo_folder))
    four = choose_references(dataset, "plate", 4, seed=3)
    assert choose_references(dataset, "plate", 2, seed=3) == four[:2]
    assert all("train/good" in sample.image_id for sample in four)
    with pytest.raises(UserError, match="6 normal training images"):
        choose_references(dataset, "plate", 7, seed=3)
