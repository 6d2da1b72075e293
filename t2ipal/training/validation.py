"""Captions held out of training, whose synthetic images validate what was trained on the others."""

import dataclasses

import torch
from jaxtyping import Bool
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.sets import FeatureTable, TrainingFeatures


def split_captions(
    data: TrainingFeatures, fraction: float, seed: int
) -> tuple[TrainingFeatures, FeatureTable]:
    """Training features without the held-out captions, and all images of the held-out ones."""
    held = held_out_captions(data, fraction, seed)
    return without_captions(data, held), images_of(data, held)


def held_out_captions(
    data: TrainingFeatures, fraction: float, seed: int
) -> Bool[Tensor, " captions"]:
    """The captions to leave out of training.

    Captions without an image stay in training. Random, but every class gets a held-out caption,
    and one to train on where that takes no class its last held-out one.

    Raises:
        ValueError: there are no images.
    """
    require(
        data.images is not None,
        "Validation on held-out captions needs their synthetic images, got none. Synthesize some "
        "first.",
    )
    labels, rows_of = data.texts.labels, data.image_of_caption
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[(rows_of[order] >= 0).any(dim=1)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order[: round(fraction * len(order))]] = True
    for index in range(labels.shape[1]):
        named = order[labels[order, index] > 0]
        if len(named) > 1 and not held[named].any():
            held[named[0]] = True
    for index in range(labels.shape[1]):
        mine = labels[:, index] > 0
        if mine.any() and held[mine].all():
            shared = (labels[held].sum(dim=0) > 1) | (labels == 0)  # a class has others held out
            held[(mine & shared.all(dim=1)).nonzero()[:1]] = False
    return held


def without_captions(data: TrainingFeatures, held: Bool[Tensor, " captions"]) -> TrainingFeatures:
    """All others, with their images."""
    rest = data.texts.subset(~held)
    return dataclasses.replace(data, texts=rest, image_of_caption=data.image_of_caption[~held])


def images_of(data: TrainingFeatures, held: Bool[Tensor, " captions"]) -> FeatureTable:
    """All images of some captions, in their order."""
    rows = data.image_of_caption[held]
    assert data.images is not None
    return data.images.subset(rows[rows >= 0])
