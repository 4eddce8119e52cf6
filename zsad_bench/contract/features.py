"""What a method may ask of the encoder, and what it gets for one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, order=True)
class Stream:
    """A surgery stream: a running sum of attention outputs that never feeds back into the ordinary residual stream.

    Block ``l`` contributes ``O_l(A v)``, where ``A`` is the mean over ``attention`` of the self-self attention maps
    ``softmax(z z^T / sqrt(d_head))`` with ``z`` the queries, keys or values that block ``l`` computes from the
    *ordinary* stream. There is no feed-forward network (CLIP Surgery, arXiv 2304.05653; AnoVL, arXiv 2308.15939;
    CLIP-AD, arXiv 2311.00453).

    Attributes:
        attention: which projections attend to themselves, out of ``"q"``, ``"k"``, ``"v"``.
        start: first contributing block, 1-based.
        restart: the sum starts anew after every so many blocks counted from ``start``; 0 means never.
        embedding: whether the embedded tokens (after ``ln_pre``) are the first summand.
    """

    attention: tuple[str, ...] = ("v",)
    start: int = 1
    restart: int = 0
    embedding: bool = False

    def __post_init__(self) -> None:
        if not self.attention or set(self.attention) - {"q", "k", "v"}:
            raise ValueError(f"Stream.attention must name some of 'q', 'k', 'v', got {self.attention}")
        if self.start < 1 or self.restart < 0:
            raise ValueError(f"Stream.start must be >= 1 and restart >= 0, got {self.start} and {self.restart}")


@dataclass(frozen=True)
class Tap:
    """A point of the image tower at which tokens are taken.

    Attributes:
        block: 1-based block number, as papers count; -1 is the last block.
        stream: a surgery stream, or None for the ordinary residual stream.
        projected: apply ``ln_post`` and the visual projection, as CLIP does to its class token.
        after_attention: take the ordinary stream between the block's attention and its feed-forward network.
        normed: apply ``ln_post`` alone, without the projection.
        class_only: take the class-token row alone; the encoder then skips what only patches would need.

    Example:
        >>> Tap(-1, projected=True).resolve(n_blocks=12)
        Tap(block=12, stream=None, projected=True, after_attention=False, normed=False, class_only=False)
        >>> Tap(24).resolve(n_blocks=12)
        Traceback (most recent call last):
        ValueError: tap after block 24, but the image tower has 12 blocks
    """

    block: int
    stream: Stream | None = None
    projected: bool = False
    after_attention: bool = False
    normed: bool = False
    class_only: bool = False

    def __post_init__(self) -> None:
        if self.block < 1 and self.block != -1:
            raise ValueError(f"Tap.block is 1-based (or -1 for the last block), got {self.block}")
        if self.after_attention and self.stream is not None:
            raise ValueError("Tap.after_attention exists for the ordinary stream only")
        if self.normed and self.projected:
            raise ValueError("Tap.projected includes ln_post; Tap.normed is ln_post without the projection")

    def resolve(self, n_blocks: int) -> Tap:
        """The same tap with a positive block number; raises ValueError if the tower has fewer blocks."""
        block = n_blocks if self.block == -1 else self.block
        if block > n_blocks:
            raise ValueError(f"tap after block {block}, but the image tower has {n_blocks} blocks")
        return replace(self, block=block)


CLASS = "class"
"""Name of the class token, which every batch has."""


def tap_name(tap: Tap) -> str:
    """A name for a resolved tap, for example ``tap.12`` or ``tap.12.v1.0.e.projected``."""
    parts = ["tap", str(tap.block)]
    if tap.stream is not None:
        stream = tap.stream
        parts += [f"{''.join(stream.attention)}{stream.start}", str(stream.restart)]
        parts += ["e"] if stream.embedding else []
    parts += ["projected"] if tap.projected else []
    parts += ["normed"] if tap.normed else []
    parts += ["after_attention"] if tap.after_attention else []
    parts += ["class"] if tap.class_only else []
    return ".".join(parts)


def window_name(side: int) -> str:
    """Name of the embeddings of all windows of a side length."""
    return f"window.{side}"


def view_name(view: int) -> str:
    """Name of the class token of an augmented view; view 0 is the image itself."""
    return f"view.{view}" if view else CLASS


@dataclass(frozen=True)
class FeatureRequest:
    """Everything a method needs of the encoder, besides the class token that every batch has.

    Attributes:
        taps: token taps.
        windows: side lengths, in patches, of the square windows (stride 1) that are embedded one by one.
        views: numbers of augmented views (:data:`zsad_bench.contract.views.VIEWS`) of which the class token is wanted.
        pixels: whether the method wants the pixel tensor and the ``encode`` callable.

    Example:
        What two methods want, asked for once:

        >>> both = FeatureRequest(taps=(Tap(6), Tap(12))).union(FeatureRequest(taps=(Tap(12),), windows=(2, 3)))
        >>> [tap.block for tap in both.taps], both.windows
        ([6, 12], (2, 3))
    """

    taps: tuple[Tap, ...] = ()
    windows: tuple[int, ...] = ()
    views: tuple[int, ...] = ()
    pixels: bool = False

    def resolve(self, n_blocks: int) -> FeatureRequest:
        """The same request with positive block numbers and every entry once, in a fixed order."""
        return FeatureRequest(
            taps=tuple(sorted({tap.resolve(n_blocks) for tap in self.taps}, key=repr)),
            windows=tuple(sorted(set(self.windows))),
            views=tuple(sorted(set(self.views))),
            pixels=self.pixels,
        )

    def union(self, other: FeatureRequest) -> FeatureRequest:
        """Everything that one of the two requests asks for; each entry once."""
        return FeatureRequest(
            taps=tuple(dict.fromkeys((*self.taps, *other.taps))),
            windows=tuple(dict.fromkeys((*self.windows, *other.windows))),
            views=tuple(dict.fromkeys((*self.views, *other.views))),
            pixels=self.pixels or other.pixels,
        )


@dataclass(frozen=True)
class FeatureBatch:
    """Features of the images of one batch, all of one category, in float32, all on one device.

    Attributes:
        image_ids: one id per image, unique in the dataset.
        class_tokens: (B, D) projected class tokens, not normalised: CLIP's image embedding.
        tokens: per tap (B, 1 + N, C), class token first, or (B, 1, C) if the tap wants that alone; C is the embedding
            size if projected, else the width.
        grid: (h, w) patches, N = h * w, row-major.
        image_size: (H, W) pixels of the encoder's input, the size of anomaly maps.
        windows: per window side k (B, (h - k + 1) * (w - k + 1), D) projected class tokens, row-major positions.
        views: per augmented view (B, D) projected class tokens.
        pixels: (B, 3, H, W) normalised images, only if requested.
        encode: encodes derived images of the same size, only if ``pixels`` was requested.
    """

    image_ids: tuple[str, ...]
    class_tokens: Tensor
    tokens: Mapping[Tap, Tensor]
    grid: tuple[int, int]
    image_size: tuple[int, int]
    windows: Mapping[int, Tensor] = field(default_factory=dict)
    views: Mapping[int, Tensor] = field(default_factory=dict)
    pixels: Tensor | None = None
    encode: Callable[[Tensor, FeatureRequest], FeatureBatch] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def device(self) -> torch.device:
        """Where the features lie: what a method makes belongs there too."""
        return self.class_tokens.device

    def to(self, device: torch.device) -> FeatureBatch:
        """The same features on a device; what lies there is not copied."""
        return replace(
            self,
            class_tokens=self.class_tokens.to(device),
            tokens={tap: tokens.to(device) for tap, tokens in self.tokens.items()},
            windows={side: vectors.to(device) for side, vectors in self.windows.items()},
            views={view: vectors.to(device) for view, vectors in self.views.items()},
            pixels=None if self.pixels is None else self.pixels.to(device),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        parts = [self.class_tokens, *self.tokens.values(), *self.windows.values(), *self.views.values()]
        return sum(part.nbytes for part in parts) + (0 if self.pixels is None else self.pixels.nbytes)

    def patches(self, tap: Tap) -> Tensor:
        """Patch tokens (B, N, C) of a requested tap; raises ValueError if the tap takes the class token only."""
        if tap.class_only:
            raise ValueError(f"{tap} takes the class token only; request it without class_only to have patches")
        return self.tokens[tap][:, 1:]

    def class_token(self, tap: Tap) -> Tensor:
        """Class-token row (B, C) of a requested tap."""
        return self.tokens[tap][:, 0]

    def select(self, images: Sequence[int]) -> FeatureBatch:
        """Copies of the features of some images, by position, in the order given."""
        rows = torch.tensor(list(images), dtype=torch.long).to(self.class_tokens.device)
        return replace(
            self,
            image_ids=tuple(self.image_ids[row] for row in images),
            class_tokens=self.class_tokens[rows],
            tokens={tap: tokens[rows] for tap, tokens in self.tokens.items()},
            windows={side: vectors[rows] for side, vectors in self.windows.items()},
            views={view: vectors[rows] for view, vectors in self.views.items()},
            pixels=None if self.pixels is None else self.pixels[rows.to(self.pixels.device)],
        )

    @staticmethod
    def concatenate(parts: Sequence[FeatureBatch]) -> FeatureBatch:
        """One batch of several parts that were encoded with the same request."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        pixels = [part.pixels for part in parts if part.pixels is not None]
        return replace(
            first,
            image_ids=tuple(image_id for part in parts for image_id in part.image_ids),
            class_tokens=torch.cat([part.class_tokens for part in parts]),
            tokens={tap: torch.cat([part.tokens[tap] for part in parts]) for tap in first.tokens},
            windows={side: torch.cat([part.windows[side] for part in parts]) for side in first.windows},
            views={view: torch.cat([part.views[view] for part in parts]) for view in first.views},
            pixels=torch.cat(pixels) if len(pixels) == len(parts) else None,
        )
