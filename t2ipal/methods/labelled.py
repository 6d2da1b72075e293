"""What methods that learn from labelled images share: which labels are known, and their losses.

A label that is not known has a loss of 0, whatever it says.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from t2ipal.config import require
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.contract import Losses

EPSILON = 1e-6
"""Least probability whose logarithm is taken (DualCoOp)."""


def require_labelled(data: TrainingFeatures, method: str, known_labels: float) -> None:
    """Raises ValueError unless there are images to learn from, and labels to leave out if asked."""
    rows = data.image_of_caption[data.image_of_caption >= 0]
    require(
        data.images is not None and len(rows) > 0,
        f"{method} learns from labelled images, got none. Give it images with their labels.",
    )
    assert data.images is not None
    require(
        known_labels == 1 or data.images.rows(rows[:1]).known_from is not None,
        f"known_labels {known_labels} needs images that say which labels are known (known_from), "
        "got none. Give such images, or set known_labels to 1.",
    )


def known(
    images: FeatureSet, share: float | Float[Tensor, ""]
) -> Bool[Tensor, "images classes"] | None:
    """Which labels are known at a share of known ones; None: all, for no image says otherwise."""
    if images.known_from is None:
        return None
    return (images.known_from < share) | (share >= 1)


def binary_losses(
    logits: Float[Tensor, "*kinds images classes"],
    labels: Float[Tensor, "images classes"],
    is_known: Bool[Tensor, "images classes"] | None,
) -> Float[Tensor, "*kinds images"]:
    """Binary cross-entropy of each image, mean over all classes; unknown labels add nothing."""
    losses = functional.binary_cross_entropy_with_logits(
        logits, labels.expand_as(logits), reduction="none"
    )
    return (losses if is_known is None else losses * is_known).mean(dim=-1)


def asymmetric_losses(
    logits: Float[Tensor, "images classes"],
    labels: Float[Tensor, "images classes"],
    is_known: Bool[Tensor, "images classes"] | None,
    gamma_negative: float | Float[Tensor, ""],
    gamma_positive: float | Float[Tensor, ""],
    clip: float | Float[Tensor, ""],
) -> Float[Tensor, " images"]:
    """The asymmetric loss of each image (Ridnik et al.), sum over its known labels.

    With p = sigmoid(logit) and q = max(p - clip, 0): -(1 - p)^gamma_positive log p where a class
    is shown, -q^gamma_negative log(1 - q) where not. No gradient passes through the powers.
    """
    probs = torch.sigmoid(logits)
    right = torch.where(labels > 0, probs, (1 - probs + clip).clamp(max=1))
    gamma = gamma_positive * labels + gamma_negative * (1 - labels)
    weights = (1 - right.detach()) ** gamma
    losses = -weights * right.clamp(min=EPSILON).log()
    return (losses if is_known is None else losses * is_known).sum(dim=-1)


def mean_loss(
    losses: Float[Tensor, " images"],
    image_weights: Float[Tensor, " images"] | None,
    num_images: Any,
) -> Losses:
    """What `Method.loss` gives for the losses of a batch's images; its options are that one's."""
    total = losses.sum() if image_weights is None else (losses * image_weights).sum()
    total = total / (max(len(losses), 1) if num_images is None else num_images)
    return Losses(total, total, torch.zeros_like(total))
