"""The batches of an epoch, gathered ahead of the step that takes them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from t2ipal.features.ahead import ahead
from t2ipal.features.sets import FeatureSet, TrainingFeatures


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch, on its device."""

    images: FeatureSet | None
    """One of each caption that has any; None where none are used."""
    texts: FeatureSet | None
    num_images: int
    """Images of all workers' parts together."""
    num_texts: int


@dataclass(frozen=True)
class Share:
    """Which part of each batch a worker takes, and where to."""

    rank: int
    world_size: int
    device: torch.device
    uses_images: bool
    uses_texts: bool


def epoch_batches(
    data: TrainingFeatures,
    order: Int[Tensor, " captions"],
    image_of: Int[Tensor, " captions"],
    batch_size: int,
    share: Share,
) -> Iterator[Batch]:
    """The batches of an epoch; no other row than a worker's own is read.

    Args:
        data: all captions and images.
        order: of the captions.
        image_of: row of the image that each caption shows in this epoch; -1: none.
        batch_size: captions of a batch, over all workers.
        share: whose part.
    """

    def gather(batch: Int[Tensor, " batch"]) -> Batch:
        image_rows = image_of[batch]
        part = slice(share.rank, None, share.world_size)
        mine, images = batch[part], image_rows[part]
        return Batch(
            data.images.rows(images[images >= 0], share.device)
            if share.uses_images and data.images is not None
            else None,
            data.texts.rows(mine, share.device) if share.uses_texts else None,
            num_images=int((image_rows >= 0).sum()),
            num_texts=len(batch),
        )

    return ahead(gather, order.split(batch_size))
