"""Which images form a batch, and how broken files are handled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad_bench import load_dataset
from zsad_bench.contract import Dataset, Sample
from zsad_bench.core.errors import UserError
from zsad_bench.core.seeds import named_seed
from zsad_bench.data.geometry import Geometry, image_to_array, mask_to_array
from zsad_bench.data.images import UnreadableImage
from zsad_bench.engine.batches import Batch, choose_references, compose_batches, limited, shuffled
from zsad_bench.feature_store.loading import MOST_WORKERS, images_ahead, load_batches, loader_workers, unreadable_images


def samples(count: int, anomalous: int) -> list[Sample]:
    return [Sample(f"{i:03}", Path(f"{i}.png"), "c", int(i < anomalous), "", None) for i in range(count)]


def ids(images: Sequence[Sample]) -> list[str]:
    return [sample.image_id for sample in images]


@given(count=st.integers(1, 40), size=st.integers(1, 45), last=st.sampled_from(["fill", "keep", "drop"]))
def test_every_image_is_judged_together_with_equally_many(count: int, size: int, last: str) -> None:
    order = shuffled(samples(count, count // 2), seed=1)
    batches = compose_batches(order, size, 7, last)
    scored = [sample for batch in batches for sample in batch.new]
    whole = count // size * size
    assert ids(scored) == ids(order if last != "drop" else order[:whole])
    for batch in batches:
        assert len(set(batch.samples)) == len(batch.samples)
        if last != "keep" and count >= size:
            assert len(batch.samples) == size
    for batch in batches[:-1]:
        assert batch.n_new == size
    if last == "fill" and count >= size:
        extra = batches[-1].samples[batches[-1].n_new :]
        assert set(extra) <= set(order[:whole]), "filled with images that were scored in a full batch"
    elif batches:
        assert batches[-1].n_new == len(batches[-1].samples)


def test_what_fills_the_last_batch_is_drawn_by_seed() -> None:
    order = shuffled(samples(33, 15), 1)
    one, same, other = (compose_batches(order, 16, seed)[-1] for seed in (1, 1, 2))
    assert (one.n_new, len(one.samples)) == (1, 16)
    assert one == same
    assert set(one.samples[1:]) != set(other.samples[1:])


def test_all_is_one_batch_and_no_image_is_none() -> None:
    order = shuffled(samples(7, 3), 1)
    assert compose_batches(order, "all", 0) == [Batch(tuple(order), 7)]
    for size in (4, "all"):
        assert compose_batches([], size, 0) == []


def test_seeds_change_the_composition_only() -> None:
    images = samples(23, 10)
    assert shuffled(images, 1) == shuffled(images, 1) != shuffled(images, 2)
    assert sorted(ids(shuffled(images, 1))) == ids(images)
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
    images = dataset.samples("plate")
    with pytest.raises(UnreadableImage, match=broken.name):
        list(load_batches(dataset, [images[:5], images[5:]], Geometry(48)))
    found = unreadable_images(dataset, images, Geometry(48))
    assert [str(error) for error in found.values()] == [str(loaded_error(dataset, broken))]
    readable = [sample for sample in images if sample.image_id not in found]
    loaded = list(load_batches(dataset, [readable[:5], readable[5:]], Geometry(48)))
    assert [len(batch.samples) for batch in loaded] == [5, 6]
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


def test_images_are_read_ahead_but_not_all_at_once(photo_folder: Path) -> None:
    dataset, read = load_dataset("mvtec", root=str(photo_folder)), []

    class Counting:
        """Counts what is read; stands for a category with many images."""

        def read_image(self, sample: Sample, size: int) -> object:
            read.append(sample.image_id)
            return dataset.read_image(sample, size)

    many = dataset.samples("plate") * 20
    batches = [many[start : start + 16] for start in range(0, len(many), 16)]
    loader = load_batches(Counting(), batches, Geometry(48), workers=3)
    assert next(loader).samples == tuple(batches[0])
    assert 16 <= len(read) <= 16 + images_ahead(3) < len(many)
    assert [loaded.samples for loaded in loader] == [tuple(batch) for batch in batches[1:]]
    assert len(read) == len(many)


def test_workers_are_as_many_as_asked_for_or_as_there_are_cores() -> None:
    assert loader_workers(3) == 3
    assert 1 <= loader_workers() <= MOST_WORKERS
