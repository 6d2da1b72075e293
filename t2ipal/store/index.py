"""What training knows of a run's captions and images, column by column.

Millions of rows as records would take gigabytes; as columns a few bytes each.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from t2ipal.config import require
from t2ipal.store.objects import Store
from t2ipal.store.records import Marker
from t2ipal.store.sections import Section, caption_tables
from t2ipal.store.shards import READERS, sidecar_columns
from t2ipal.store.tables import damaged

pc: Any = pyarrow.compute  # its functions are made at import, where a type checker sees none
IMAGE_COLUMNS = ("key", "caption_id", "labels", "k", "status")


class Names(Sequence[str]):
    """Texts in one piece of memory."""

    def __init__(self, texts: Sequence[str] | pa.ChunkedArray):
        is_column = isinstance(texts, pa.ChunkedArray)
        self.column: Any = texts if is_column else pa.chunked_array([pa.array(texts, pa.string())])

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            require(step == 1, f"Names are taken one after another, got a step of {step}.")
            return self.column.slice(start, max(stop - start, 0)).to_pylist()
        return self.column[index].as_py()

    def places(self, names: "Names") -> NDArray[np.int64]:
        """Where each of some names is among these; -1 where it is not."""
        found = pc.index_in(names.column, value_set=self.column.combine_chunks())
        return pc.fill_null(found, -1).to_numpy().astype(np.int64)


@dataclass(frozen=True, eq=False)
class CaptionIndex:
    """A run's captions, in its order."""

    ids: Names
    labels: NDArray[np.bool_]
    """[captions, classes]."""


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """A run's images, shard by shard."""

    shards: tuple[str, ...]
    """Those that have images."""
    starts: NDArray[np.int64]
    """[shards + 1]: the first image of each, and how many there are."""
    keys: Names
    """Of the samples."""
    caption: NDArray[np.int64]
    """[images]: place of each image's caption."""
    k: NDArray[np.int64]
    """[images]: which image of its caption, from 0."""
    labels: NDArray[np.bool_]
    """[images, classes]."""


def read_caption_index(store: Store, sections: Sequence[Section], num_classes: int) -> CaptionIndex:
    """The columns of a run's captions.

    Raises:
        ValueError: a section's captions are damaged.
    """
    tables = caption_tables(store, sections, ("caption_id", "labels"))
    table = pa.concat_tables(tables).combine_chunks()
    return CaptionIndex(Names(table["caption_id"]), _multi_hot(table["labels"], num_classes))


def read_image_index(
    store: Store, markers: Sequence[Marker], captions: CaptionIndex, num_classes: int
) -> ImageIndex:
    """The columns of a run's images: of samples that were tried again, those of the last attempt.

    Raises:
        ValueError: a sidecar is damaged, or names a caption that the run does not have.
    """
    # A bucket answers after some milliseconds, to many at once as to one.
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(partial(_images_of, store), markers))
    counts = [table.num_rows for table in tables]
    shards = tuple(marker.shard for marker, count in zip(markers, counts) if count)
    starts = np.cumsum([0, *(count for count in counts if count)])
    if not shards:
        none = np.zeros(0, np.int64)
        return ImageIndex((), starts, Names([]), none, none, np.zeros((0, num_classes), bool))
    table = pa.concat_tables(tables).combine_chunks()
    caption = captions.ids.places(Names(table["caption_id"]))
    if (caption < 0).any():
        at = int((caption < 0).argmax())
        shard = shards[int(np.searchsorted(starts, at, side="right")) - 1]
        raise ValueError(
            f"Image {table['key'][at]} is of caption {table['caption_id'][at].as_py()!r}, which "
            f"the run does not have: {damaged(store, f'images/{shard}.parquet')}"
        )
    return ImageIndex(
        shards,
        starts,
        Names(table["key"]),
        caption,
        table["k"].to_numpy().astype(np.int64),
        _multi_hot(table["labels"], num_classes),
    )


def _images_of(store: Store, marker: Marker) -> pa.Table:
    table = sidecar_columns(store, marker, IMAGE_COLUMNS)
    return table.filter(pc.equal(table["status"], "ok")).select(IMAGE_COLUMNS[:-1])


def _multi_hot(column: pa.ChunkedArray, num_classes: int) -> NDArray[np.bool_]:
    """Lists of class indices as ones in a matrix of zeros."""
    labels = np.zeros((len(column), num_classes), bool)
    named = pc.list_flatten(column).to_numpy()
    require(
        not len(named) or 0 <= named.min() <= named.max() < num_classes,
        f"Labels must be classes of 0 to {num_classes - 1}, got others: captions or a sidecar of "
        "the run are damaged, or of another vocabulary.",
    )
    rows = np.repeat(np.arange(len(column)), pc.list_value_length(column).to_numpy())
    labels[rows, named] = True
    return labels
