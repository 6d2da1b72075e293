"""Score normalization per image, chosen on validation images alone.

SPARC (2025) takes each image's mean off its scores and divides by their spread; in part it may help
more. Which part is a choice, and so never made on test images.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from t2ipal.config import one_of
from t2ipal.evaluation.evaluate import predict
from t2ipal.evaluation.metrics import mean_average_precision
from t2ipal.features.sets import FeatureTable
from t2ipal.methods.recognizer import FULL, Normalization, Recognizer

KINDS = ("none", "full", "partial")
MEAN_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
DEVIATION_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


def normalized(
    recognizers: Iterable[Recognizer],
    kind: str | Normalization,
    validation: FeatureTable | None = None,
) -> list[Recognizer]:
    """The recognizers with their scores normalized.

    Args:
        recognizers: one a seed; with "partial" all get the same choice.
        kind: "none", "full" (SPARC's own) or "partial", the best of a grid on `validation`; or the
            normalization itself.
        validation: images with labels that no test set holds.

    Raises:
        ValueError: an unknown kind, or "partial" without validation images.
    """
    plain = [replace(recognizer, normalization=Normalization()) for recognizer in recognizers]
    if isinstance(kind, Normalization):
        return [replace(recognizer, normalization=kind) for recognizer in plain]
    one_of("normalization", kind, KINDS)
    if kind == "partial":
        if validation is None:
            raise ValueError("Partial normalization is chosen on validation images, got none.")
        chosen = choose_normalization(plain, validation)
    else:
        chosen = FULL if kind == "full" else Normalization()
    return [replace(recognizer, normalization=chosen) for recognizer in plain]


def choose_normalization(
    recognizers: Iterable[Recognizer], validation: FeatureTable
) -> Normalization:
    """The w and p of the best mAP on validation images, mean over recognizers; the least of equals.

    Classes that no validation image shows are left out.
    """
    plain = [replace(recognizer, normalization=Normalization()) for recognizer in recognizers]
    return best_normalization(predict(plain, validation), validation.labels.numpy())


def best_normalization(scores_of: Iterable[NDArray[Any]], labels: NDArray[Any]) -> Normalization:
    """`choose_normalization` by the scores of each recognizer on images with these labels."""
    grid = [Normalization(w, p) for w in MEAN_WEIGHTS for p in DEVIATION_POWERS]
    totals = dict.fromkeys(grid, 0.0)
    for scores in scores_of:
        for normalization in grid:
            changed = normalization(torch.from_numpy(scores)).numpy()
            totals[normalization] += mean_average_precision(changed, labels, skip_absent=True)
    return max(grid, key=totals.__getitem__)
