"""What is reported of a recognizer, in percent: average precision, accuracy, and where it looks.

Owns the definitions; knows numpy arrays only. Equal scores keep the order of their rows (a stable
sort), so the result does not depend on the machine, though it does on the order of tied rows.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from t2ipal.config import require

Measure = Literal["mAP", "accuracy"]
"""`mean_average_precision`, or `accuracy` where each image shows one class."""


def mean_average_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    difficult: ArrayLike | None = None,
    skip_difficult: bool = False,
    eleven_point: bool = False,
    skip_absent: bool = False,
    class_names: Sequence[str] | None = None,
) -> float:
    """Mean over classes of `average_precision`, in percent."""
    per_class = average_precision(
        scores,
        labels,
        difficult=difficult,
        skip_difficult=skip_difficult,
        eleven_point=eleven_point,
        skip_absent=skip_absent,
        class_names=class_names,
    )
    return float(np.nanmean(per_class))


def average_precision(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    difficult: ArrayLike | None = None,
    skip_difficult: bool = False,
    eleven_point: bool = False,
    skip_absent: bool = False,
    class_names: Sequence[str] | None = None,
) -> NDArray[np.float64]:
    """Average precision of each class, in percent: sum over positives of precision at rank / count.

    Args:
        scores: [n, classes], higher is more likely.
        labels: [n, classes], 0 or 1.
        difficult: [n, classes], true where the class is there but marked difficult (VOC). Such
            entries count as negatives of the ranking, whatever their label.
        skip_difficult: leave difficult entries out of the ranking instead.
        eleven_point: VOC2007's own definition, the mean over recall 0, 0.1, ..., 1 of the best
            precision at that recall or more.
        skip_absent: give NaN for classes without positives.
        class_names: only for messages.

    Raises:
        ValueError: shapes that differ, NaN, labels not 0 or 1, a class without positives.
    """
    score_array, label_array = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    hard = np.zeros(label_array.shape, bool) if difficult is None else np.asarray(difficult, bool)
    positive, names = _checked(score_array, label_array, hard, class_names)
    measure = _eleven_point if eleven_point else _non_interpolated
    per_class = np.full(len(names), np.nan)
    for index in np.flatnonzero(shown_classes(positive, names, skip_absent)):
        ranking = np.argsort(-score_array[:, index], kind="stable")
        if skip_difficult:
            ranking = ranking[~hard[ranking, index]]
        per_class[index] = 100 * measure(positive[ranking, index])
    return per_class


def shown_classes(
    positive: ArrayLike, class_names: Sequence[str], skip_absent: bool = False
) -> NDArray[np.bool_]:
    """Which classes have a positive [n, classes].

    Raises:
        ValueError: one has none, unless such are to be left out; or none has any.
    """
    shown = np.any(positive, axis=0)
    absent = [name for name, here in zip(class_names, shown, strict=True) if not here]
    require(bool(shown.any()), f"No image shows any of the classes: {', '.join(absent)}.")
    require(
        skip_absent or not absent,
        f"Average precision needs a positive of every class, got none of: {', '.join(absent)}. "
        "Add images of these classes, or leave them out of the mean (--skip-absent).",
    )
    return shown


def accuracy(
    scores: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None
) -> float:
    """Percent of images whose highest score is that of their one class; of equal ones the first.

    Args:
        scores: [n, classes], higher is more likely.
        labels: [n, classes], 0 or 1.
        class_names: only for messages.

    Raises:
        ValueError: shapes that differ, NaN, or an image of no class or of several.
    """
    return float(100 * np.mean(_hits(scores, labels, class_names)[0]))


def class_accuracy(
    scores: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """`accuracy` on each class's own images; NaN for a class without any."""
    hits, positive = _hits(scores, labels, class_names)
    per_class = np.full(positive.shape[1], np.nan)
    for index in np.flatnonzero(positive.any(axis=0)):
        per_class[index] = 100 * hits[positive[:, index]].mean()
    return per_class


