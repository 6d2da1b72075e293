"""Tip-Adapter's alpha and beta, chosen on validation images alone; never on test images."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from t2ipal.config import require
from t2ipal.evaluation.evaluate import BATCH_SIZE
from t2ipal.evaluation.metrics import mean_average_precision
from t2ipal.features.sets import FeatureTable
from t2ipal.methods.recognizer import Recognizer
from t2ipal.methods.tip_adapter import TipAdapterScorer

RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of alpha; 0 is zero-shot CLIP. Values of a multi-hot cache add up, so small ones may be best."""
SHARPNESSES = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 20.0, 40.0)
"""Of beta."""


def with_chosen_weights(
    recognizers: Sequence[Recognizer], validation: FeatureTable
) -> list[Recognizer]:
    """Tip-Adapters with the alpha and beta of the best mAP on validation images.

    All get the same pair, the best in the mean over recognizers and the first of equals. Classes
    that no validation image shows are left out.

    Raises:
        ValueError: a recognizer of another method.
    """
    labels = validation.labels.numpy()
    totals = {(ratio, sharpness): 0.0 for sharpness in SHARPNESSES for ratio in RATIOS}
    for recognizer in recognizers:
        scorer = recognizer.scorer
        require(
            isinstance(scorer, TipAdapterScorer),
            f"alpha and beta are chosen for Tip-Adapters, got {recognizer.config.method}.",
        )
        assert isinstance(scorer, TipAdapterScorer)
        for sharpness in SHARPNESSES:
            zero_shot, cached = _logits(scorer, sharpness, validation)
            for ratio in RATIOS:
                scores = recognizer.normalization(zero_shot + ratio * cached).numpy()
                totals[ratio, sharpness] += mean_average_precision(scores, labels, skip_absent=True)
    ratio, sharpness = max(totals, key=totals.__getitem__)
    return [_weighted(recognizer, ratio, sharpness) for recognizer in recognizers]


@torch.no_grad()
def _logits(
    scorer: TipAdapterScorer, sharpness: float, images: FeatureTable
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both terms of the scores, before alpha."""
    parts = []
    for start in range(0, len(images), BATCH_SIZE):
        some = images.rows(slice(start, min(start + BATCH_SIZE, len(images))), scorer.device)
        parts.append((scorer.zero_shot(some).cpu(), scorer.cached(some, sharpness).cpu()))
    zero_shot, cached = zip(*parts)
    return torch.cat(zero_shot), torch.cat(cached)


def _weighted(recognizer: Recognizer, ratio: float, sharpness: float) -> Recognizer:
    scorer = recognizer.scorer
    assert isinstance(scorer, TipAdapterScorer)
    config = replace(scorer.config, residual_ratio=ratio, sharpness=sharpness)
    return replace(recognizer, scorer=replace(scorer, config=config))
