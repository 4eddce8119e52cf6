"""The data contract: samples, problems and the Dataset that every layout family implements.

A dataset is a folder (``root``) with categories; a category has test images and, for some layouts, train images. A
subclass says what lies where (``_index``). Everything else is here: selection, ordering, reading, checking.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, TypedDict

import numpy as np
from PIL import Image

from zsad_bench.contract.samples import Index, Problem, Sample, Split, doubts, repeated_images
from zsad_bench.core.checksums import file_sha256
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import near_misses
from zsad_bench.data.folders import innermost
from zsad_bench.data.images import UnreadableImage, read_image_file, read_image_size, read_mask_file, read_reduced_image

_CHECK = "'zsad-bench data check' with the same dataset options lists everything"


class CommonOptions(TypedDict, total=False):
    """Keyword arguments of :class:`Dataset` without ``root``."""

    name: str
    categories: Sequence[str] | None
    class_names: Mapping[str, str] | None
    textures: Sequence[str]
    mask_threshold: int
    protocol: str | None
    fast_jpeg: bool
    title: str
    page: str
    licence: str
    citation: str
    expected: Mapping[str, Mapping[str, int]] | None
    about: Mapping[str, object] | None


class DatasetOptions(CommonOptions):
    """Keyword arguments of :class:`Dataset`, for layouts that have more of their own and hand these on."""

    root: str | Path


class Dataset(ABC):
    """A dataset on disk. Nothing is read before it is asked for, and the list of files is made only once.

    Args:
        root: folder of the dataset; ``~`` is expanded.
        name: what result rows call the dataset.
        categories: those to use; None means all.
        class_names: category -> readable noun for prompts ("metal nut").
        textures: categories that show a surface rather than an object.
        mask_threshold: a mask pixel is anomalous when greater than this, in the units of the mask file.
        protocol: which variant of splits and masks this is; it appears in every result row. None: the usual one.
        fast_jpeg: decode large JPEG files at a reduced scale (``docs/datasets.md`` states the tolerance).
        title: for messages and documentation, as the three below.
        page: where the data is offered.
        licence: its terms.
        citation: the paper.
        expected: category (or ``total``) -> count name -> number; ``zsad-bench data check`` compares. A key such as
            ``total@balanced`` counts under that protocol only.
        about: what only documentation and ``zsad-bench data`` use (:class:`zsad_bench.engine.dataset_card.About`).
    """

    PROTOCOLS: ClassVar[tuple[str, ...]] = ()
    """Variants that a layout knows, the usual one first; empty: any text is a name for the user's own variant."""

    def __init__(
        self,
        *,
        root: str | Path,
        name: str,
        categories: Sequence[str] | None = None,
        class_names: Mapping[str, str] | None = None,
        textures: Sequence[str] = (),
        mask_threshold: int = 0,
        protocol: str | None = None,
        fast_jpeg: bool = False,
        title: str = "",
        page: str = "",
        licence: str = "",
        citation: str = "",
        expected: Mapping[str, Mapping[str, int]] | None = None,
        about: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(mask_threshold, bool) or not isinstance(mask_threshold, int) or not 0 <= mask_threshold <= 65534:
            raise UserError(f"dataset.mask_threshold={mask_threshold!r}: give a whole number from 0 to 65534")
        if isinstance(categories, str):
            raise UserError(
                f"dataset.categories={categories}: give a list, for example dataset.categories=[{categories}]"
            )
        known = self.PROTOCOLS
        if known and protocol is not None and protocol not in known:
            raise UserError(f"dataset.protocol={protocol}: choose {' or '.join(known)}")
        self.root = Path(root).expanduser()
        self.name = name
        self.mask_threshold = mask_threshold
        self.variant = protocol or (known[0] if known else "standard")
        self.fast_jpeg = fast_jpeg
        self.title = title or name
        self.page = page
        self.licence = licence
        self.citation = citation
        self.about = dict(about or {})
        self._expected = {
            str(key): {str(count): int(value) for count, value in counts.items()}
            for key, counts in (expected or {}).items()
        }
        self._class_names = {str(key): str(value) for key, value in (class_names or {}).items()}
        self._textures = frozenset(str(category) for category in textures)
        self._selected = None if categories is None else tuple(str(category) for category in categories)
        self._sizes: dict[str, tuple[int, int]] = {}

    @abstractmethod
    def _index(self) -> Index:
        """List what lies under ``self.root`` (which exists). UserError when the root is not this layout at all."""

    def recognises(self, root: Path) -> bool:
        """True when this layout begins in a folder. Only looks at names, one or two levels deep.

        UserError when the folder cannot be listed.
        """
        return True

    @cached_property
    def index(self) -> Index:
        """Everything found under the root, selected or not. UserError when the root is missing or of another layout.

        Archives often unpack into a folder of their own: where ``root`` is not this layout and holds a single folder,
        ``root`` moves there.
        """
        self._require_root()
        self.root = self._beginning()
        index = self._index()
        index.problems.extend(repeated_images(index))
        return index

    def _beginning(self) -> Path:
        """The folder at or below ``self.root`` where the layout begins, ``self.root`` where none is recognised."""
        return innermost(self.root, self.recognises)

    @cached_property
    def protocol(self) -> str:
        """What a result row says about how this dataset was read: the variant and everything that departs from it.

        Rows of different protocols are never ranked together. UserError as :attr:`index`.
        """
        return ", ".join([self.variant, *self._departures()])

    def _departures(self) -> list[str]:
        """What else changes the numbers: a mask rule, reduced decoding, categories without a normal test image."""
        found = [f"mask > {self.mask_threshold}"] if self.mask_threshold else []
        found += ["fast jpeg"] if self.fast_jpeg else []
        bare = [c for c in self.categories if (test := self.listed(c)) and all(s.label == 1 for s in test)]
        if bare:
            found.append("all anomalous" if len(bare) == len(self.categories) else f"all anomalous: {'+'.join(bare)}")
        return found

    @property
    def expected(self) -> dict[str, dict[str, int]]:
        """Counts of the published dataset under this protocol: category (or ``total``) -> count name -> number."""
        found = {}
        for key, counts in self._expected.items():
            category, _, protocol = key.partition("@")
            if protocol in ("", self.variant):
                found[category] = counts
        return found

    @property
    def all_categories(self) -> tuple[str, ...]:
        """Every category under the root, sorted."""
        return tuple(sorted(self.index.categories))

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The selected categories, sorted. UserError naming the nearest valid one when a category is unknown."""
        found = self.all_categories
        if self._selected is None:
            return found
        if not self._selected:
            raise UserError(f"dataset.categories=[] selects nothing; {self.root} has {_listed(found)}")
        for category in self._selected:
            self._require_known(category)
        return tuple(sorted(set(self._selected)))

    def class_name(self, category: str) -> str:
        """The noun for prompts: from ``class_names``, else the category with _ and - as spaces."""
        return self._class_names.get(category) or " ".join(category.replace("_", " ").replace("-", " ").split())

    def has_class_name(self, category: str) -> bool:
        """True when the configuration names this category."""
        return category in self._class_names

    def is_texture(self, category: str) -> bool:
        """True when the category is a surface (carpet), false for an object (bottle)."""
        return category in self._textures

    def samples(self, category: str, split: Split = "test") -> list[Sample]:
        """The images of a category, sorted by image_id.

        UserError when the category is unknown or has no image in this split, and when a problem of severity "error"
        makes its labels or masks doubtful.
        """
        self._require_known(category)
        errors = [p for p in self.index.problems if p.severity == "error" and p.category in ("", category)]
        if errors:
            more = f" (and {len(errors) - 1} more problems)" if len(errors) > 1 else ""
            raise UserError(f"{self.root / errors[0].path}: {errors[0].message}{more}; {_CHECK}")
        samples = self.listed(category, split)
        if not samples:
            raise UserError(
                f"{self.root}: category '{category}' has no {split} image that can be used; "
                f"add images or leave it out with dataset.categories=[...]"
            )
        return samples

    def listed(self, category: str, split: Split = "test") -> list[Sample]:
        """As :meth:`samples`, but empty or doubtful categories are returned as they are."""
        return sorted((s for s in self.index.split(split) if s.category == category), key=lambda s: s.image_id)

    def problems(self) -> list[Problem]:
        """What the names and places of the files show to be wrong; contents are not read."""
        found = [p for p in self.index.problems if p.category in ("", *self.categories)]
        for category in self.categories:
            found.extend(doubts(category, self.listed(category)))
        return found

    def read_image(self, sample: Sample, shrink_to: int | None = None) -> Image.Image:
        """The upright 8-bit RGB image. UnreadableImage (a UserError) naming the file when it cannot be decoded.

        Args:
            sample: the image to read.
            shrink_to: the caller will scale the image down to a square of this side. With ``fast_jpeg`` a JPEG is then
                decoded at a reduced scale, at least twice that large; other images come in full.
        """
        if shrink_to is not None and self.fast_jpeg:
            return read_reduced_image(sample.path, 2 * shrink_to)
        image = read_image_file(sample.path)
        self._sizes[sample.image_id] = (image.height, image.width)
        return image

    def content_key(self, sample: Sample) -> str:
        """Hash of what :meth:`read_image` reads: the same for the same pixels wherever the file lies.

        A dataset whose ``read_image`` does more than decode the file must make that part of its key. Raises
        UnreadableImage if there is no such file.
        """
        try:
            return file_sha256(sample.path) + ("|fast jpeg" if self.fast_jpeg else "")
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise UnreadableImage(f"{sample.path}: {reason}; restore it or remove it") from None

    def read_mask(self, sample: Sample) -> np.ndarray | None:
        """Bool (H, W) at the image's size, true where anomalous; zeros for a normal image.

        None when the label is unknown and when an anomalous image has no mask: it must then not be used for pixel
        metrics. UserError naming both files when the sizes differ, UnreadableImage when a file cannot be decoded.
        """
        if sample.label is None or (sample.label == 1 and sample.mask_path is None):
            return None
        size = self._image_size(sample)
        if sample.label == 0:
            return np.zeros(size, dtype=bool)
        mask = self._mask(sample)
        if mask.shape != size:
            raise UserError(
                f"{sample.mask_path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels (width x height) but its "
                f"image {sample.path} is {size[1]} x {size[0]}; export the mask again at the image's size"
            )
        return mask

    def stored_image(self, sample: Sample) -> Path | None:
        """The file that holds the image as :meth:`read_image` gives it; None where the image is a part of a file."""
        return sample.path

    def mask_files(self, sample: Sample) -> tuple[Path, ...]:
        """The files behind a sample's mask: none, one, or several that are united."""
        return () if sample.mask_path is None else (sample.mask_path,)

    def _mask(self, sample: Sample) -> np.ndarray:
        """Bool (H, W) from the sample's mask; layouts with polygons, boxes or several files override this."""
        assert sample.mask_path is not None
        return read_mask_file(sample.mask_path, self.mask_threshold)

    def _image_size(self, sample: Sample) -> tuple[int, int]:
        """(height, width); remembered, because some formats must be decoded for it."""
        if sample.image_id not in self._sizes:
            self._sizes[sample.image_id] = read_image_size(sample.path)
        return self._sizes[sample.image_id]

    def _require_root(self) -> None:
        if self.root.is_dir():
            return
        where = self.root.absolute()
        state = "is not a folder" if where.exists() else "does not exist"
        source = f"; {self.title} is available from {self.page}" if self.page else ""
        raise UserError(
            f"dataset.root: the folder {where} {state}; set dataset.root=<folder of {self.title}> or the environment "
            f"variable ZSAD_DATA to the folder that holds '{where.name}'{source}"
        )

    def _require_known(self, category: str) -> None:
        found = self.all_categories
        if category in found:
            return
        near = near_misses(category, found)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"dataset.categories: '{category}' is not in {self.root}; {hint}It has {_listed(found)}")


def _listed(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message, cut when there are very many."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "no category") + more
