"""Positive CoOp: DualCoOp with free vectors (Rawlekar et al., 2025).

The positive embedding of a class is a prompt's text feature plus a free vector. The negative one is
a free vector alone, no text. All else is DualCoOp's.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from t2ipal.config import PositiveFloat
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.methods.dualcoop import DualCoOp, DualCoOpConfig, DualCoOpScorer

CONTEXT_LR_SHARE = 0.01
"""Learning rate of the contexts, as a share of the vectors' (Positive CoOp)."""


@dataclass(frozen=True)
class PositiveCoOpConfig(DualCoOpConfig):
    """What Positive CoOp computes for one set of classes."""

    scale: PositiveFloat = 100.0
    """Factor on the difference of both cosines (Positive CoOp: 100); the start if learned."""
    learned_scales: bool = False
    """Learn both factors, by their logarithms (Positive CoOp: false)."""
    vector_std: PositiveFloat = 1.0
    """Standard deviation of the free vectors' start (Positive CoOp: 1)."""
    method: Literal["positive_coop"] = "positive_coop"  # type: ignore
    """Which method's config this is."""

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "PositiveCoOp":
        """The method with its start drawn from `seed`."""
        return PositiveCoOp(self, backbone, seed=seed)


@dataclass(frozen=True)
class PositiveCoOpScorer(DualCoOpScorer):
    """DualCoOp's, of other embeddings."""

    config: PositiveCoOpConfig


class PositiveCoOp(DualCoOp):
    """A learned context and two free vectors for each class; see `DualCoOp`."""

    num_sets = 1
    scorer_type = PositiveCoOpScorer

    def __init__(
        self, config: PositiveCoOpConfig, backbone: FrozenBackbone, *, seed: int = 0
    ) -> None:
        super().__init__(config, backbone, seed=seed)
        with torch.no_grad():
            text = self.prompts()
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(2, *text.shape[1:], generator=generator)
        self.vectors = nn.Parameter((config.vector_std * start).to(text.device))

    def embeddings(self) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "classes width"]]:
        """Text plus vector, and the other vector; the text feature is normalized before, too."""
        (text,) = self.prompts()
        positive, negative = text + self.vectors[0], self.vectors[1]
        return functional.normalize(positive, dim=-1), functional.normalize(negative, dim=-1)

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """The vectors (and scales) at the learning rate, the contexts at a hundredth of it."""
        contexts = self.prompts.contexts
        others = [values for values in self.parameters() if values is not contexts]
        return [
            {"params": others, "peak_lr": training.lr},
            {"params": [contexts], "peak_lr": CONTEXT_LR_SHARE * training.lr},
        ]
