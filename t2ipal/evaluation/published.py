"""Numbers published for the compared systems, to print beside ours.

Compare only rows of one backbone. Many numbers of the paper's tables are lost in the text that we
have, those of SSGRL, GCN-ML, Par.BCE, Positive CoOp, PVP and CDUL among them: no row is guessed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

PAPER, ANCESTOR = "T2I-PAL", "TaI-DPT"
DUALCOOP, KANG, SPARC = "DualCoOp", "Kang et al. 2024", "SPARC 2025"
TEST_SETS = ("voc2007", "coco2014", "nuswide")


@dataclass(frozen=True)
class PublishedResult:
    """One published number."""

    setting: str
    """zero_shot, partial_labels, partial_labels_mean, few_shot, few_shot_mean, novel_classes or
    modality_gap."""
    method: str
    backbone: str
    """CLIP's image encoder, or a mean over several; empty where the table does not say."""
    test_set: str
    """A vocabulary name."""
    mAP: float
    """Percent; of modality_gap a cosine."""
    amount: int | None = None
    """Percent of known labels, or shots."""
    source: str = PAPER
    """Paper and table that prints it."""


Three = tuple[float | None, float | None, float | None]
_ZERO_SHOT: tuple[tuple[str, str, str, Three], ...] = (
    ("ZSCLIP", "RN50", f"{ANCESTOR}, Table 1", (76.2, 47.3, 36.4)),
    ("ZSCLIP + local", "RN50", f"{ANCESTOR}, Table 1", (77.3, 49.7, 37.4)),
    ("TaI", "RN50", f"{ANCESTOR}, Table 1", (86.0, 61.1, 44.9)),
    ("TaI-DPT", "RN50", f"{ANCESTOR}, Table 1", (88.3, 65.1, 46.5)),
    ("T2I-PAL", "RN50", f"{PAPER}, Table XII", (88.8, 66.1, 45.5)),
    ("TaI-DPT", "RN101", KANG, (88.9, 68.0, 46.5)),
    ("Class concept + ZSCLIP", "RN101", KANG, (89.2, 70.0, 46.6)),
    ("Class concept + TaI-DPT", "RN101", KANG, (90.1, 70.9, 49.1)),
    ("SPARC", "RN101", SPARC, (89.7, 67.7, 46.5)),
    ("T2I-PAL", "RN101", f"{PAPER}, Tables I and XII", (91.5, 71.4, 47.4)),
    ("T2I-PAL, LLM captions", "RN101", f"{PAPER}, Table IV", (91.6, None, None)),
    ("T2I-PAL, images only", "RN101", f"{PAPER}, Table VIII", (90.8, None, None)),
    ("T2I-PAL, one image", "RN101", f"{PAPER}, Table IX", (91.1, None, None)),
    ("ZSCLIP", "mean of nine CLIPs", SPARC, (80.4, 55.7, 39.3)),
    ("SPARC", "mean of nine CLIPs", SPARC, (87.7, 65.9, 45.1)),
    ("TagCLIP", "ViT-B/16", "TagCLIP", (92.8, 68.8, 35.0)),
    ("TagCLIP + SPARC", "ViT-B/16", SPARC, (92.0, 73.8, None)),
    ("BAC-GCN", "ViT-B/16", "BAC-GCN", (93.0, 72.2, 48.8)),
    ("PIAA, SC-CLIP", "ViT-B/16", "PIAA", (92.5, 73.2, 50.6)),
    ("PIAA, ITACLIP", "ViT-B/16", "PIAA", (92.3, 74.6, 49.1)),
)
"""VOC2007, MS-COCO, NUS-WIDE."""

