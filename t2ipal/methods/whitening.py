"""Whitening: features of images moved and turned so that none of their directions varies most.

The covariance is shrunk towards a multiple of the identity, as for Gaussian discriminants: weak
directions are not blown up. What is linear in whitened features is linear in the features too, so
weights that are learned on whitened ones are folded into weights on the features themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) matrix, with unit covariance where nothing was shrunk."""

    mean: Float[Tensor, " width"]
    matrix: Float[Tensor, "width width"]

    def __call__(self, features: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """The features whitened."""
        return (features - self.mean) @ self.matrix

    def folded(
        self, weights: Float[Tensor, "classes width"]
    ) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """Weights and bias on the features that give what `weights` give on whitened ones."""
        own = weights @ self.matrix  # symmetric
        return own, -(own @ self.mean)


def whitening_of(
    blocks: Iterable[Float[Tensor, "rows width"]], shrinkage: float, device: torch.device
) -> Whitening:
    """The whitening of all rows of some blocks: (C + shrinkage trace(C) / width I)^(-1/2).

    Args:
        blocks: one row or more in all, on the CPU; read once, summed in float64.
        shrinkage: above 0.
        device: where the result is wanted.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        rows = block.double()
        count, total, products = (
            count + len(rows),
            total + rows.sum(dim=0),
            products + rows.T @ rows,
        )
    mean = total / count
    values, vectors = torch.linalg.eigh(products / count - mean.outer(mean))
    values = values.clamp(min=0)
    # All rows alike: nothing to whiten, and nothing that may be divided by 0.
    scale = (values + shrinkage * values.mean()).clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    matrix = (vectors * scale) @ vectors.T
    return Whitening(mean.float().to(device), matrix.float().to(device))
