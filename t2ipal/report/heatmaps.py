"""Heatmaps over some images of a test set: which ones, and where a recognizer looks in them."""

import math

import numpy as np
from jaxtyping import Num

from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.methods.recognizer import Recognizer
from t2ipal.report.contents import HeatmapExample

MAX_CLASSES = 4
"""Heatmaps of one image."""


def rows_to_show(labels: Num[np.ndarray, "images classes"], count: int) -> list[int]:
    """The first images with several classes; where they are too few, some with one class too."""
    num_labels = labels.sum(axis=1)
    several = np.flatnonzero(num_labels >= 2)[:count]
    single, lacking = np.flatnonzero(num_labels == 1), count - len(several)
    # From all over the set: in folders of their own, the first ones are all of one class.
    evenly = single[:: max(len(single) // max(lacking, 1), 1)][:lacking]
    return [*several.tolist(), *evenly.tolist()]


def heatmap_examples(
    recognizer: Recognizer, test: TestFeatures, count: int
) -> list[HeatmapExample]:
    """Some of the images that are kept as they are seen, with the classes that they show."""
    labels = test.features.labels.numpy()
    examples = []
    for row in rows_to_show(labels[: len(test.previews)], count):
        one = test.features.rows(slice(row, row + 1))
        maps = recognizer.scorer.heatmap(one.local_features)[0].numpy()
        scores = recognizer.scores(one)[0].numpy()
        side = math.isqrt(maps.shape[1])  # of the map; a mean location may stand before it
        true = np.flatnonzero(labels[row]).tolist()
        order = sorted(true, key=lambda c: -scores[c])[:MAX_CLASSES]
        classes = [
            (test.class_names[c], float(scores[c]), maps[c, -side * side :].reshape(side, side))
            for c in order
        ]
        names = [test.class_names[c] for c in true]
        examples.append(HeatmapExample(test.previews[row], names, classes))
    return examples
