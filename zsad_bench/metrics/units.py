"""What image metrics count: a photo that stands alone, or all photos of one object together.

Everything that speaks of images (metrics, resamples, thresholds, curves, placements, defect types, worst images) takes
its units from :func:`units_of`, so that an interval is of the same statistic as the value beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

OBJECTS_NOTE = "each with the largest score of its photos"
"""Stands in the notes of every category whose photos form objects."""


class Photo(Protocol):
    """What units are made of: samples of a dataset, or images in result files."""

    @property
    def image_id(self) -> str:
        """Unique in the dataset."""

    @property
    def label(self) -> int | None:
        """0 normal, 1 anomalous, None unknown."""

    @property
    def defect_type(self) -> str:
        """``good`` for normal photos, empty when the label is unknown."""

    @property
    def group(self) -> str:
        """The object that the photo shows; empty for a photo that stands for itself."""


@dataclass(frozen=True)
class Units:
    """The u units of n photos, ordered by name; a photo that shares its group with no other stands alone.

    Attributes:
        photos: the n photos.
        members: per unit the positions of its photos, ordered by image id.
        names: per unit the group of an object, the image id of a photo that stands alone.
        labels: per unit 1 if any of its photos is anomalous, 0 if all are known to be normal, else None: a photo
            without a label could show a defect, so it makes the label of an otherwise normal object unknown.
        scores: (u,) the largest score of all photos of the unit, those without a label too.
    """

    photos: tuple[Photo, ...]
    members: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    scores: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.members)

    @property
    def form_objects(self) -> bool:
        """Whether any unit has several photos."""
        return len(self.members) < len(self.photos)

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """Units with a known label."""
        return np.array([number for number, label in enumerate(self.labels) if label is not None], np.int64)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Labels (0 or 1) of the units in :attr:`labelled`."""
        return np.array([label for label in self.labels if label is not None], np.int64)

    @cached_property
    def of_photo(self) -> dict[str, int]:
        """The unit of every photo, by image id."""
        return {self.photos[at].image_id: number for number, unit in enumerate(self.members) for at in unit}

    @cached_property
    def key(self) -> str:
        """Hash of photos, labels and objects, whatever their order and scores: equal keys mean equal units."""
        lines = []
        for unit in self.members:
            group = self.photos[unit[0]].group if len(unit) > 1 else ""
            lines += [f"{self.photos[at].image_id}\0{self.photos[at].label}\0{group}" for at in unit]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]

    def defect_type(self, number: int) -> str:
        """Type of the photos that have the unit's label; several types are one of their own, such as ``dent+scratch``.

        So an anomalous object has the type of its anomalous photos.
        """
        if len(self.members[number]) == 1:
            return self.photos[self.members[number][0]].defect_type
        label = self.labels[number]
        kinds = {self.photos[at].defect_type for at in self.members[number] if self.photos[at].label == label}
        return "+".join(sorted(kind for kind in kinds if kind))

    def decisive(self, number: int, scores: Sequence[float] | NDArray[np.floating]) -> int:
        """Position of the photo that gave the unit its score; of equal ones the first by image id.

        Args:
            number: of the unit.
            scores: n scores, of every photo.
        """
        return max(self.members[number], key=lambda at: scores[at])

    def telling(self, number: int, scores: Sequence[float] | NDArray[np.floating]) -> int:
        """Position of the photo to show: of those with the unit's label the one with the largest score.

        Args:
            number: of the unit.
            scores: n scores, of every photo.
        """
        fitting = [at for at in self.members[number] if self.photos[at].label == self.labels[number]]
        return max(fitting or self.members[number], key=lambda at: scores[at])

    def worst(self, label: int, count: int) -> list[int]:
        """Normal units with the highest scores (``label`` 0), or anomalous ones with the lowest; the worst first."""
        sign = -1 if label == 0 else 1
        chosen = [number for number, other in enumerate(self.labels) if other == label]
        return sorted(chosen, key=lambda number: (sign * self.scores[number], self.names[number]))[:count]


def units_of(photos: Sequence[Photo], scores: Sequence[float] | NDArray[np.floating]) -> Units:
    """The units that image metrics are over.

    Args:
        photos: n photos of one category; those with the same group, if it is not empty, are one object.
        scores: n image scores; their type is kept.
    """
    together: dict[str, list[int]] = {}
    members: list[tuple[int, ...]] = []
    for position, photo in enumerate(photos):
        if photo.group:
            together.setdefault(photo.group, []).append(position)
        else:
            members.append((position,))
    members += [tuple(sorted(found, key=lambda at: photos[at].image_id)) for found in together.values()]
    named = [(_name(photos, unit), photos[unit[0]].image_id, unit) for unit in members]
    named.sort()
    members = [unit for _, _, unit in named]
    given = np.asarray(scores)
    if len(members) == len(photos):
        largest = given[[unit[0] for unit in members]] if members else given[:0]
    else:
        starts = np.cumsum([0, *(len(unit) for unit in members[:-1])])
        largest = np.maximum.reduceat(given[[at for unit in members for at in unit]], starts)
    labels = tuple(_label([photos[at].label for at in unit]) for unit in members)
    return Units(tuple(photos), tuple(members), tuple(name for name, _, _ in named), labels, largest)


def _name(photos: Sequence[Photo], unit: tuple[int, ...]) -> str:
    first = photos[unit[0]]
    return first.group if len(unit) > 1 else first.image_id


def _label(labels: Sequence[int | None]) -> int | None:
    """1 beats unknown, unknown beats 0."""
    return 1 if 1 in labels else None if None in labels else 0
