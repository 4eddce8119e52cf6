"""The features of one category's images, batch after batch: what every source of them gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from zsad_bench.contract import FeatureBatch, Sample
from zsad_bench.data.images import UnreadableImage

# Images that are encoded and stored together: what an interrupted run loses at most.
GROUP = 16


class CategoryFeatures(ABC):
    """The features of one category's images, batch after batch.

    Attributes:
        unreadable: what is wrong with each image that is left out, by image id.
    """

    unreadable: dict[str, UnreadableImage]

    @abstractmethod
    def batches(self, batches: Sequence[Sequence[Sample]]) -> Iterator[FeatureBatch]:
        """The features of batch after batch of readable images, on the encoder's device wherever they come from.

        Raises:
            UnreadableImage: an image that can no longer be read; names the file.
            UserError: encoding is not allowed and features are missing, or the store cannot be written.
        """
