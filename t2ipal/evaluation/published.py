"""Numbers published for the compared systems, to print beside ours.

Compare only rows of one backbone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """One published number."""

    setting: str
    """zero_shot, partial_labels, partial_labels_mean, few_shot or novel_classes."""
    method: str
    backbone: str
    """CLIP's image encoder; empty where the table does not say."""
    test_set: str
    """A vocabulary name."""
    mAP: float
    """Percent."""
    amount: int | None = None
    """Percent of known labels, or shots."""


# T2I-PAL's paper, Table I (RN50, with TaI-DPT's and CLIP's numbers), Table XII and text (RN101),
# Table VIII (synthetic images only) and IX (one image per caption); the last two rows from those
# papers.
_ZERO_SHOT: tuple[tuple[str, str, float | None, float | None, float | None], ...] = (
    ("ZSCLIP", "RN50", 76.2, 47.3, 36.4),
    ("ZSCLIP + local", "RN50", 77.3, 49.7, 37.4),
    ("TaI", "RN50", 86.0, 61.1, 44.9),
    ("TaI-DPT", "RN50", 88.3, 65.1, 46.5),
    ("T2I-PAL", "RN50", 88.8, 66.1, 45.5),
    ("T2I-PAL", "RN101", 91.5, 71.4, 47.4),
    ("T2I-PAL, images only", "RN101", 90.8, None, None),
    ("T2I-PAL, one image", "RN101", 91.1, None, None),
    ("PIAA", "ViT-B/16", 92.5, 74.6, 50.6),
    ("TagCLIP", "ViT-B/16", 92.8, 68.8, None),
)
# T2I-PAL's paper, Table II: 10 to 90 percent known labels, then the mean.
_PARTIAL_LABELS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    ("coco2014", "SARB", (71.2, 75.0, 77.1, 78.3, 78.9, 79.6, 79.8, 80.5, 80.5, 77.9)),
    ("coco2014", "DualCoOp (rerun)", (81.0, 82.3, 82.9, 83.4, 83.5, 83.9, 84.0, 84.1, 84.3, 83.3)),
    (
        "coco2014",
        "DualCoOp + TaI-DPT",
        (81.5, 82.6, 83.3, 83.7, 83.9, 84.0, 84.2, 84.4, 84.5, 83.6),
    ),
    (
        "coco2014",
        "DualCoOp + T2I-PAL",
        (82.7, 83.0, 84.5, 84.6, 84.8, 85.0, 85.6, 85.8, 85.9, 84.7),
    ),
    ("voc2007", "SARB", (83.5, 88.6, 90.7, 91.4, 91.9, 92.2, 92.6, 92.8, 92.9, 90.7)),
    ("voc2007", "DualCoOp (rerun)", (91.4, 93.8, 93.8, 94.3, 94.6, 94.7, 94.8, 94.9, 94.9, 94.1)),
    ("voc2007", "DualCoOp + TaI-DPT", (93.3, 94.6, 94.8, 94.9, 95.1, 95.0, 95.1, 95.3, 95.5, 94.8)),
    ("voc2007", "DualCoOp + T2I-PAL", (93.7, 94.8, 94.8, 94.9, 94.9, 95.2, 95.5, 95.5, 95.5, 95.0)),
    ("nuswide", "DualCoOp (rerun)", (54.0, 56.2, 56.9, 57.4, 57.9, 57.9, 57.6, 58.2, 58.8, 57.2)),
    ("nuswide", "DualCoOp + TaI-DPT", (56.4, 57.9, 57.8, 58.1, 58.5, 58.8, 58.6, 59.1, 59.4, 58.3)),
    ("nuswide", "DualCoOp + T2I-PAL", (56.7, 57.9, 57.9, 58.3, 58.7, 59.2, 59.3, 59.3, None, 58.5)),
)
# T2I-PAL's paper, Table IV: CoOp + T2I-PAL at 1, 2, 4, 8, 16 shots of all classes.
_FEW_SHOT = (
    ("coco2014", "CoOp + T2I-PAL", (71.6, 71.8, 73.1, 73.5, 74.1)),
    ("voc2007", "CoOp + T2I-PAL", (91.7, 92.1, 92.2, 92.3, 92.9)),
)
# T2I-PAL's paper, Table III: 16 novel classes of MS-COCO, by shots.
_NOVEL_CLASSES = (
    ("LaSO", 1, 45.3),
    ("LaSO", 5, 58.1),
    ("ML-FSL", 1, 54.4),
    ("ML-FSL", 5, 63.6),
    ("TaI-DPT", 0, 59.2),
    ("T2I-PAL", 0, 66.3),
)

PUBLISHED: tuple[PublishedResult, ...] = (
    *(
        PublishedResult("zero_shot", method, backbone, test_set, value)
        for method, backbone, *values in _ZERO_SHOT
        for test_set, value in zip(("voc2007", "coco2014", "nuswide"), values, strict=True)
        if value is not None
    ),
    *(
        PublishedResult("partial_labels", method, "", test_set, value, percent)
        for test_set, method, values in _PARTIAL_LABELS
        for percent, value in zip(range(10, 100, 10), values)
        if value is not None
    ),
    *(
        PublishedResult("partial_labels_mean", method, "", test_set, values[-1])
        for test_set, method, values in _PARTIAL_LABELS
        if values[-1] is not None
    ),
    *(
        PublishedResult("few_shot", method, "", test_set, value, shots)
        for test_set, method, values in _FEW_SHOT
        for shots, value in zip((1, 2, 4, 8, 16), values, strict=True)
    ),
    *(
        PublishedResult("novel_classes", method, "", "coco2014", value, shots)
        for method, shots, value in _NOVEL_CLASSES
    ),
)
"""Every number, with its setting; compare only rows of one backbone."""
