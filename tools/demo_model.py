"""The forward pass of a small open_clip ViT CLIP written out, fast on a CPU and with dropped tokens.

open_clip's own attention needs several times as long to train on a CPU; the parameters are open_clip's, so the result
loads there without any change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.model import CLIP
from torch import Tensor, nn

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 112, "layers": 4, "width": 192, "patch_size": 8, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
GRID = 14
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@dataclass
class ImageFeatures:
    """Unit vectors in the joint space: image (n, e), patches (n, t, e), and the v-v patches (m, t, e) or None; tokens
    (n, t, width) are the patches after ln_post, not yet projected."""

    image: Tensor
    patches: Tensor
    dual: Tensor | None
    tokens: Tensor


class AuxiliaryHeads(nn.Module):
    """Helpers in training only: which pixels of a patch are defective (64), and by which defect type."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        width, side = CONFIG["vision_cfg"]["width"], CONFIG["vision_cfg"]["patch_size"]
        self.mask, self.kind = nn.Linear(width, side * side), nn.Linear(width, kinds)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, t, 64) and (n, t, kinds), fp32."""
        return self._apply_to(tokens, self.mask), self._apply_to(tokens, self.kind)

    def _apply_to(self, tokens: Tensor, layer: nn.Linear) -> Tensor:
        return F.linear(tokens, layer.weight.to(tokens.dtype), layer.bias.to(tokens.dtype)).float()


def patchify(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 images (n, 112, 112, 3), or floats in [0, 1], to normalised patch vectors (n, 196, 192) in conv order."""
    pixels = torch.as_tensor(images)
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    pixels = (pixels - MEAN) / STD
    n, side = pixels.shape[0], pixels.shape[1] // GRID
    return pixels.view(n, GRID, side, GRID, side, 3).permute(0, 1, 3, 5, 2, 4).reshape(n, GRID * GRID, -1)


