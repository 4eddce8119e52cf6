"""Losses between maps of abnormal probability and masks."""

from __future__ import annotations

from torch import Tensor

_FOCAL_POWER = 2
_CLAMP = 1e-5
_DICE_SMOOTHING = 1.0


def focal_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Mean over pixels of -(1 - q)^2 log q (Lin et al., ICCV 2017), in the form of CLIP-AD's code.

    q is the probability of the right class, with the one-hot target clamped to [1e-5, 1 - 1e-5] and 1e-5 added.

    Args:
        probabilities: of the abnormal class, any shape, 0 to 1.
        masks: same shape, 1 where anomalous, else 0.
    """
    abnormal = masks.clamp(_CLAMP, 1 - _CLAMP)
    right = abnormal * probabilities + (1 - abnormal) * (1 - probabilities) + _CLAMP
    return -((1 - right) ** _FOCAL_POWER * right.log()).mean()


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Mean over samples (the first axis) of 1 - (2 sum(p y) + 1) / (sum p + sum y + 1), soft and without squares."""
    p, y = probabilities.flatten(1), masks.flatten(1)
    overlap = 2 * (p * y).sum(dim=1) + _DICE_SMOOTHING
    return (1 - overlap / (p.sum(dim=1) + y.sum(dim=1) + _DICE_SMOOTHING)).mean()
