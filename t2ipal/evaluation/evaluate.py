"""A recognizer's scores on a test set, and what several seeds give together.

Owns batching and the summary; the definition of average precision is in
`t2ipal.evaluation.metrics`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from t2ipal.config import require
from t2ipal.evaluation.metrics import average_precision
from t2ipal.features.ahead import ahead
from t2ipal.features.sets import FeatureTable
from t2ipal.methods.recognizer import Recognizer

BATCH_SIZE = 512


@dataclass(frozen=True)
class Evaluation:
    """How well one recognizer does on one test set."""

    mAP: float
    """Mean of `average_precision`, percent."""
    average_precision: tuple[float, ...]
    """Per class, percent; NaN for a class without positives that was left out."""
    class_names: tuple[str, ...]
    num_images: int
    definition: str
    """Which average precision this is, in words for a report."""
    scores: NDArray[np.float32]
    """[images, classes]."""


@dataclass(frozen=True)
class Summary:
    """One method over several seeds."""

    mean: float
    """mAP, percent."""
    std: float
    """Sample standard deviation (n - 1); 0 for one seed."""
    seeds: tuple[int, ...]
    mAPs: tuple[float, ...]
    """Per seed, percent."""


@torch.no_grad()
def predict(
    recognizers: Sequence[Recognizer], images: FeatureTable, batch_size: int = BATCH_SIZE
) -> list[NDArray[np.float32]]:
    """Scores [images, classes] of each recognizer; the images pass by once, a batch at a time.

    All recognizers must have their constants on one device.
    """
    require(len(images) > 0, "Evaluation needs images, got none.")
    device = recognizers[0].device
    scores = [np.empty((len(images), len(r.class_names)), np.float32) for r in recognizers]
    batches = [
        slice(start, min(start + batch_size, len(images)))
        for start in range(0, len(images), batch_size)
    ]
    seen = ahead(lambda batch: images.rows(batch, device), batches)
    for batch, features in zip(batches, seen):
        for recognizer, into in zip(recognizers, scores):
            into[batch] = recognizer.scores(features).float().cpu().numpy()
    return scores


def evaluate(
    recognizer: Recognizer,
    images: FeatureTable,
    *,
    scores: NDArray[np.float32] | None = None,
    difficult: NDArray[np.bool_] | None = None,
    skip_difficult: bool = False,
    eleven_point: bool = False,
    skip_absent: bool = False,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Average precision of every class on `images` with their labels; options of `metrics`.

    `scores` are those of `predict`, where they are there already.

    Raises:
        ValueError: other classes than the labels', no images, a class without positives (named).
    """
    class_names = recognizer.class_names
    require(
        images.labels.shape[1] == len(class_names),
        f"The recognizer knows {len(class_names)} classes, the test set has "
        f"{images.labels.shape[1]}; both must come from one vocabulary.",
    )
    if scores is None:
        (scores,) = predict([recognizer], images, batch_size)
    per_class = average_precision(
        scores,
        images.labels.cpu().numpy(),
        difficult=difficult,
        skip_difficult=skip_difficult,
        eleven_point=eleven_point,
        skip_absent=skip_absent,
        class_names=class_names,
    )
    return Evaluation(
        mAP=float(np.nanmean(per_class)),
        average_precision=tuple(per_class.tolist()),
        class_names=class_names,
        num_images=len(images),
        definition=definition(difficult is not None, skip_difficult, eleven_point),
        scores=scores,
    )


def definition(has_difficult: bool, skip_difficult: bool, eleven_point: bool) -> str:
    """The definition of average precision in words; on the same scores they differ by points."""
    words = "11-point" if eleven_point else "non-interpolated"
    if not has_difficult:
        return f"{words} average precision"
    fate = "left out of the ranking" if skip_difficult else "counted as negatives"
    return f"{words} average precision, difficult entries {fate}"


def summarize(maps: Sequence[float], seeds: Sequence[int]) -> Summary:
    """Mean and sample standard deviation of one mAP per seed."""
    require(len(maps) > 0, "A summary needs one seed or more, got none.")
    require(
        len(maps) == len(seeds) == len(set(seeds)),
        f"Every mAP needs a seed of its own, got {len(maps)} for seeds {list(seeds)}.",
    )
    std = statistics.stdev(maps) if len(maps) > 1 else 0.0
    return Summary(statistics.fmean(maps), std, tuple(seeds), tuple(maps))
