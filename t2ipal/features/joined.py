"""Several tables of features as one, without a copy of any.

Where captions of two sources, or images of two makers, are learned from together; and where the
same rows mean other classes.
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from t2ipal.features.extraction import padded
from t2ipal.features.sets import FeatureSet, FeatureTable, TrainingFeatures

COLUMNS = ("global_features", "local_features", "pooled_features", "known_from")


class JoinedTables:
    """The rows of some tables of one backbone, those of the first one first."""

    def __init__(
        self,
        tables: Sequence[FeatureTable],
        labels: Float[Tensor, "all classes"] | None = None,
    ) -> None:
        """Reads nothing yet.

        Args:
            tables: one or more.
            labels: of all their rows, in place of their own; all of them are known.
        """
        self._tables = [*tables]
        ends = torch.tensor([len(table) for table in tables]).cumsum(0)
        self._starts = torch.cat([ends.new_zeros(1), ends])
        self._index: Int[Tensor, " rows"] | None = None
        self._relabelled = labels is not None
        own = [table.labels.float() for table in tables] if labels is None else [labels]
        self._labels = own[0] if len(own) == 1 else torch.cat(own)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._index is None else len(self._index)

    @property
    def labels(self) -> Float[Tensor, "rows classes"]:
        """Multi-hot."""
        return self._labels if self._index is None else self._labels[self._index]

    def subset(self, index: Tensor) -> "JoinedTables":
        """As `FeatureTable.subset`."""
        part = copy.copy(self)
        part._index = self._places(index)
        return part

    def rows(self, index: Tensor | slice, device: torch.device | str = "cpu") -> FeatureSet:
        """As `FeatureTable.rows`; captions of several tables are padded to the longest of them."""
        places = self._places(index)
        number = torch.searchsorted(self._starts, places, right=True) - 1
        parts, order = [], []
        for at in number.unique().tolist():
            mine = (number == at).nonzero().flatten()
            order.append(mine)
            parts.append(self._tables[at].rows(places[mine] - self._starts[at], device))
        whole = parts[0] if len(parts) == 1 else _one_behind_the_other(parts)
        if len(parts) > 1:
            whole = whole.rows(torch.cat(order).argsort(), device)
        values = {name: getattr(whole, name) for name in (*COLUMNS, "mask")}
        if self._relabelled:
            values["known_from"] = None
        return FeatureSet(labels=self._labels[places].to(device), **values)

    def column(self, name: str, index: Tensor | slice | None = None) -> Tensor:
        """As `FeatureTable.column`, of columns whose rows are alike."""
        places = self._places(slice(None) if index is None else index)
        number = torch.searchsorted(self._starts, places, right=True) - 1
        parts = [
            table.column(name, places[number == at] - self._starts[at])
            for at, table in enumerate(self._tables)
        ]
        return torch.cat(parts)[number.argsort(stable=True).argsort()]

    def _places(self, index: Tensor | slice) -> Int[Tensor, " rows"]:
        if isinstance(index, slice):
            places = torch.arange(*index.indices(len(self)))
        else:
            places = index.nonzero().flatten() if index.dtype == torch.bool else index
        return places if self._index is None else self._index[places]


def _one_behind_the_other(parts: Sequence[FeatureSet]) -> FeatureSet:
    length = max(part.local_features.shape[1] for part in parts)

    def joined(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        there = [column for column in columns if column is not None]
        if len(there) < len(columns):
            return None
        if name in ("local_features", "mask"):
            there = [padded(column, length) for column in there]
        return torch.cat(there)

    values = {name: joined(name) for name in (*COLUMNS, "mask", "labels")}
    return FeatureSet(**values)  # type: ignore[arg-type]


def join_captions(parts: Sequence[TrainingFeatures]) -> TrainingFeatures:
    """The captions of several sources with the images of each, one source behind the other."""
    images = [part.images for part in parts if part.images is not None]
    most = max(part.image_of_caption.shape[1] for part in parts)
    rows, first = [], 0
    for part in parts:
        own = part.image_of_caption
        moved = torch.where(own >= 0, own + first, -1)
        rows.append(torch.cat([moved, moved.new_full((len(own), most - own.shape[1]), -1)], dim=1))
        first += 0 if part.images is None else len(part.images)
    texts = JoinedTables([part.texts for part in parts])
    return TrainingFeatures(texts, JoinedTables(images) if images else None, torch.cat(rows))


def join_images(first: TrainingFeatures, second: TrainingFeatures) -> TrainingFeatures:
    """The captions of the first with the images of both, those of the first one first.

    Args:
        first: some captions with images.
        second: the same captions, in the same order, with others.
    """
    if first.images is None or second.images is None:
        raise ValueError("Images of two makers are joined where both have some, got none of one.")
    if len(first.image_of_caption) != len(second.image_of_caption):
        raise ValueError(
            f"Both must have the same captions, got {len(first.image_of_caption)} and "
            f"{len(second.image_of_caption)}."
        )
    own = second.image_of_caption
    rows = torch.cat(
        [first.image_of_caption, torch.where(own >= 0, own + len(first.images), -1)], 1
    )
    return TrainingFeatures(first.texts, JoinedTables([first.images, second.images]), rows)


def relabelled(data: TrainingFeatures, matrix: Float[Tensor, "classes others"]) -> TrainingFeatures:
    """The same captions and images by other classes.

    Args:
        data: labelled with the classes.
        matrix: 1 where one of the others is there whenever a class is.
    """

    def others(table: FeatureTable) -> JoinedTables:
        return JoinedTables([table], (table.labels.float() @ matrix > 0).float())

    images = None if data.images is None else others(data.images)
    return TrainingFeatures(others(data.texts), images, data.image_of_caption)