_RERUN, _PLUS = f"{ANCESTOR}, Table 2", f"{PAPER}, Table II"
_PARTIAL_LABELS: tuple[tuple[str, str, str, tuple[float | None, ...]], ...] = (
    ("coco2014", "SARB", _RERUN, (71.2, 75.0, 77.1, 78.3, 78.9, 79.6, 79.8, 80.5, 80.5, 77.9)),
    ("coco2014", "DualCoOp", _RERUN, (78.7, 80.9, 81.7, 82.0, 82.5, 82.7, 82.8, 83.0, 83.1, 81.9)),
    (
        "coco2014", "DualCoOp (rerun)", _RERUN,
        (81.0, 82.3, 82.9, 83.4, 83.5, 83.9, 84.0, 84.1, 84.3, 83.3),
    ),
    (
        "coco2014", "DualCoOp + TaI-DPT", _RERUN,
        (81.5, 82.6, 83.3, 83.7, 83.9, 84.0, 84.2, 84.4, 84.5, 83.6),
    ),
    (
        "coco2014", "DualCoOp + T2I-PAL", _PLUS,
        (82.7, 83.0, 84.5, 84.6, 84.8, 85.0, 85.6, 85.8, 85.9, 84.7),
    ),
    ("voc2007", "SARB", _RERUN, (83.5, 88.6, 90.7, 91.4, 91.9, 92.2, 92.6, 92.8, 92.9, 90.7)),
    ("voc2007", "DualCoOp", _RERUN, (90.3, 92.2, 92.8, 93.3, 93.6, 93.9, 94.0, 94.1, 94.2, 93.2)),
    (
        "voc2007", "DualCoOp (rerun)", _RERUN,
        (91.4, 93.8, 93.8, 94.3, 94.6, 94.7, 94.8, 94.9, 94.9, 94.1),
    ),
    (
        "voc2007", "DualCoOp + TaI-DPT", _RERUN,
        (93.3, 94.6, 94.8, 94.9, 95.1, 95.0, 95.1, 95.3, 95.5, 94.8),
    ),
    (
        "voc2007", "DualCoOp + T2I-PAL", _PLUS,
        (93.7, 94.8, 94.8, 94.9, 94.9, 95.2, 95.5, 95.5, 95.5, 95.0),
    ),
    (
        "nuswide", "DualCoOp (rerun)", _RERUN,
        (54.0, 56.2, 56.9, 57.4, 57.9, 57.9, 57.6, 58.2, 58.8, 57.2),
    ),
    (
        "nuswide", "DualCoOp + TaI-DPT", _RERUN,
        (56.4, 57.9, 57.8, 58.1, 58.5, 58.8, 58.6, 59.1, 59.4, 58.3),
    ),
    (
        "nuswide", "DualCoOp + T2I-PAL", _PLUS,
        (56.7, 57.9, 57.9, 58.3, 58.7, 59.2, 59.3, 59.3, None, 58.5),
    ),
)  # fmt: skip
"""10 to 90 percent of labels known, then the mean.

Of five further cells of Table II a number survives without its column, so none is a row here:
T2I-PAL+Llama 84.9 and 86.0 on MS-COCO, 95.0 on VOC, 56.8 and 58.0 on NUS-WIDE; PVP 93.7, 95.1, 95.1
and 95.2 on VOC; Dong et al. 59.5 on NUS-WIDE.
"""

_FEW_SHOT = (
    ("coco2014", "CoOp + T2I-PAL", (71.6, 71.8, 73.1, 73.5, 74.1)),
    ("voc2007", "CoOp + T2I-PAL", (91.7, 92.1, 92.2, 92.3, 92.9)),
)
"""T2I-PAL's Table IV: 1, 2, 4, 8, 16 shots of all classes."""

_FEW_SHOT_MEANS = (
    ("CoOp + TaI-DPT", 89.3, 67.3),
    ("CoOp + T2I-PAL", 92.2, 72.8),
)
"""T2I-PAL's text to Table IV, over 1 to 16 shots: VOC2007, MS-COCO."""

_NOVEL_CLASSES = (
    ("LaSO", 1, 45.3, f"{ANCESTOR}, Table 3"),
    ("LaSO", 5, 58.1, f"{ANCESTOR}, Table 3"),
    ("ML-FSL", 1, 54.4, f"{ANCESTOR}, Table 3"),
    ("ML-FSL", 5, 63.6, f"{ANCESTOR}, Table 3"),
    ("TaI-DPT", 0, 59.2, f"{ANCESTOR}, Table 3"),
    ("T2I-PAL", 0, 66.3, f"{PAPER}, Table III"),
)
"""16 novel classes of MS-COCO, by shots."""


def _results() -> Iterator[PublishedResult]:
    for method, backbone, source, values in _ZERO_SHOT:
        for test_set, value in zip(TEST_SETS, values, strict=True):
            if value is not None:
                yield PublishedResult("zero_shot", method, backbone, test_set, value, None, source)
    for test_set, method, source, values in _PARTIAL_LABELS:
        *portions, mean = values
        for percent, value in zip(range(10, 100, 10), portions, strict=True):
            if value is not None:
                yield PublishedResult(
                    "partial_labels", method, "", test_set, value, percent, source
                )
        assert mean is not None
        yield PublishedResult("partial_labels_mean", method, "", test_set, mean, None, source)
    table = f"{PAPER}, Table IV"
    for test_set, method, values in _FEW_SHOT:
        for shots, value in zip((1, 2, 4, 8, 16), values, strict=True):
            yield PublishedResult("few_shot", method, "", test_set, value, shots, table)
    for method, *means in _FEW_SHOT_MEANS:
        for test_set, value in zip(TEST_SETS, means):
            yield PublishedResult("few_shot_mean", method, "", test_set, value, None, table)
    for method, shots, value, source in _NOVEL_CLASSES:
        yield PublishedResult("novel_classes", method, "", "coco2014", value, shots, source)
    yield PublishedResult(
        "modality_gap", "T2I-PAL", "", "coco2014", 0.6110, None, f"{PAPER}, Table VI"
    )


PUBLISHED: tuple[PublishedResult, ...] = tuple(_results())
"""Every number, with its setting; compare only rows of one backbone."""
