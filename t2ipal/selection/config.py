"""What is measured of images, which are kept, and how much is drawn again, as plain values."""

from dataclasses import dataclass
from typing import Annotated

from t2ipal.config import Bounds, NonNegativeInt, PositiveInt, Share, check_fields

Cosine = Annotated[float, Bounds(ge=-1, le=1)]


@dataclass(frozen=True)
class QualityConfig:
    """What counts as found, and as the same picture again."""

    false_alarms: Annotated[float, Bounds(gt=0, lt=1)] = 0.1
    """A named class is found where its heatmap's peak is higher than in all but this share of the
    images whose captions do not name it."""
    twin_cosine: Cosine = 0.98
    """Cosine of two images' CLIP features from which on the later one is a twin of the earlier."""
    twin_bits: Annotated[int, Bounds(ge=0, le=56)] = 4
    """Of the 56 bits of the perceptual hash: twins differ in no more."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ChoiceConfig:
    """Which images to keep."""

    min_found: Share = 0.5
    """Least share of its caption's classes that are found in an image, 0 to 1; 0 keeps all. On the
    embedded world half is as good as all, with fewer images (docs/log.md)."""
    min_similarity: Cosine = -1.0
    """Least cosine of image and caption."""
    keep_twins: bool = True
    """Whether to keep images that look like another one that is kept."""
    best: PositiveInt | None = None
    """Images to keep of each caption at most, those with most classes found and then nearest to
    their caption first; None: all."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RepairConfig:
    """How much is drawn again."""

    rounds: PositiveInt = 1
    """Times that images are measured and drawn again."""
    budget: NonNegativeInt | None = None
    """New images of the run at most, those of earlier repairs counted: the same command again, or
    after an interruption, draws none beyond it. None: as many as are lacking."""
    min_found: Share = 1.0
    """An image is good where at least this share of its caption's classes is found, 0 to 1."""

    def __post_init__(self) -> None:
        check_fields(self)
