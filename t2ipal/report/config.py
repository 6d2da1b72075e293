"""How much a page shows, and where predictions go, as plain values."""

from dataclasses import dataclass

from t2ipal.config import PositiveInt, check_fields
from t2ipal.places import NameOrUri, SharedUri, Uri


@dataclass(frozen=True)
class ReportConfig:
    """How much a page shows."""

    num_captions: PositiveInt = 12
    """Captions on the contact sheet."""
    images_per_caption: PositiveInt = 24
    """Images of each of those captions, at most."""
    num_heatmaps: PositiveInt = 6
    """Test images with heatmaps."""
    num_judged: PositiveInt = 10_000
    """Images of a run of the embedded world in which the judge looks for the named classes, at
    most; where there are more, so many are drawn evenly."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ReportSources:
    """Where the parts of a page lie that are not in the run."""

    recognizers: SharedUri | None = None
    """Folder or s3:// of the recognizers, where --output of jobs/train.py named one; None:
    `run`/train."""
    evaluation: SharedUri | None = None
    """Folder or s3:// of evaluation.json, or its path, where it is not in the run; None: that of
    `run`."""
    test_set: NameOrUri | None = None
    """Test set that the heatmaps are drawn on; None: the one that was evaluated."""
    test_root: Uri | None = None
    """Folder of a real test set."""


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
