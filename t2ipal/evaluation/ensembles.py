"""Two systems' scores as one: the paper's ensembles, and Kang et al.'s sum with class concepts.

Min-max scaling looks at the test set as a whole, without its labels: a report must say so.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from t2ipal.config import require

PARTIAL_LABELS_RATIO = 0.9
"""r beside DualCoOp that learns from partial labels (paper)."""
FEW_SHOT_RATIO = 0.6
"""r beside a system that learns from few shots (paper)."""
CLIP_SCALE = 100.0
"""Logit of a cosine of 1 (CLIP)."""

Scores = Float[NDArray[np.floating], "images classes"]


def ensemble(ours: Scores, theirs: Scores, ratio: float) -> Float[NDArray[np.float64], "..."]:
    """(1 - r) ours + r theirs, each on a scale from its least number to its greatest one.

    Args:
        ours: of the system that learns from captions.
        theirs: of the image-trained system.
        ratio: r, in 0 to 1.

    Raises:
        ValueError: other shapes, numbers that are not finite, or scores that are all the same.
    """
    require(0 <= ratio <= 1, f"ratio must be in 0..1, got {ratio}.")
    _require_alike(ours, theirs)
    return (1 - ratio) * _scaled(ours) + ratio * _scaled(theirs)


def with_class_concepts(
    concepts: Scores, scores: Scores, scale: float = CLIP_SCALE
) -> Float[NDArray[np.float64], "..."]:
    """The scores of class concepts plus another system's, both as CLIP's logits.

    Kang et al. add both without a word on their scale. The reading here: a cosine counts 100, as in
    CLIP's logits. Class concepts score by cosines, and so do zero-shot CLIP, TaI-DPT and T2I-PAL;
    DualCoOp and CoOp score by logits, which count as they are.

    Args:
        concepts: of `t2ipal.methods.class_concept`.
        scores: of the other system.
        scale: logits in 1 of its scores: 100 for cosines, 1 for logits.

    Raises:
        ValueError: other shapes, or numbers that are not finite.
    """
    require(scale > 0, f"scale must be > 0, got {scale}.")
    _require_alike(concepts, scores)
    return CLIP_SCALE * np.asarray(concepts, np.float64) + scale * np.asarray(scores, np.float64)


def _require_alike(first: Scores, second: Scores) -> None:
    shapes = np.shape(first), np.shape(second)
    require(
        shapes[0] == shapes[1],
        f"Both systems must score the same images and classes, got {shapes[0]} and {shapes[1]}.",
    )
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    require(bool(finite), "Scores must be finite, got NaN or infinity.")


def _scaled(scores: Scores) -> NDArray[np.float64]:
    """Min-max over all images and classes at once."""
    values = np.asarray(scores, np.float64)
    least, greatest = values.min(initial=np.inf), values.max(initial=-np.inf)
    require(greatest > least, "Scores to be scaled must differ, got one number everywhere or none.")
    return (values - least) / (greatest - least)
