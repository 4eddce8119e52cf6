"""The procedural renderer: the same pixels everywhere, honest masks, and a clean split of training and evaluation."""

import hashlib

import numpy as np
import pytest

from zsad_bench.datasets.demo.procedural import (
    AUXILIARY,
    CLASS_NAMES,
    DEFECTS,
    EVALUATION,
    EVALUATION_ONLY_DEFECTS,
    TEXTURES,
    plan,
    render,
)
from zsad_bench.datasets.demo.procedural.categories import AUXILIARY_CATEGORIES, CATEGORIES, EVALUATION_CATEGORIES
from zsad_bench.datasets.demo.procedural.render import add_defect, defect_scale, paint_scene, seeded
from zsad_bench.datasets.demo.procedural.training import SOURCES, training_pair

# (category, index, defect) -> start of the SHA-256 of image and mask; a change here needs a new renderer VERSION.
STORED = {
    ("tile", 0, None): "521ef50f6d4a0cac",
    ("tile", 20, "crack"): "4594a5b243c9cbac",
    ("leather", 21, "dent"): "a16f8af27c62cc6c",
    ("wood", 22, "thread"): "3fac49863ade9f3a",
    ("capsule", 23, "missing_part"): "587c57dfdd3c76be",
    ("gear", 24, "bent"): "bd1c8a089962a06a",
    ("cable", 25, "misplaced"): "7ea99cef380bc26d",
    ("pcb", 26, "misprint"): "7624a757556c7b50",
    ("brick", 1, "stain"): "35490596c586fec3",
    ("bearing", 2, "hole"): "3904d2765ec47417",
}


def fingerprint(rendering):
    return hashlib.sha256(rendering.image.tobytes() + np.packbits(rendering.mask).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("case", STORED, ids=str)
def test_pixels_equal_the_stored_hash(case):
    category, index, defect = case
    assert fingerprint(render(category, index, defect=defect, seed=0)) == STORED[case]


def test_training_pair_equals_the_stored_hash():
    pair = training_pair(3, seed=0, size=112)
    content = pair.normal.tobytes() + pair.defective.tobytes() + np.packbits(pair.mask).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "42bdda1b0586f4c3"


def test_rendering_depends_on_its_arguments_only():
    first = render("gear", 4, defect="bent", seed=3, size=112)
    render("wood", 1, defect=None, seed=9, size=112)
    again = render("gear", 4, defect="bent", seed=3, size=112)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    others = [("gear", 5, "bent", 3), ("gear", 4, "stain", 3), ("gear", 4, "bent", 4)]
    for category, index, defect, seed in others:
        other = render(category, index, defect=defect, seed=seed, size=112)
        assert not np.array_equal(first.image, other.image)


def test_evaluation_shares_neither_names_nor_painters_with_training():
    assert len(EVALUATION) >= 6
    assert len(AUXILIARY) >= 30
    assert not set(EVALUATION) & (set(AUXILIARY) | set(SOURCES))
    assert set(EVALUATION) <= set(CLASS_NAMES)
    assert set(CATEGORIES) == set(EVALUATION) | set(AUXILIARY)
    assert any(name in TEXTURES for name in EVALUATION)
    assert any(name not in TEXTURES for name in EVALUATION)
    evaluated = {category.painter for category in EVALUATION_CATEGORIES.values()}
    trained = {category.painter for category in SOURCES.values()}
    assert {category.painter for category in AUXILIARY_CATEGORIES.values()} <= trained
    assert not evaluated & trained
    assert not {painter.__module__ for painter in evaluated} & {painter.__module__ for painter in trained}
    nouns = {CLASS_NAMES[name] for name in EVALUATION}
    assert not nouns & {CLASS_NAMES[name] for name in AUXILIARY}


def test_two_defect_types_occur_in_evaluation_only():
    assert len(EVALUATION_ONLY_DEFECTS) >= 2
    assert set(EVALUATION_ONLY_DEFECTS) < set(DEFECTS)
    trained = {kind for category in SOURCES.values() for kind in category.defects}
    assert not set(EVALUATION_ONLY_DEFECTS) & trained
    shown = {kind for category in EVALUATION_CATEGORIES.values() for kind in category.defects}
    assert set(EVALUATION_ONLY_DEFECTS) <= shown
    assert len(shown) >= 5


def test_training_pairs_are_of_training_kinds():
    for number in range(12):
        pair = training_pair(number, seed=1, size=112)
        assert pair.source in SOURCES
        assert not set(pair.defects) & set(EVALUATION_ONLY_DEFECTS)
        assert pair.mask.any()
        assert pair.normal.shape == pair.defective.shape == (112, 112, 3)


@pytest.mark.parametrize("category", EVALUATION)
def test_every_defect_of_a_category_is_visible_inside_its_mask_only(category):
    for index, defect in enumerate(CATEGORIES[category].defects):
        scene = paint_scene(CATEGORIES[category], (0,), (0, index), 112)
        before = scene.image.copy()
        after, mask = add_defect(scene, defect, seeded("test", category, index), defect_scale(index, 0.3))
        change = np.abs(after - before).max(axis=2)
        assert mask.mean() >= 0.001
        assert change[mask].mean() > 0.09
        # Outside the mask lie at most a few stray pixels.
        assert ((change > 0.05) & ~mask).sum() <= 0.1 * mask.sum() + 4


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_renders(category):
    normal = render(category, 0, defect=None, seed=2, size=112)
    assert normal.image.shape == (112, 112, 3)
    assert normal.image.dtype == np.uint8
    assert normal.mask.dtype == np.bool_
    assert not normal.mask.any()
    assert normal.image.std() > 2
    defect = CATEGORIES[category].defects[0]
    assert render(category, 1, defect=defect, seed=2, size=112).mask.any()


@pytest.mark.parametrize(("category", "defect"), [(c, d) for c in EVALUATION for d in CATEGORIES[c].defects])
def test_every_evaluation_defect_renders(category, defect):
    rendering = render(category, 7, defect=defect, seed=1, size=112)
    assert 0 < rendering.mask.mean() < 0.5


def test_plan_holds_all_types_and_all_sizes():
    for category in EVALUATION:
        jobs = plan(category, 18, 22, seed=0)
        assert [index for index, _ in jobs] == list(range(40))
        assert [defect for _, defect in jobs[:18]] == [None] * 18
        assert {defect for _, defect in jobs[18:]} == set(CATEGORIES[category].defects)
        assert jobs == plan(category, 18, 22, seed=0)
        scales = [defect_scale(index, 0.0) for index, _ in jobs[18:]]
        assert min(scales) < 0.1
        assert max(scales) > 0.9
    assert any(plan(c, 0, 6, seed=0) != plan(c, 0, 6, seed=1) for c in EVALUATION)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown category 'teapot'"):
        render("teapot", 0, defect=None, seed=0)
    with pytest.raises(ValueError, match="unknown defect 'rust'"):
        render("gear", 0, defect="rust", seed=0)
