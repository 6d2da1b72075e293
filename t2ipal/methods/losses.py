"""The pairwise ranking loss of both branches, and what it asks of labels.

Owns the formula; does not know where the scores come from.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.sets import TrainingFeatures

BLOCK_POSITIVES = 8
"""Positive classes of each row whose pairs are looked at together."""


def require_known_labels(data: TrainingFeatures, method: str) -> None:
    """Refuses partial labels: an unknown one can be ranked neither above nor below others.

    Raises:
        ValueError: captions or images have labels that are not known.
    """
    for name, part in (("captions", data.texts), ("images", data.images)):
        require(
            getattr(part, "known_from", None) is None,
            f"{method} ranks present classes above absent ones: all labels must be known, got "
            f"{name} with known_from. Take a method that learns from partial labels, such as "
            "DualCoOp, or leave known_from out.",
        )


def ranking_losses(
    scores: Float[Tensor, "*kinds batch classes"],
    labels: Float[Tensor, "batch classes"],
    margin: float | Float[Tensor, ""],
    scale: float | Float[Tensor, ""],
    max_positives: int | None = None,
) -> Float[Tensor, "*kinds batch"]:
    """Sum over positive i, negative j of max(0, m - s p_i + s p_j), one per row (paper, eq. 7).

    A row in which all or no classes are positive has no pairs and a loss of 0.

    Args:
        scores: of one kind or several.
        labels: 1 where a class is positive, else 0.
        margin: m.
        scale: s.
        max_positives: no row has more positive classes; None: it may have all. Pairs are looked at
            for so many classes of each row, whatever its labels: shapes do not depend on them.
    """
    labelled, places = labels.topk(max_positives or labels.shape[-1], dim=-1, sorted=False)
    scaled = scale * scores
    positive = scaled.gather(-1, places.expand(*scores.shape[:-2], -1, -1))
    negative = scaled.masked_fill(labels > 0, float("-inf"))
    return _Hinges.apply(margin - positive, negative, labelled)[0]  # type: ignore


class _Hinges(torch.autograd.Function):
    """sum_i w_i sum_j max(0, t_i + n_j). Its gradients count pairs, so no pairs are kept for them:
    one row with many positives would make each of the others as large."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        thresholds: Float[Tensor, "*kinds batch positives"],
        negative: Float[Tensor, "*kinds batch classes"],
        weights: Float[Tensor, "batch positives"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses, of_thresholds = torch.zeros_like(negative[..., 0]), []
        of_negative = torch.zeros_like(negative)
        for some, weight in zip(
            thresholds.split(BLOCK_POSITIVES, dim=-1), weights.split(BLOCK_POSITIVES, dim=-1)
        ):
            hinge = (some.unsqueeze(-1) + negative.unsqueeze(-2)).relu_()
            losses = losses + (hinge.sum(dim=-1) * weight).sum(dim=-1)
            counts = hinge.sign_()
            of_thresholds.append(counts.sum(dim=-1) * weight)
            of_negative = of_negative + (weight.unsqueeze(-2) @ counts).squeeze(-2)
        return losses, torch.cat(of_thresholds, dim=-1), of_negative

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        counts = output[1:]
        ctx.mark_non_differentiable(*counts)
        ctx.save_for_backward(*counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        gradient = gradients[0].unsqueeze(-1)
        of_thresholds, of_negative = ctx.saved_tensors
        return of_thresholds * gradient, of_negative * gradient, None
