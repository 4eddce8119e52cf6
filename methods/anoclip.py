"""AnoCLIP, zero-shot (Deng et al., arXiv 2308.15939, "AnoVL" in its first version; code hq-deng/AnoVL, ``vl_test.py``).

1. Domain-aware contrastive state prompts: t_s is the normalised mean of the embeddings of 462 prompts of state s.
2. Value-value attention: V = h_0 + sum over blocks l of O_l(softmax(v_l v_l^T / sqrt(d_head)) v_l), with v_l from the
   ordinary stream and no feed-forward network; x_i = projection(ln_post(V_i)) is the token of patch i.
3. Map: p(x) = softmax([x . t_n, x . t_a] / temperature) with x normalised; p_a, averaged over 3 x 3 patches (borders
   repeated), then bilinear upsampling.
4. Image score: mean of p_a(c_k) over the ordinary class tokens c_k of 22 augmented views k of the image.
5. Test-time adaptation replaces x in step 3 by f(x), fitted to each image alone (E: all 924 normalised prompts):

   - text adapter    f(x) = x / 2 + E^T tanh(W x / |x| + b) / 2
   - linear adapter  f(x) = x / 2 + (W x / |x| + b) / 2

   In each of 5 AdamW steps x~ = x + N(0, 0.055^2) is drawn anew and, as means over the patches,
   loss = H(p(f(x))) + [-log p_a(f(x~)) - log p_n(f(x))] / 2: certain, noisy tokens abnormal, clean ones normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad_bench.contract import Advice, FeatureBatch, FeatureRequest, Method, Prediction, TextFeatures
from zsad_bench.contract.views import VIEWS
from zsad_bench.core.errors import UserError
from zsad_bench.toolkit.draws import normal, uniform
from zsad_bench.toolkit.maps import upsample
from zsad_bench.toolkit.settings import OddInt, PositiveFloat, PositiveInt
from zsad_bench.toolkit.taps import VALUE_VALUE
from zsad_bench.toolkit.text_scores import abnormal_probability, cosines


@dataclass(kw_only=True, eq=False)
class AnoCLIP(Method):
    """AnoCLIP with or without test-time adaptation.

    The official code makes one optimiser per category and starts only the weights anew for each image: AdamW's moments
    and step count leak from image to image. ``reference_quirks`` reproduces it, and results then depend on the images
    before; otherwise the optimiser starts anew as well.
    """

    setting = "single"
    name: str = "anoclip"
    prompts: str = "anoclip"
    temperature: PositiveFloat = 1.0  # divides cosines before every softmax
    pooling: OddInt = 3  # side in patches of the average over neighbouring patches
    # Of the image score: None or "all", "identity", the first so many, or their numbers in contract.views.VIEWS.
    views: str | int | Sequence[int] | None = None
    adapt: bool = False  # step 5; it does not touch the image score
    adapter: Literal["text", "linear"] = "text"
    steps: Annotated[PositiveInt, Advice("adapt=false switches the adaptation off")] = 5  # of optimisation, an image
    lr: PositiveFloat = 0.001  # of AdamW, whose other settings are PyTorch's defaults
    noise: PositiveFloat = 0.055  # standard deviation of the noise on tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        self.view_numbers = _view_numbers(self.views)

    def take_text(self, text: TextFeatures) -> None:
        """Step 1: text vectors (2, D) and normalised prompts E (n, D) of the category; no optimiser yet."""
        # A caller may be in inference mode, whose tensors take no part in autograd; the adaptation needs ordinary ones.
        with torch.inference_mode(False):
            self.text = text.vectors()
            self.prompt_embeddings = F.normalize(torch.cat([text.normal, text.abnormal]), dim=-1)
        self._optimiser: torch.optim.AdamW | None = None

    def request(self) -> FeatureRequest:
        """Step 2: value-value patch tokens, and the class tokens of the views."""
        return FeatureRequest(taps=(VALUE_VALUE,), views=self.view_numbers)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Cosines with the normal and the abnormal text vector over the temperature: (..., D) -> (..., 2)."""
        return cosines(embeddings, self.text) / self.temperature

    def patch_scores(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Step 3 before upsampling: patch tokens (B, N, D) -> (B, h, w) in (0, 1)."""
        scores = abnormal_probability(tokens, self.text, self.temperature).unflatten(1, grid)
        margin = self.pooling // 2
        padded = F.pad(scores[:, None], (margin,) * 4, mode="replicate")
        return F.avg_pool2d(padded, self.pooling, stride=1)[:, 0]

    def view_tokens(self, batch: FeatureBatch) -> Tensor:
        """Class tokens (B, V, D) of the views."""
        return torch.stack([batch.views[view] for view in self.view_numbers], dim=1)

    def image_scores(self, class_tokens: Tensor) -> Tensor:
        """Step 4: class tokens of views (B, V, D) -> (B,) in (0, 1)."""
        return abnormal_probability(class_tokens, self.text, self.temperature).mean(dim=1)

    def initial_weights(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Weight (n_out, D) and bias (n_out,) from U(-1/sqrt(D), 1/sqrt(D)): the default start of a linear layer."""
        n_prompts, size = self.prompt_embeddings.shape
        n_out = n_prompts if self.adapter == "text" else size
        bound, device = size**-0.5, self.prompt_embeddings.device
        weight = uniform((n_out, size), generator, device, -bound, bound)
        return weight, uniform((n_out,), generator, device, -bound, bound)

    def adapted(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """f(x) of step 5 for tokens (..., D)."""
        change = F.linear(F.normalize(tokens, dim=-1), weight, bias)
        if self.adapter == "text":
            change = change.tanh() @ self.prompt_embeddings
        return 0.5 * tokens + 0.5 * change

    def loss(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """Loss of step 5 from the logits (..., 2) of clean and of noisy tokens."""
        log_clean, log_noisy = clean.log_softmax(dim=-1), noisy.log_softmax(dim=-1)
        entropy = -(log_clean.exp() * log_clean).sum(dim=-1).mean()
        labels = -(log_noisy[..., 1] + log_clean[..., 0]).mean()
        return entropy + 0.5 * labels

    def adapt_tokens(
        self,
        tokens: Tensor,
        generator: torch.Generator,
        *,
        initial: tuple[Tensor, Tensor] | None = None,
        noise: Tensor | None = None,
        arrange: Callable[[Tensor], Tensor] | None = None,
    ) -> Adaptation:
        """Fit the adapter to one image and apply it.

        Args:
            tokens: x, (..., N, D) un-normalised patch tokens; leading dimensions are parts of the same image.
            generator: draws what is not given, see :meth:`~zsad_bench.contract.Method.generator`.
            initial: weight and bias to start from, instead of :meth:`initial_weights`.
            noise: (steps, ..., N, D) to add to the tokens, instead of N(0, noise^2).
            arrange: turns the logits (..., N, 2) into those that the loss sees, for example tiles into a whole image.
        """
        arrange = arrange or (lambda logits: logits)
        start = initial or self.initial_weights(generator)
        losses = []
        with torch.inference_mode(False), torch.enable_grad():
            tokens = tokens.clone()  # as ordinary tensors, like the text features
            optimiser = self._start(start)
            weight, bias = optimiser.param_groups[0]["params"]
            for step in range(self.steps):
                drawn = normal(tokens.shape, generator, tokens.device) * self.noise if noise is None else noise[step]
                noisy = tokens + drawn
                clean_logits, noisy_logits = (
                    arrange(self.logits(self.adapted(x, weight, bias))) for x in (tokens, noisy)
                )
                loss = self.loss(clean_logits, noisy_logits)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.detach())
            weight, bias = weight.detach().clone(), bias.detach().clone()
        return Adaptation(self.adapted(tokens, weight, bias), weight, bias, torch.stack(losses))

    def _start(self, initial: tuple[Tensor, Tensor]) -> torch.optim.AdamW:
        """An optimiser whose parameters have the initial values: a new one, or with quirks the category's only one."""
        if self._optimiser is None or not self.reference_quirks:
            parameters = [torch.empty_like(value, requires_grad=True) for value in initial]
            self._optimiser = torch.optim.AdamW(parameters, lr=self.lr)
        with torch.no_grad():
            for parameter, value in zip(self._optimiser.param_groups[0]["params"], initial, strict=True):
                parameter.copy_(value)
        return self._optimiser

    def predict(self, batch: FeatureBatch) -> Prediction:
        """Image scores from the views and maps from the patch tokens, adapted or not."""
        tokens = batch.patches(VALUE_VALUE)
        if self.adapt:
            images = zip(tokens, batch.image_ids, strict=True)
            tokens = torch.stack([self.adapt_tokens(own, self.generator(name)).tokens for own, name in images])
        maps = upsample(self.patch_scores(tokens, batch.grid), batch.image_size, align_corners=True)
        return Prediction(self.image_scores(self.view_tokens(batch)), maps)


@dataclass(frozen=True)
class Adaptation:
    """Result of fitting the adapter to one image.

    Attributes:
        tokens: f(x), shape of the tokens x.
        weight: (n_out, D) after the last step.
        bias: (n_out,) after the last step.
        losses: (steps,) the loss before each step.
    """

    tokens: Tensor
    weight: Tensor
    bias: Tensor
    losses: Tensor


def _view_numbers(views: str | int | Sequence[int] | None) -> tuple[int, ...]:
    """The numbers that a ``views`` key stands for."""
    if views is None or views == "all":
        return tuple(range(len(VIEWS)))
    if views == "identity":
        return (0,)
    numbers = tuple(range(views)) if isinstance(views, int) else () if isinstance(views, str) else tuple(views)
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(len(VIEWS))):
        raise UserError(
            f"method.views={views}: must be all, identity, a number of 1 to {len(VIEWS)}, or a list of different "
            f"numbers of 0 to {len(VIEWS) - 1}"
        )
    return numbers
