"""The pairwise ranking loss of both branches.

Owns the formula; does not know where the scores come from.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def ranking_losses(
    scores: Float[Tensor, "batch classes"],
    labels: Float[Tensor, "batch classes"],
    margin: float,
    scale: float,
) -> Float[Tensor, " batch"]:
    """Sum over positive i, negative j of max(0, m - s p_i + s p_j), one per row (paper, eq. 7).

    A row in which all or no classes are positive has no pairs and a loss of 0.
    """
    scaled = scale * scores
    # Few classes of a row are positive: their pairs alone, not those of all classes.
    row, positive = labels.nonzero(as_tuple=True)
    hinge = torch.relu(margin - scaled[row, positive].unsqueeze(1) + scaled[row])
    each = (hinge * (1 - labels)[row]).sum(dim=1)
    return scaled.new_zeros(len(scores)).index_add(0, row, each * labels[row, positive])
