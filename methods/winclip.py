"""WinCLIP, zero-shot (Jeong et al., CVPR 2023, arXiv 2303.14814).

1. Compositional prompt ensemble (section 4.1): text vectors t_normal and t_abnormal.
2. Window features (section 4.2): every k x k window of patches passes through the image tower alone, with its class
   token: f_w. The whole image gives f.
3. Scores (eq. 1): s(f) = softmax([f . t_normal, f . t_abnormal] / temperature)[abnormal].
4. Harmonic aggregation (eq. 4): every patch takes the harmonic mean of the scores of the windows that cover it,
   M_k(i) = n_i / sum_{w contains i} 1 / s_w; a patch is anomalous only if all its windows say so.
5. Map: harmonic mean over the scales k and, as a constant further scale, the image score:
   M(i) = 3 / (1 / M_2(i) + 1 / M_3(i) + 1 / s(f)). The image score is s(f).

The paper gives no temperature and no code. Four public re-implementations disagree; ``docs/methods/winclip.md`` lists
how. One of them (caoyunkang/WinClip) averages normality instead, M(i) = 1 - harmonic mean of 1 - s, so that a patch is
anomalous if ONE of its windows says so, and takes the maximum of the map as image score: ``evidence`` and
``image_score``.

All of it is computed with log odds. With s = sigmoid(z), z = (f . t_abnormal - f . t_normal) / temperature,
1 / s = 1 + exp(-z): the harmonic mean of probabilities has the log odds -log mean exp(-z), and one minus the harmonic
mean of 1 - s has log mean exp(z). So no 1 - s loses digits, and no 1 / s overflows where a probability is 0 or 1 to the
last bit (small temperatures): the limits come out, such as 0 for a harmonic mean with a 0 in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval, MinLen
from torch import Tensor

from zsad_bench.contract import FeatureBatch, FeatureRequest, Method, Prediction, Setting, TextFeatures
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.settings import PositiveInt


@dataclass(kw_only=True, eq=False)
class WinCLIP(Method):
    """Zero-shot WinCLIP.

    With ``reference_quirks`` and ``evidence=normality`` the map is halved, because that code fuses the text map with
    itself as if it were a second map.
    """

    setting: ClassVar[Setting] = "single"
    name: str = "winclip"
    prompts: str = "winclip"
    prompt_average: Literal["unit", "raw"] | None = None  # None keeps the ensemble's own rule
    # Divides cosines before the softmax. Within these bounds no sum of exponentials leaves float32.
    temperature: Annotated[float, Interval(ge=1e-30, le=1e30)] = 0.07
    windows: Annotated[Sequence[PositiveInt], MinLen(1)] = (2, 3)  # side lengths in patches
    image_term: bool = True  # whether the image score enters the map as a constant scale
    evidence: Literal["anomaly", "normality"] = "anomaly"  # step 4, or one minus the harmonic mean of 1 - s
    image_score: Literal["text", "map"] = "text"  # step 5, or the maximum of the map

    def take_text(self, text: TextFeatures) -> None:
        """Step 1: text vectors of the category."""
        self.text = text.vectors(self.prompt_average)

    def request(self) -> FeatureRequest:
        """Step 2: window embeddings of every scale."""
        if max(self.windows) > min(self.encoder.grid):
            raise UserError(
                f"method.windows={list(self.windows)}: larger than the encoder's grid of {self.encoder.grid} patches"
            )
        return FeatureRequest(windows=tuple(self.windows))

    def log_odds(self, embeddings: Tensor) -> Tensor:
        """Step 3: log odds (...) of the abnormal state for embeddings (..., D).

        They are those of :func:`zsad_bench.toolkit.text_scores.log_odds` but for rounding: there are many windows, and
        with the text vectors subtracted first each takes one product.
        """
        return F.normalize(embeddings, dim=-1) @ (self.text[1] - self.text[0]) / self.temperature

    def score(self, embeddings: Tensor) -> Tensor:
        """Eq. 1: abnormal probability (...) in [0, 1] of embeddings (..., D)."""
        return torch.sigmoid(self.log_odds(embeddings))

    def aggregate(self, scores: Tensor, side: int) -> Tensor:
        """Eq. 4: window scores (B, n_windows), 0 or more -> harmonic mean per patch (B, N), 0 where a score is 0."""
        return (-log_mean_over_windows(-scores.log(), self.encoder.grid, side)).exp()

    def patch_scores(self, batch: FeatureBatch) -> Tensor:
        """Harmonic mean over scales: (B, h, w) in [0, 1]."""
        sign = -1 if self.evidence == "anomaly" else 1
        scales = [
            log_mean_over_windows(sign * self.log_odds(batch.windows[side]), batch.grid, side) for side in self.windows
        ]
        if self.image_term:
            scales.append((sign * self.log_odds(batch.class_tokens))[:, None].expand_as(scales[0]))
        mean = torch.stack(scales).logsumexp(dim=0) - math.log(len(scales))
        return torch.sigmoid(sign * mean).unflatten(1, batch.grid)

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Image scores and the harmonic map."""
        maps = upsample(self.patch_scores(batch), batch.image_size)
        if self.reference_quirks and self.evidence == "normality":
            maps = maps / 2
        return Prediction(maps.amax(dim=(1, 2)) if self.image_score == "map" else self.score(batch.class_tokens), maps)


def log_mean_over_windows(values: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Of every patch, log mean exp of the values of the windows that cover it.

    Args:
        values: (B, n_windows) of all side x side windows with stride 1, row by row; infinite values are allowed.
        grid: patches (h, w).
        side: of a window, in patches.

    Returns:
        (B, h * w).
    """
    windows = (grid[0] - side + 1, grid[1] - side + 1)
    counts = _log_sum_over_windows(values.new_zeros(windows), side)
    return (_log_sum_over_windows(values.unflatten(-1, windows), side) - counts).flatten(-2)


def _log_sum_over_windows(values: Tensor, side: int) -> Tensor:
    """Log sum exp over the windows that cover a patch: (..., h - k + 1, w - k + 1) -> (..., h, w).

    One direction after the other.
    """
    for _ in range(2):
        padded = F.pad(values, (side - 1, side - 1), value=-math.inf)
        values = padded.unfold(-1, side, 1).logsumexp(dim=-1).transpose(-1, -2)
    return values