class Forward:
    """Runs a CLIP's towers in a given precision; weights stay in fp32 and are cast where they are used."""

    def __init__(self, model: CLIP, dtype: torch.dtype = torch.bfloat16) -> None:
        self.model, self.dtype = model, dtype

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight.to(self.dtype), None if bias is None else bias.to(self.dtype))

    def _norm(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, norm.weight.to(self.dtype), norm.bias.to(self.dtype), norm.eps)

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention over (n, heads, t, d), back as (n, t, heads * d)."""
        logits = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]))
        if mask is not None:
            logits = logits + mask
        mixed = torch.softmax(logits, dim=-1) @ value
        return mixed.transpose(1, 2).flatten(2)

    def _block(self, x: Tensor, block: Any, mask: Tensor | None, dual: int) -> tuple[Tensor, Tensor | None]:
        """One residual block, and the v-v attention output of the first `dual` images."""
        attention = block.attn
        y = self._linear(self._norm(x, block.ln_1), attention.in_proj_weight, attention.in_proj_bias)
        n, t, _ = y.shape
        query, key, value = y.view(n, t, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out = attention.out_proj
        x = x + self._linear(self._mix(query, key, value, mask), out.weight, out.bias)
        side = None
        if dual:
            v = value[:dual]
            side = self._linear(self._mix(v, v, v), out.weight, out.bias)
        hidden = F.gelu(self._linear(self._norm(x, block.ln_2), block.mlp.c_fc.weight, block.mlp.c_fc.bias))
        return x + self._linear(hidden, block.mlp.c_proj.weight, block.mlp.c_proj.bias), side

    def layers(self, patches: Tensor, keep: Tensor | None = None, dual: int = 0) -> tuple[list[Tensor], Tensor | None]:
        """Token states (n, 1 + t, width) after each block, and of the dual path of the first `dual` images.

        patches (n, 196, 192); keep (n, t) picks patch tokens. The dual path starts from the normalised embedding and
        adds the v-v attention of every block, computed from the ordinary path's state.
        """
        visual = self.model.visual
        position = visual.positional_embedding
        x = self._linear(patches.to(self.dtype), visual.conv1.weight.flatten(1))
        x = x + position[1:].to(self.dtype)
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
        first = (visual.class_embedding + position[0]).to(self.dtype).expand(x.shape[0], 1, -1)
        x = self._norm(torch.cat([first, x], dim=1), visual.ln_pre)
        side = x[:dual] if dual else None
        states = []
        for block in visual.transformer.resblocks:
            x, extra = self._block(x, block, None, dual)
            side = side + extra if side is not None and extra is not None else None
            states.append(x)
        return states, side

    def project(self, tokens: Tensor) -> Tensor:
        """Unit vectors in the joint space, fp32."""
        visual = self.model.visual
        return F.normalize(self._linear(self._norm(tokens, visual.ln_post), visual.proj.T).float(), dim=-1)

    def images(self, patches: Tensor, keep: Tensor | None = None, dual: int = 0) -> ImageFeatures:
        """Features of patch vectors, see `layers`."""
        states, side = self.layers(patches, keep, dual)
        normed = self._norm(states[-1], self.model.visual.ln_post)
        unit = F.normalize(self._linear(normed, self.model.visual.proj.T).float(), dim=-1)
        dual_patches = None if side is None else self.project(side[:, 1:])
        return ImageFeatures(unit[:, 0], unit[:, 1:], dual_patches, normed[:, 1:])

    def texts(self, ids: Tensor) -> Tensor:
        """Unit text vectors (n, e) of token ids (n, t); the end token has the largest id, as open_clip expects."""
        model = self.model
        t = ids.shape[1]
        x = (model.token_embedding(ids) + model.positional_embedding[:t]).to(self.dtype)
        mask = torch.full((t, t), float("-inf"), dtype=self.dtype).triu_(1)
        for block in model.transformer.resblocks:
            x, _ = self._block(x, block, mask, 0)
        x = self._norm(x, model.ln_final)
        last = x[torch.arange(len(ids)), ids.argmax(dim=1)]
        return F.normalize(self._linear(last, model.text_projection.T).float(), dim=-1)


def _sincos(width: int) -> Tensor:
    """Two-dimensional sine and cosine positions (196, width)."""
    quarter = width // 4
    rate = 1 / (100 ** (torch.arange(quarter) / quarter))
    at = torch.arange(GRID).float()[:, None] * rate
    wave = torch.cat([at.sin(), at.cos()], dim=1)
    rows = wave[:, None].expand(GRID, GRID, -1)
    columns = wave[None].expand(GRID, GRID, -1)
    return torch.cat([rows, columns], dim=-1).reshape(GRID * GRID, width)


@torch.no_grad()
def initialise(model: CLIP, sample: Tensor, vocabulary_size: int) -> None:
    """Start values: whitening of `sample` patches (n, 196, 192) in conv1, sine positions, small residual outputs.

    The token table becomes the compact one (vocabulary_size + 1, width); row 0, all unknown words, stays zero.
    """
    visual = model.visual
    flat = sample.flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    white = vectors / (values + 0.01 * values.mean()).sqrt()
    visual.conv1.weight.copy_(white.T.flip(0).float().view_as(visual.conv1.weight))
    width = visual.positional_embedding.shape[1]
    visual.positional_embedding.zero_()
    visual.positional_embedding[1:] = 0.5 * _sincos(width)
    visual.class_embedding.normal_(0, 0.3)
    for tower in (visual.transformer, model.transformer):
        for block in tower.resblocks:
            block.attn.out_proj.weight.mul_(0.3)
            block.mlp.c_proj.weight.mul_(0.3)
    table = nn.Embedding(vocabulary_size + 1, model.positional_embedding.shape[1], padding_idx=0)
    table.weight.normal_(0, 0.05)
    table.weight[0].zero_()
    model.token_embedding = table
    model.logit_scale.fill_(math.log(20.0))
