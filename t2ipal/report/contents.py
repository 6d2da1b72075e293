"""What a report page can hold: plain frozen dataclasses of numbers, text and image arrays.

Everything but the title may be left out; the page then has no such section.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from t2ipal.config import one_of, require


@dataclass(frozen=True)
class MethodResult:
    """What one method reached on the test set, over its seeds."""

    name: str
    """Short name, e.g. "TaI-DPT"; a curve of the same name gets the same color."""
    description: str
    """One line under the name: what it was trained on."""
    mAP_mean: float
    """Mean average precision in percent, mean over seeds."""
    mAP_std: float
    """Standard deviation over seeds in percentage points; not printed for fewer than two seeds."""
    seeds: Sequence[int] = ()
    """Training seeds; none or one for a method without training."""
    per_seed: Sequence[float] = ()
    """mAP of each seed in percent, in the order of `seeds`."""
    per_class: Sequence[float] = ()
    """Average precision of each class in percent, mean over seeds; NaN where undefined."""
    published: str | None = None
    """The paper's number with its conditions, e.g. "88.8 (RN50, VOC2007)"."""
    modality_gap: Mapping[str, float | None] = field(default_factory=dict)
    """What the class embeddings are compared with, and the mean cosine (Table VI); None where the
    method has no such thing."""

    def __post_init__(self) -> None:
        require(
            len(self.seeds) == len(self.per_seed),
            f"{self.name!r} must have one mAP per seed, "
            f"got {len(self.per_seed)} for {len(self.seeds)} seeds.",
        )


@dataclass(frozen=True, eq=False)
class SheetEntry:
    """A caption and the images synthesized from it."""

    caption: str
    labels: Sequence[str]
    """Classes that the caption names."""
    images: Sequence[UInt8[np.ndarray, "height width 3"]]
    found: Sequence[Sequence[str]] | None = None
    """For each image the classes that a judge sees in it; None where nothing judged."""
    num_images: int | None = None
    """Images that the caption has; None: those that are shown."""

    def __post_init__(self) -> None:
        require(
            self.found is None or len(self.found) == len(self.images),
            f"found must have one list per image ({len(self.images)}), "
            f"got {len(self.found or ())} for {self.caption!r}.",
        )


@dataclass(frozen=True)
class JudgedImages:
    """How often a judge finds the classes that captions name in their images."""

    share: float
    """Over all named classes, 0 to 1."""
    by_class: Mapping[str, float]
    """Class name -> share of the images naming it in which the judge finds it."""
    num_judged: int
    """Images that the judge looked at."""
    num_images: int
    """Images that there are."""


@dataclass(frozen=True, eq=False)
class HeatmapExample:
    """A test image and where a method looked for some classes."""

    image: UInt8[np.ndarray, "height width 3"]
    true_labels: Sequence[str]
    classes: Sequence[tuple[str, float, Float[np.ndarray, "rows columns"]]]
    """Class name, its score, and its heatmap, which covers the whole of `image`."""


@dataclass(frozen=True)
class Curve:
    """A line chart: several series over one axis."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]]
    """Name, positions and values of each line; a point that is not finite is left out."""


@dataclass(frozen=True)
class Trial:
    """One setting that a search tried."""

    values: Mapping[str, float | str | bool]
    """Hyperparameter name to value."""
    score: float
    """What the search maximized, in percent mAP; NaN for a trial that failed."""


@dataclass(frozen=True)
class Counts:
    """How many records went through the run."""

    captions_read: int = 0
    captions_kept: int = 0
    """Captions that passed the noun filter."""
    captions_rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason to number of captions."""
    captions_used: int | None = None
    """Captions that images were made from, where that is fewer than were kept."""
    images: int = 0
    """Synthetic images in the store."""
    images_failed: int = 0
    """Images that could not be made; stored as rows with a reason."""
    test_images: int = 0
    """Images of the test set behind every mAP of the page."""


@dataclass(frozen=True, eq=False)
class Report:
    """Everything one page shows."""

    title: str
    subtitle: str
    """One or two sentences: data, backbone, pipeline, where it ran."""
    results: Sequence[MethodResult] = ()
    """In the order to show; the first one is the baseline unless `baseline` names another."""
    class_names: Sequence[str] = ()
    baseline: str | None = None
    """Name of the method that differences are taken against."""
    judge: JudgedImages | None = None
    contact_sheet: Sequence[SheetEntry] = ()
    heatmaps: Sequence[HeatmapExample] = ()
    curves: Sequence[Curve] = ()
    trials: Sequence[Trial] = ()
    """Trials of a hyperparameter search."""
    counts: Counts | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each stage, in the order in which they ran."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Nested settings; each top-level name becomes a group."""
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    """Command lines that make this page again."""
    notes: Sequence[str] = ()
    """Definitions and reservations, such as which mAP this is."""
    missing: Sequence[str] = ()
    """A sentence for each part that is not there, which says what to do."""
    measure: str = "mAP"
    """What the numbers of `results` are, in percent."""

    def __post_init__(self) -> None:
        for result in self.results:
            require(
                len(result.per_class) in (0, len(self.class_names)),
                f"per_class of {result.name!r} must have one value per class "
                f"({len(self.class_names)}), got {len(result.per_class)}.",
            )
        if self.baseline is not None:
            one_of("baseline", self.baseline, [result.name for result in self.results])
