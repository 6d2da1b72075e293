"""How much a page shows, as plain values."""

from dataclasses import dataclass

from t2ipal.config import PositiveInt, check_fields


@dataclass(frozen=True)
class ReportConfig:
    """How much a page shows."""

    num_captions: PositiveInt = 12
    """Captions on the contact sheet."""
    num_heatmaps: PositiveInt = 6
    """Test images with heatmaps."""

    def __post_init__(self) -> None:
        check_fields(self)
