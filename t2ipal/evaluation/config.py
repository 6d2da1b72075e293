"""What an evaluation measures, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationOptions:
    """Which average precision is measured, and what beside it."""

    skip_difficult: bool = False
    """Leave VOC's difficult entries out of the ranking; they count as negatives otherwise."""
    eleven_point: bool = False
    """VOC2007's 11-point interpolation; non-interpolated otherwise."""
    modality_gap: bool = False
    """Also measure the mean cosine of class embeddings with test images, and with all captions and
    synthetic images of the run (the paper's Table VI); jobs/report.py then shows it."""
