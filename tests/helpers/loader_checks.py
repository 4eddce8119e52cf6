"""What a loader made of a root: everything that was written, its problems, or one line that refuses it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.helpers.miniatures import Miniature
from zsad_bench.contract import SPLITS, Dataset
from zsad_bench.core.errors import UserError


def assert_loaded(dataset: Dataset, written: Miniature) -> None:
    """Everything written is loaded, with its label, defect type and mask to the pixel, and nothing else is."""
    assert list(dataset.categories) == sorted({w.category for w in written.images.values()})
    loaded = {}
    for category in dataset.categories:
        for split in SPLITS:
            samples = dataset.listed(category, split)
            assert [s.image_id for s in samples] == sorted(s.image_id for s in samples)
            if samples:
                assert dataset.samples(category, split) == samples
            loaded.update({s.image_id: (s, split) for s in samples})
    assert sorted(loaded) == sorted(written.images)
    for name, expected in written.images.items():
        sample, split = loaded[name]
        found = (sample.category, split, sample.label, sample.defect_type)
        assert found == (expected.category, expected.split, expected.label, expected.defect_type), name
        assert sample.path == dataset.root / name
        image = dataset.read_image(sample)
        assert image.mode == "RGB"
        mask = dataset.read_mask(sample)
        if expected.label == 0:
            assert mask is not None
            assert mask.shape == (image.height, image.width)
            assert not mask.any()
            assert sample.mask_path is None
        elif expected.mask is None:
            assert mask is None
        else:
            assert mask.dtype == bool
            assert np.array_equal(mask, expected.mask), name


def refused(call: Callable[[], object], *texts: object) -> None:
    """The call raises one UserError of one line that holds all texts."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for text in texts:
        assert str(text) in message


def messages(dataset: Dataset, severity: str | None = None) -> dict[str, str]:
    """Message of every problem of a dataset by its path, of one severity or of all."""
    return {p.path: p.message for p in dataset.problems() if severity in (None, p.severity)}
