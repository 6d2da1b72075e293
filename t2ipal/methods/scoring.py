"""From frozen features and class embeddings to scores: equations 2 to 6 as functions of tensors.

Owns the mathematics that training and inference share; does not know prompts, CLIP or configs.
All features, class embeddings and prototypes come in L2-normalized.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional


def local_similarities(
    local_features: Float[Tensor, "batch locations width"],
    local_embeddings: Float[Tensor, "classes width"],
) -> Float[Tensor, "batch classes locations"]:
    """P_ij = <z_j, L_i>, the cosine of every location with every class (paper, eq. 2)."""
    # One product of two matrices, also for the embeddings of many trials at once.
    products = local_embeddings.contiguous() @ local_features.flatten(0, 1).mT
    return products.unflatten(1, local_features.shape[:2]).transpose(0, 1)


def class_wise_heatmap(
    similarities: Float[Tensor, "batch classes locations"],
    mask: Bool[Tensor, "batch locations"] | None,
    temperature: float | Float[Tensor, ""],
    aggregation: str,
) -> Float[Tensor, "batch classes locations"]:
    """A_ij, how much location j counts for class i; sums to 1 over the locations (paper, eq. 4).

    `weighted` and `learnable`: softmax_j(P_ij / temperature). `mean` and `max` are its limits as
    the temperature goes to infinity and to 0 (the first of several equal maxima takes all).
    Locations outside `mask` get 0.
    """
    counts = None if mask is None else mask.unsqueeze(1).expand_as(similarities)
    if aggregation == "mean":
        even = torch.ones_like(similarities) if counts is None else counts.to(similarities.dtype)
        return even / even.sum(dim=-1, keepdim=True)
    # Masked after the division: -inf / temperature has no gradient in a learned temperature.
    logits = similarities if aggregation == "max" else similarities / temperature
    if counts is not None:
        logits = logits.masked_fill(~counts, float("-inf"))
    if aggregation == "max":
        peak = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, peak, 1.0)
    return torch.softmax(logits, dim=-1)


def aggregate(
    similarities: Float[Tensor, "batch classes locations"],
    heatmap: Float[Tensor, "batch classes locations"],
) -> Float[Tensor, "batch classes"]:
    """p'_i = sum_j A_ij P_ij, the local score before the adapter (paper, eq. 3)."""
    return (heatmap * similarities).sum(dim=-1)


def attend(
    heatmap: Float[Tensor, "batch classes locations"],
    local_features: Float[Tensor, "batch locations width"],
) -> Float[Tensor, "batch classes width"]:
    """zhat_i = sum_j A_ij z_j, not normalized, so that p'_i = <zhat_i, L_i> (paper, eq. 4)."""
    return torch.einsum("bcn,bnd->bcd", heatmap, local_features)


def affinity(
    attended: Float[Tensor, "batch classes width"],
    prototypes: Float[Tensor, "classes width"],
    sharpness: float,
) -> Float[Tensor, "batch classes"]:
    """phi_i = exp(-beta (1 - <zhat_i, W_i>)), both normalized; 1 where equal (paper, eq. 5)."""
    attended = functional.normalize(attended, dim=-1)
    cosine = torch.einsum("bcd,cd->bc", attended, functional.normalize(prototypes, dim=-1))
    return torch.exp(-sharpness * (1 - cosine))


def attended_affinity(
    heatmap: Float[Tensor, "batch classes locations"],
    local_features: Float[Tensor, "batch locations width"],
    prototypes: Float[Tensor, "classes width"],
    sharpness: float | Float[Tensor, ""],
) -> Float[Tensor, "batch classes"]:
    """`affinity` of `attend`, without the [batch, classes, width] that lies between them.

    <zhat_i, W_i> = sum_j A_ij <z_j, W_i>, and |zhat_i|^2 = sum_jk A_ij A_ik <z_j, z_k>: of all that
    is as wide as a feature, the second holds constants only, and few of them.
    """
    prototypes = functional.normalize(prototypes, dim=-1)
    along = aggregate(local_similarities(local_features, prototypes), heatmap)
    products = local_features @ local_features.mT
    squared_norm = ((heatmap @ products) * heatmap).sum(dim=-1)
    cosine = along * squared_norm.clamp(min=1e-24).rsqrt()
    return torch.exp(-sharpness * (1 - cosine))


def residual(
    prior: Float[Tensor, "batch classes"],
    affinities: Float[Tensor, "batch classes"],
    ratio: float | Float[Tensor, ""],
    form: str,
) -> Float[Tensor, "batch classes"]:
    """p + alpha phi (`add`, `learnable`) or (1 - alpha) p + alpha phi (`mix`) (paper, eq. 6, 9)."""
    if form == "mix":
        return (1 - ratio) * prior + ratio * affinities
    return prior + ratio * affinities
