"""How much a page shows, and where predictions go, as plain values."""

from dataclasses import dataclass

from t2ipal.config import PositiveInt, check_fields
from t2ipal.places import SharedUri


@dataclass(frozen=True)
class ReportConfig:
    """How much a page shows."""

    num_captions: PositiveInt = 12
    """Captions on the contact sheet."""
    num_heatmaps: PositiveInt = 6
    """Test images with heatmaps."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PredictionOutput:
    """Where predictions go."""

    output: SharedUri
    """Table to write: a local path or s3://, ending in .jsonl, .csv or .parquet."""
    html: SharedUri | None = None
    """Also write a contact sheet there, one HTML file: a local path, or s3://."""
    html_images: PositiveInt = 200
    """Pictures on that sheet at most, the first ones; as many failures are named."""

    def __post_init__(self) -> None:
        check_fields(self)
