"""Features of labelled images for methods that learn from them: a fixed number of views of each.

Computed once and stored part by part, as those of a test set. Every view of a part is a part of its
own, so more views, or another seed, leave what is there.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from t2ipal.config import require
from t2ipal.evaluation.stored_sets import SetPart, Workers, in_process, set_parts, stored_parts
from t2ipal.evaluation.test_sets import TestSet
from t2ipal.features.backbone import Backbone
from t2ipal.features.config import FeatureAccess
from t2ipal.features.sets import TrainingFeatures
from t2ipal.features.table import held_if_small
from t2ipal.store import Store

FOLDER = "labelled_features"


def labelled_parts(
    test_set: TestSet, backbone: Backbone, num_views: int, seed: int
) -> list[SetPart]:
    """The parts of every view of some labelled images, plain ones first."""
    require(num_views > 0, f"num_views must be > 0, got {num_views}.")
    plain = set_parts(test_set, backbone, FOLDER)
    views = range(1, num_views)
    return plain + [_view_of(part, view, seed) for view in views for part in plain]


def labelled_features(
    test_set: TestSet,
    backbone: Backbone,
    place: Store,
    num_views: int,
    seed: int,
    workers: Workers = in_process,
    known_from: Float[np.ndarray, "images classes"] | None = None,
    *,
    access: FeatureAccess | None = None,
    max_unreadable_fraction: float = 1.0,
    progress: bool = False,
) -> TrainingFeatures:
    """Labelled images as training wants them; what is not stored yet is computed first.

    `texts` has a row for each image, its plain view, of which only labels are read; `images` has
    all views. An image that cannot be read is left out, so rows count those that can.

    Args:
        test_set: the images.
        backbone: sees them.
        place: where the features are stored, under `labelled_features/`.
        num_views: of each image: itself, and the rest augmented.
        seed: of the augmented ones.
        workers: who computes.
        known_from: as in `FeatureSet`, for each image of the set; None: all labels are known.
        access: how the features are read.
        max_unreadable_fraction: of photographs.
        progress: show a bar of images.

    Raises:
        ValueError: more photographs cannot be read, or none can; `known_from` is of other images.
    """
    require(
        known_from is None or known_from.shape == test_set.labels.shape,
        f"known_from must be of {test_set.labels.shape} images and classes, got "
        f"{None if known_from is None else known_from.shape}.",
    )
    access = access or FeatureAccess()
    parts = labelled_parts(test_set, backbone, num_views, seed)
    stored = stored_parts(
        test_set, backbone, place, parts, workers, access, max_unreadable_fraction, progress
    )
    images = held_if_small(
        stored.files,
        torch.from_numpy(test_set.labels[stored.rows] > 0),
        access.feature_memory_gb * 1e9,
        None if known_from is None else torch.from_numpy(known_from[stored.rows]),
    )
    (plain,) = np.nonzero(stored.views == 0)
    row_of = np.full(len(test_set.labels), -1)
    row_of[stored.rows[plain]] = np.arange(len(plain))
    views = np.full((len(plain), num_views), -1, np.int64)
    (seen,) = np.nonzero(row_of[stored.rows] >= 0)
    views[row_of[stored.rows[seen]], stored.views[seen]] = seen
    texts = images.subset(torch.from_numpy(plain))
    return TrainingFeatures(texts, images, torch.from_numpy(views))


def only_labelled(
    data: TrainingFeatures, rows: Sequence[int] | Int[np.ndarray, " rows"]
) -> TrainingFeatures:
    """Some of the labelled images, as the few that a protocol draws."""
    index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
    return replace(
        data, texts=data.texts.subset(index), image_of_caption=data.image_of_caption[index]
    )


def _view_of(part: SetPart, view: int, seed: int) -> SetPart:
    stem, _, ending = part.key.rpartition(".")
    return replace(part, key=f"{stem}-view{view}-seed{seed}.{ending}", view=view, seed=seed)