def _hits(
    scores: ArrayLike, labels: ArrayLike, class_names: Sequence[str] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images get their class, and the labels."""
    score_array, label_array = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    hard = np.zeros(label_array.shape, bool)
    positive, _ = _checked(score_array, label_array, hard, class_names)
    several = np.flatnonzero(positive.sum(axis=1) != 1)
    require(
        not len(several),
        f"Accuracy needs one class for each image, got {len(several)} images of none or of "
        f"several, the first at row {several[:1].sum()}.",
    )
    rows = np.arange(len(positive))
    return positive[rows, score_array.argmax(axis=1)], positive


class PointingGame(NamedTuple):
    """Percent of (image, present class) pairs, mean over classes."""

    accuracy: float
    """The heatmap's largest location lies on an object of the class."""
    chance: float
    """What a location drawn at random would reach."""
    ceiling: float
    """What the best location would reach: small objects fall between the locations of a grid."""


def pointing_game(
    heatmaps: Float[np.ndarray, "n classes locations"],
    boxes: Sequence[Mapping[int, Sequence[tuple[float, float, float, float]]]],
    side: int,
) -> PointingGame:
    """Hits / (hits + misses) of each heatmap's largest location, mean over classes.

    The pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV
    2016. A hit has the center of the location inside a box of the class, edge included.

    Args:
        heatmaps: higher is more; of several largest locations the first counts.
        boxes: for every image, class index -> x0, y0, x1, y1 of each object of the class, as
            fractions of the image's sides. Classes that are not there are not asked about.
        side: locations a row and a column of the grid, which is laid out row by row.

    Raises:
        ValueError: shapes that do not fit, NaN, or a class without a box.
    """
    require(
        heatmaps.ndim == 3 and heatmaps.shape[2] == side * side and len(heatmaps) == len(boxes),
        f"heatmaps must be [{len(boxes)} images, classes, {side} x {side} locations], "
        f"got {heatmaps.shape}.",
    )
    require(not np.isnan(heatmaps).any(), "heatmaps must not be NaN.")
    centers = (np.arange(side) + 0.5) / side
    y, x = (grid.ravel() for grid in np.meshgrid(centers, centers, indexing="ij"))
    peaks = heatmaps.argmax(axis=2)
    pairs: list[list[tuple[bool, float, bool]]] = [[] for _ in range(heatmaps.shape[1])]
    for row, by_class in enumerate(boxes):
        for index, places in by_class.items():
            inside = np.zeros(side * side, dtype=bool)
            for x0, y0, x1, y1 in places:
                inside |= (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
            hit = bool(inside[peaks[row, index]])
            pairs[index].append((hit, float(inside.mean()), bool(inside.any())))
    empty = [index for index, found in enumerate(pairs) if not found]
    require(not empty, f"The pointing game needs a box of every class, got none of: {empty}.")
    shares = np.mean([np.mean(found, axis=0) for found in pairs], axis=0)
    return PointingGame(*(100 * shares).tolist())


def _non_interpolated(ranked: NDArray[np.bool_]) -> float:
    ranks = np.flatnonzero(ranked) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def _eleven_point(ranked: NDArray[np.bool_]) -> float:
    found = np.cumsum(ranked)
    precision = found / np.arange(1, len(ranked) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    # Whole numbers: in floating point 3 of 10 found would miss the recall 3 * 0.1.
    reached = [np.argmax(10 * found >= tenth * found[-1]) for tenth in range(11)]
    return float(np.mean(best_from_here[reached]))


def _checked(
    scores: NDArray[np.float64],
    labels: NDArray,
    difficult: NDArray[np.bool_],
    class_names: Sequence[str] | None,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Positives of the ranking and names of the classes, once everything that must hold does."""
    require(
        scores.ndim == 2 and scores.shape == labels.shape == difficult.shape,
        "scores and labels (and difficult) must be two-dimensional and of one shape, got "
        f"{scores.shape} and {labels.shape}"
        + (f" and {difficult.shape}." if difficult.shape != labels.shape else "."),
    )
    require(scores.size > 0, f"There must be images and classes to rank, got shape {scores.shape}.")
    classes = scores.shape[1]
    names = list(class_names) if class_names is not None else [f"class {i}" for i in range(classes)]
    require(len(names) == classes, f"class_names must name {classes} classes, got {len(names)}.")
    missing = np.argwhere(np.isnan(scores))
    if len(missing):
        row, index = missing[0]
        raise ValueError(
            f"scores must not be NaN, got {len(missing)} of them, the first at row {row} "
            f"for {names[index]}."
        )
    if not np.isin(labels, (0, 1)).all():
        wrong = labels[~np.isin(labels, (0, 1))][0]
        raise ValueError(f"labels must be 0 or 1, got {wrong}.")
    return labels.astype(bool) & ~difficult, names
