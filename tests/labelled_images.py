"""Labelled images as methods that learn from them get them: two views each, some labels unknown."""

import dataclasses

import torch
from fake_clip import NAMES, training_features

from t2ipal.features.sets import TrainingFeatures


def labelled_images(num: int = 40) -> TrainingFeatures:
    """Views of image i are rows i and num + i; which labels are known is drawn from seed 0."""
    data = training_features(num)
    assert data.images is not None
    known_from = torch.rand(num, len(NAMES), generator=torch.Generator().manual_seed(0))
    images = dataclasses.replace(data.images, known_from=known_from.repeat(2, 1))
    return TrainingFeatures(data.texts, images, torch.arange(2 * num).reshape(2, num).T.clone())


def unknown_turned(data: TrainingFeatures, share: float) -> TrainingFeatures:
    """The same with every label that is unknown at a share of known ones turned round."""
    images = data.images
    assert images is not None and images.known_from is not None
    turned = torch.where(images.known_from < share, images.labels, 1 - images.labels)
    return dataclasses.replace(data, images=dataclasses.replace(images, labels=turned))
