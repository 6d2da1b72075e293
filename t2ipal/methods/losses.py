"""The pairwise ranking loss of both branches.

Owns the formula; does not know where the scores come from.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def ranking_losses(
    scores: Float[Tensor, "*kinds batch classes"],
    labels: Float[Tensor, "batch classes"],
    margin: float,
    scale: float,
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
    hinge = torch.relu((margin - positive).unsqueeze(-1) + negative.unsqueeze(-2))
    return (hinge.sum(dim=-1) * labelled).sum(dim=-1)
