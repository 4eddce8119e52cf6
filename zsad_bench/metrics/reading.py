"""What metrics are given, as arrays: tensors and lists too, image by image, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np


def to_numpy(values: ArrayLike | Sequence[int] | Sequence[float] | int) -> np.ndarray:
    """Array of anything array-like, torch tensors on any device included. numpy lacks bfloat16: float32 then."""
    if hasattr(values, "detach"):  # a torch tensor, recognised without importing torch
        tensor = values.detach().cpu()
        return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    return np.asarray(values)


def sort_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """float32 when it holds every value of all `dtypes` exactly, else float64."""
    if any(dtype.kind not in "fiub" for dtype in dtypes):
        raise ValueError(f"scores must be real numbers, got {', '.join(sorted({str(dtype) for dtype in dtypes}))}")
    return np.dtype(np.float32 if all(np.can_cast(dtype, np.float32) for dtype in dtypes) else np.float64)


def binary(truth: np.ndarray, name: str) -> np.ndarray:
    """Bool array of an array that holds only 0 and 1. Raises ValueError naming `name` otherwise."""
    positive: np.ndarray = truth == 1
    if not np.array_equal(positive, truth != 0):
        raise ValueError(f"{name} must hold only 0 (normal) and 1 (anomalous)")
    return positive


def _mask(mask: np.ndarray) -> np.ndarray:
    """Bool mask: non-zero is anomalous. A float mask with fractions was resized but not thresholded: refused."""
    if mask.dtype == bool:
        return mask
    return mask != 0 if mask.dtype.kind in "iu" else binary(mask, "float masks")


class Pairs:
    """(mask, map) of every image, both (H_i, W_i), read when they are asked for, without a copy where the type allows.

    Raises ValueError, as `pixel_metrics` says.

    Attributes:
        dtype: in which all scores can be compared.
        n_positive, n_negative: anomalous and normal pixels.
    """

    def __init__(self, masks: ArrayLike | Sequence[ArrayLike], maps: ArrayLike | Sequence[ArrayLike]) -> None:
        for name, given in (("masks", masks), ("maps", maps)):
            if getattr(given, "ndim", 3) != 3:
                raise ValueError(f"{name} must have three dimensions (n, H, W), got {getattr(given, 'ndim', None)}")
        if len(masks) != len(maps):
            raise ValueError(f"{len(masks)} masks but {len(maps)} maps")
        if not len(maps):
            raise ValueError("no image to evaluate: masks and maps are empty")
        self._masks, self._maps = masks, maps
        dtypes = set()
        self.n_positive = self.n_negative = 0
        for mask, scores in self:
            dtypes.add(scores.dtype)
            count = int(np.count_nonzero(mask))
            self.n_positive += count
            self.n_negative += mask.size - count
        self.dtype = sort_dtype(sorted(dtypes, key=str))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in range(len(self._maps)):
            mask, scores = to_numpy(self._masks[index]), to_numpy(self._maps[index])
            if mask.ndim != 2 or mask.shape != scores.shape or not mask.size:
                raise ValueError(
                    f"image {index}: mask and map must have two dimensions, the same shape and at least one pixel, "
                    f"got shapes {mask.shape} and {scores.shape}"
                )
            yield _mask(mask), scores


if TYPE_CHECKING:
    from torch import Tensor

    ArrayLike: TypeAlias = np.ndarray | Tensor
