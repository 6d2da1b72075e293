"""Muon, for matrices and kernels; torch's takes matrices only and always multiplies in bfloat16.

On a CPU that imitates bfloat16 those products cost more than all the rest of a step.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from t2ipal.devices import computes_bf16
from t2ipal.pretraining.processes import rank_and_world, sum_over_processes

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic x -> a x + b x^3 + c x^5 that drives singular values to about 1."""
ITERATIONS, MOMENTUM = 5, 0.95


def orthogonalize(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with its singular values driven near 1 (0.7 to 1.2), by Newton-Schulz steps."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if computes_bf16(matrix.device.type):
        wide = wide.bfloat16()
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.to(matrix.dtype) if wide.shape == matrix.shape else wide.T.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal (Jordan et al., 2024); a kernel is [outputs, the rest].

    An update is scaled to AdamW's usual size (Liu et al., 2025), so its rates can be compared.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float):
        """Takes weights of two dimensions or more."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Updates every weight that has a gradient; processes share the work of orthogonalizing."""
        rank, world = rank_and_world()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            updates = []
            for index, weight in enumerate(weights):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = weight.grad.lerp(momentum, MOMENTUM).flatten(1)
                mine = index % world == rank
                updates.append(orthogonalize(update) if mine else torch.zeros_like(update))
            sum_over_processes(updates)
            for weight, update in zip(weights, updates):
                size = 0.2 * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view(weight.shape), alpha=-group["lr"] * size)
