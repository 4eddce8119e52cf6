"""The parts of a feature request by name: what the feature store keeps one by one, and how a batch is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zsad_bench.contract import EncoderSpec, FeatureBatch, FeatureRequest
from zsad_bench.contract.features import CLASS, tap_name, view_name, window_name


def items_of(request: FeatureRequest, n_blocks: int) -> dict[str, FeatureRequest]:
    """Name -> the request for this part alone; the class token, which every batch has, comes first."""
    resolved = request.resolve(n_blocks)
    return {
        CLASS: FeatureRequest(),
        **{tap_name(tap): FeatureRequest(taps=(tap,)) for tap in resolved.taps},
        **{window_name(side): FeatureRequest(windows=(side,)) for side in resolved.windows},
        **{view_name(view): FeatureRequest(views=(view,)) for view in resolved.views if view},
    }


def split(batch: FeatureBatch, names: Sequence[str], n_blocks: int) -> dict[str, Tensor]:
    """The named parts of an encoded batch, each with one entry per image first."""
    found = {tap_name(tap.resolve(n_blocks)): tokens for tap, tokens in batch.tokens.items()}
    found |= {window_name(side): vectors for side, vectors in batch.windows.items()}
    found |= {view_name(view): vectors for view, vectors in batch.views.items()}
    found[CLASS] = batch.class_tokens
    return {name: found[name] for name in names}


def assemble(
    items: Mapping[str, Tensor], request: FeatureRequest, spec: EncoderSpec, image_ids: Sequence[str]
) -> FeatureBatch:
    """The batch that ``request`` asked for, from its parts (float32), which lie on one device."""
    return FeatureBatch(
        image_ids=tuple(image_ids),
        class_tokens=items[CLASS],
        tokens={tap: items[tap_name(tap.resolve(spec.n_blocks))] for tap in request.taps},
        grid=spec.grid,
        image_size=(spec.image_size, spec.image_size),
        windows={side: items[window_name(side)] for side in request.windows},
        views={view: items[view_name(view)] for view in request.views},
    )


def stack(rows: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Stored parts of single images as parts of a batch on a device, in float32; they move as 16 bits if stored so."""
    return {name: torch.stack([row[name] for row in rows]).to(device).float() for name in rows[0]}
