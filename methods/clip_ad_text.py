"""Representative vector selection (CLIP-AD, arXiv 2311.00453): from many prompt embeddings to one vector a state.

With the prompts of one state as unit vectors e_1 .. e_n, the representative is r / |r| with

- ``mean``: r = mean_i e_i, as in CLIP's own prompt ensembling, computed where the embeddings lie; the others are
  computed on the CPU in float64, once a category, and their result returns to the device:
- ``pca``: r = first principal component *score*. Dimensions are the samples and prompts the variables (so the code
  calls it): every e_i loses its own mean over the D dimensions, and r is the first left singular vector of the
  (D, n) matrix, turned towards the mean;
- ``kde``: r = sum_i p_i e_i, where p_i is the density at e_i of a Gaussian kernel estimate with bandwidth 0.3;
- ``dbscan``: mean of the largest cluster of DBSCAN, noise left out; of equal clusters the first;
- ``mean_shift``: mean of the largest cluster of mean shift with bandwidth 2.

Two unit vectors are at most 2 apart, so mean shift with bandwidth 2 finds one cluster and equals ``mean``; so does
DBSCAN with the radius 1.5 that the official code takes for VisA, unless prompts are almost opposite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.cluster import DBSCAN, MeanShift
from sklearn.decomposition import PCA
from sklearn.neighbors import KernelDensity
from torch import Tensor, from_numpy

from zsad_bench.core.errors import UserError

Vectors = NDArray[np.float64]

KDE_BANDWIDTH = 0.3
MEAN_SHIFT_BANDWIDTH = 2.0


def _mean(units: Vectors) -> Vectors:
    return np.asarray(units.mean(axis=0))


def _pca(units: Vectors) -> Vectors:
    scores = PCA(n_components=1, svd_solver="full").fit_transform(units.T)[:, 0]
    return np.asarray(scores if scores @ _mean(units) >= 0 else -scores)


def _kde(units: Vectors) -> Vectors:
    log_density = KernelDensity(kernel="gaussian", bandwidth=KDE_BANDWIDTH).fit(units).score_samples(units)
    return np.asarray(softmax(log_density) @ units)  # exp of a log density overflows in many dimensions


def _mean_shift(units: Vectors) -> Vectors:
    return _largest_cluster(units, MeanShift(bandwidth=MEAN_SHIFT_BANDWIDTH).fit_predict(units))


def _largest_cluster(units: Vectors, labels: NDArray[np.int64]) -> Vectors:
    """Mean of the largest cluster; labels below 0 are noise."""
    return np.asarray(units[labels == np.bincount(labels[labels >= 0]).argmax()].mean(axis=0))


_CHOICES: dict[str, Callable[[Vectors], Vectors]] = {
    "pca": _pca,
    "kde": _kde,
    "mean_shift": _mean_shift,
}
TextVector = Literal["mean", "pca", "kde", "dbscan", "mean_shift"]


def dbscan_labels(embeddings: Tensor, eps: float, min_samples: int) -> NDArray[np.int64]:
    """Cluster (n,) of each prompt embedding (n, D), Euclidean on unit vectors; -1 is noise."""
    return _dbscan(_units(embeddings), eps, min_samples)


def _dbscan(units: Vectors, eps: float, min_samples: int) -> NDArray[np.int64]:
    return np.asarray(DBSCAN(eps=eps, min_samples=min_samples).fit_predict(units), dtype=np.int64)


def representative(
    embeddings: Tensor, choice: TextVector, dbscan_eps: float = 0.5, dbscan_min_samples: int = 15
) -> Tensor:
    """One unit vector (D,) for the prompt embeddings (n, D) of one state.

    Args:
        embeddings: as CLIP gives them; they are normalised here.
        choice: how to represent them.
        dbscan_eps: radius of DBSCAN on the unit sphere, 0 to 2.
        dbscan_min_samples: prompts within the radius, itself included, that make a core point.

    Raises:
        UserError: DBSCAN takes every prompt for noise.
    """
    if choice == "mean":
        return F.normalize(F.normalize(embeddings, dim=-1).mean(dim=0), dim=0)
    units = _units(embeddings)
    if choice == "dbscan":
        labels = _dbscan(units, dbscan_eps, dbscan_min_samples)
        if labels.max() < 0:
            raise UserError(
                f"method.text_vector=dbscan: all {len(units)} prompts of a state are noise with dbscan_eps={dbscan_eps}"
                f" and dbscan_min_samples={dbscan_min_samples}; raise dbscan_eps, or use text_vector=mean"
            )
        vector = _largest_cluster(units, labels)
    else:
        vector = _CHOICES[choice](units)
    return F.normalize(from_numpy(vector.astype(np.float32)).to(embeddings), dim=0)


def _units(embeddings: Tensor) -> Vectors:
    return np.asarray(F.normalize(embeddings.cpu().double(), dim=-1).numpy())
