"""Features of many images or captions as tensors, with their labels.

Knows neither where they come from nor what is learned from them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """L2-normalised features of a batch of images."""

    global_features: Float[Tensor, "batch width"]
    """Pooled; without positional embedding for a ResNet, as in TaI-DPT."""
    local_features: Float[Tensor, "batch locations width"]
    pooled_features: Float[Tensor, "batch width"]
    """CLIP's own output, for zero-shot CLIP."""


@dataclass(frozen=True)
class TextFeatures:
    """L2-normalised features of a batch of texts."""

    global_features: Float[Tensor, "batch width"]
    local_features: Float[Tensor, "batch positions width"]
    mask: Bool[Tensor, "batch positions"]
    """True at the start token, the words and the end token; False at padding."""


@dataclass(frozen=True)
class FeatureSet:
    """L2-normalised features of many images or captions in memory, with their labels."""

    global_features: Float[Tensor, "rows width"]
    local_features: Float[Tensor, "rows locations width"]
    mask: Bool[Tensor, "rows locations"] | None
    """False where a location is padding; None where every location counts (images)."""
    labels: Float[Tensor, "rows classes"]
    """Multi-hot."""
    pooled_features: Float[Tensor, "rows width"] | None = None
    """Images: CLIP's own output, which zero-shot CLIP uses; captions: None."""
    known_from: Float[Tensor, "rows classes"] | None = None
    """Share of known labels from which on each label is known, in 0 to 1: at a share p those below
    p are. None: all are known."""

    def __len__(self) -> int:
        return len(self.global_features)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "FeatureSet":
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        changed: dict[str, Any] = {n: None if c is None else change(c) for n, c in columns.items()}
        return FeatureSet(**changed)

    def rows(self, index: Tensor | slice, device: torch.device | str = "cpu") -> "FeatureSet":
        """The rows at `index`, in its order, on a device."""
        return self._map(lambda column: column[index].to(device))

    def subset(self, index: Tensor) -> "FeatureSet":
        """As `FeatureTable.subset`."""
        return self.rows(index)

    def column(self, name: str, index: Tensor | slice | None = None) -> Tensor:
        """As `FeatureTable.column`."""
        column = getattr(self, name)
        return column if index is None else column[index]

    def to(self, device: torch.device | str) -> "FeatureSet":
        """A copy on `device`."""
        return self._map(lambda column: column.to(device))


class FeatureTable(Protocol):
    """Rows of features that need not be in memory: a `FeatureSet` is one, `StoredFeatures` another.

    Whoever learns or measures takes some rows at a time.
    """

    @property
    def labels(self) -> Tensor:
        """Multi-hot [rows, classes], as floats or truth values."""
        ...

    def __len__(self) -> int: ...

    def rows(self, index: Tensor | slice, device: torch.device | str = "cpu") -> FeatureSet:
        """The rows at `index` in memory, in its order, on a device."""
        ...

    def subset(self, index: Tensor) -> "FeatureTable":
        """The rows at `index` (numbers, or a mask), in its order."""
        ...

    def column(self, name: str, index: Tensor | slice | None = None) -> Tensor:
        """One column of some rows; None: of all."""
        ...


@dataclass(frozen=True)
class TrainingFeatures:
    """What training reads: captions, their synthetic images, and which belongs to which."""

    texts: FeatureTable
    images: FeatureTable | None
    image_of_caption: Int[Tensor, "captions images_per_caption"]
    """Row in `images` of each caption's k-th image; -1 where there is none."""
    num_templates: int = 0
    """Last rows of `texts` that are template captions."""
    max_per_class: int | None = None
    """Captions of a class at most, where it was capped."""


def spread_evenly(num_rows: int, most: int) -> Int[Tensor, " some"]:
    """So many of some rows at most, spread evenly over them: their numbers, in order."""
    count = min(num_rows, most)
    return torch.arange(count) * num_rows // count


def packed(rows: Int[Tensor, "captions k"]) -> Int[Tensor, "captions k"]:
    """Each caption's images that there are first, in their order, then -1."""
    return rows.gather(1, (rows < 0).int().argsort(dim=1, stable=True))


def only_images(data: TrainingFeatures, keep: Bool[Tensor, " images"]) -> TrainingFeatures:
    """The same captions with the chosen images alone."""
    rows = data.image_of_caption
    chosen = (rows >= 0) & keep[rows.clamp(min=0)]
    return replace(data, image_of_caption=torch.where(chosen, rows, -1))
