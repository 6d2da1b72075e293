"""What an evaluation measures, as plain values."""

from dataclasses import dataclass

from t2ipal.config import Share, check_fields


@dataclass(frozen=True)
class EvaluationOptions:
    """Which average precision is measured, on what, and what beside it."""

    skip_difficult: bool = False
    """Leave VOC's difficult entries out of the ranking; they count as negatives otherwise."""
    eleven_point: bool = False
    """VOC2007's 11-point interpolation; non-interpolated otherwise."""
    skip_absent: bool = False
    """Leave classes that no test image shows out of the mean; they are refused otherwise."""
    max_unreadable_fraction: Share = 0.05
    """Photographs that cannot be read are left out and named; a larger share of them is refused."""
    modality_gap: bool = False
    """Also measure the mean cosine of class embeddings with test images, and with all captions and
    synthetic images of the run (the paper's Table VI); jobs/report.py then shows it."""

    def __post_init__(self) -> None:
        check_fields(self)
