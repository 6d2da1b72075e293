"""Rows of features that lie in many files, gathered batch by batch.

Unusual here: nothing is read before its rows are asked for. Files are mapped, so that their pages
are the system's to keep or to drop; those of a bucket are fetched into a cache of this machine.
Where all fit a stated budget they are held in memory. The rows are the same to the bit either way.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from t2ipal.config import require
from t2ipal.features.config import FeatureAccess
from t2ipal.features.sets import FeatureSet
from t2ipal.store import Entry, LocalCopies, Names, Store, StoredArrays, map_arrays

BACKBONE = "backbone"
"""Name, in the head of a shard, of the fingerprint of the backbone whose features it holds."""
GLOBAL, LOCAL, POOLED = "global_features", "local_features", "pooled_features"
SCALES = "local_scales"
"""Of 8-bit features: what a location's numbers are multiplied by."""
LENGTHS = "lengths"
"""Of captions: how many positions each has; the shard holds them one behind the other."""
MAX_OPEN = 8192
"""Files that are mapped at once: Linux lets a process have 65,530 mappings."""
COPIES_SHARE = 20
"""Copies of a bucket's files are open up to this part of the cache's size: one that gave way to
others takes room on the disk until it is closed."""
COPY_TRIES = 3
BLOCK_ROWS = 65536
"""Rows of which a column is read at once."""
FETCHERS = 16
"""Files of a bucket that are fetched at once: it answers to many as fast as to one."""
REMEDY = "Remove it and run the command again: features are computed anew."
NOT_FINITE = 0x7C00
"""Exponent bits of a half that is infinite or no number."""


@dataclass(frozen=True, eq=False)
class _Opened:
    """One file's arrays, and where in them the rows lie that are wanted."""

    arrays: Mapping[str, np.ndarray]
    at: NDArray[np.int64] | None
    """File's row of each wanted row; None: they are the same."""
    starts: NDArray[np.int64] | None = None
    """Captions: the first position of each of the file's rows; images: None."""
    lengths: NDArray[np.int64] | None = None
    """Captions: how many positions each of the file's rows has."""
    is_checked: bool = False
    """Whether all its numbers are known to be finite."""

    def rows(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """The file's rows of wanted ones."""
        return wanted if self.at is None else self.at[wanted]

    def take(self, name: str, rows: NDArray[np.int64]) -> np.ndarray:
        """A column of some of the file's rows; what captions have of positions in one piece."""
        array = self.arrays[name]
        if not self.is_ragged(name):
            return array[rows]
        assert self.starts is not None and self.lengths is not None
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        return array[np.arange(lengths.sum()) + np.repeat(self.starts[rows] - before, lengths)]

    def size(self, name: str, rows: NDArray[np.int64]) -> int:
        """How many entries `take` gives."""
        if self.lengths is None or not self.is_ragged(name):
            return len(rows)
        return int(self.lengths[rows].sum())

    def is_ragged(self, name: str) -> bool:
        """Whether a column has as many places for a row as its caption has positions."""
        return self.lengths is not None and name in (LOCAL, SCALES)


class _Files(Protocol):
    """Where the rows of a table lie."""

    starts: NDArray[np.int64]
    """[files + 1]: the first row of each, and how many there are."""
    keys: Names

    def open(self, number: int) -> _Opened: ...
    def fetch(self, numbers: Sequence[int]) -> None: ...
    def place(self, number: int) -> str: ...


class FeatureFiles:
    """Shards of features in a store, opened when they are asked for."""

    def __init__(
        self,
        store: Store,
        shards: Sequence[tuple[str, Entry]],
        starts: NDArray[np.int64],
        keys: Names,
        access: FeatureAccess,
        fingerprint: str = "",
    ):
        """Opens nothing yet.

        Args:
            store: home of the shards.
            shards: key of each, and what a listing told of it.
            starts: [shards + 1]: the first row of each, and how many there are.
            keys: of the samples that the rows are to be, in order.
            access: how they are read.
            fingerprint: of the backbone whose features they must be; "": whoever's.
        """
        self.store, self.shards, self.starts, self.keys = store, shards, starts, keys
        self.access, self.fingerprint = access, fingerprint
        self._copies = access.copies() if store.is_bucket else None
        self._open: OrderedDict[int, _Opened] = OrderedDict()
        self._open_bytes = 0
        self._most_bytes = float("inf")
        if self._copies is not None:
            self._most_bytes = self._copies.max_bytes / COPIES_SHARE
        self._opening = threading.Lock()

    def __reduce__(self):
        parts = self.store, self.shards, self.starts, self.keys, self.access, self.fingerprint
        return FeatureFiles, parts

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(entry.size_bytes for _, entry in self.shards)

    def place(self, number: int) -> str:
        """What a message calls a file."""
        return f"{self.shards[number][0]} in {self.store.uri}"

    def fetch(self, numbers: Sequence[int]) -> None:
        """Opens these files, those of a bucket many at once."""
        waiting = [number for number in numbers if number not in self._open]
        if self._copies is None or len(waiting) < 2:
            return
        with ThreadPoolExecutor(FETCHERS) as pool:
            for opened in pool.map(self.open, waiting):
                del opened  # the table asks again for what it needs

    def open(self, number: int) -> _Opened:
        """The arrays of one file.

        Raises:
            FileNotFoundError: it is gone.
            ValueError: it is damaged, or of other samples or another backbone.
        """
        with self._opening:
            there = self._open.get(number)
            if there is not None:
                self._open.move_to_end(number)
                return there
        opened = self._read(number)
        with self._opening:
            self._open[number] = opened
            self._open_bytes += self.shards[number][1].size_bytes
            while len(self._open) > MAX_OPEN or (
                self._open_bytes > self._most_bytes and len(self._open) > 1
            ):
                closed, _ = self._open.popitem(last=False)
                self._open_bytes -= self.shards[closed][1].size_bytes
        return opened

    def _read(self, number: int) -> _Opened:
        (key, entry), place = self.shards[number], self.place(number)
        stored = map_shard(self.store, key, entry, self._copies)
        of = stored.facts.get(BACKBONE, self.fingerprint)
        require(
            not self.fingerprint or of == self.fingerprint,
            f"{place} holds features of the backbone {of}, wanted {self.fingerprint}. {REMEDY}",
        )
        wanted = self.keys[int(self.starts[number]) : int(self.starts[number + 1])]
        return _opened(stored, wanted, place)


class _Held:
    """All rows in memory, as if they lay in one file."""

    def __init__(self, arrays: Mapping[str, np.ndarray], keys: Names):
        self.starts, self.keys = np.array([0, len(keys)]), keys
        opened = _opened(StoredArrays(arrays, None, {}), keys, "Memory")
        self._opened = replace(opened, is_checked=True)

    def open(self, number: int) -> _Opened:
        return self._opened

    def fetch(self, numbers: Sequence[int]) -> None:
        pass

    def place(self, number: int) -> str:
        return "Memory"


class StoredFeatures:
    """Features of many images or captions, with their labels; a `FeatureTable`."""

    def __init__(
        self,
        files: _Files,
        labels: Bool[Tensor, "all classes"],
        index: NDArray[np.int64] | None = None,
        known_from: Float[Tensor, "all classes"] | None = None,
    ):
        """Reads nothing yet.

        Args:
            files: where the rows lie.
            labels: multi-hot, of all rows of the files.
            index: which rows these are; None: all.
            known_from: as in `FeatureSet`, of all rows of the files.
        """
        self._files, self._labels, self._index = files, labels, index
        self._known_from = known_from

    def __len__(self) -> int:
        return len(self._labels) if self._index is None else len(self._index)

    @property
    def labels(self) -> Bool[Tensor, "rows classes"]:
        """Multi-hot."""
        if self._index is None:
            return self._labels
        return self._labels[torch.from_numpy(self._index)]

    @property
    def keys(self) -> list[str]:
        """Names of the rows' samples: keys of images, ids of captions."""
        names = self._files.keys
        return names[:] if self._index is None else [names[int(row)] for row in self._index]

    def subset(self, index: Tensor) -> "StoredFeatures":
        """The rows at `index` (numbers, or a mask), in its order; nothing is read."""
        return StoredFeatures(self._files, self._labels, self._places(index), self._known_from)

    def rows(self, index: Tensor | slice, device: torch.device | str = "cpu") -> FeatureSet:
        """The rows at `index`, in its order, as floats on a device.

        Raises:
            ValueError: a file of them is damaged, of other samples, or holds what is no number.
        """
        places = self._places(index)
        index_of_all = torch.from_numpy(places)
        labels = self._labels[index_of_all].to(device).float()
        known_from = self._known_from
        gathered = self._gather(places, (GLOBAL, LOCAL, SCALES, POOLED))
        columns = {name: torch.from_numpy(c).to(device) for name, c in gathered.items()}
        local, scales = columns[LOCAL].float(), columns.get(SCALES)
        return FeatureSet(
            columns[GLOBAL].float(),
            local if scales is None else local * scales.float().unsqueeze(-1),
            columns.get("mask"),
            labels,
            columns[POOLED].float() if POOLED in columns else None,
            None if known_from is None else known_from[index_of_all].to(device),
        )

    def column(self, name: str, index: Tensor | slice | None = None) -> Tensor:
        """One column of some rows, halves as floats; None: of all.

        Raises:
            KeyError: the files do not have it.
        """
        places = self._places(slice(None) if index is None else index)
        blocks = [places[at : at + BLOCK_ROWS] for at in range(0, len(places), BLOCK_ROWS)]
        parts = [self._gather(block, (name,))[name] for block in blocks or [places]]
        column = torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])
        return column.float() if column.is_floating_point() else column

    def held(self) -> "StoredFeatures":
        """The same rows in memory, all of them read and checked."""
        files, counts = self._files, np.diff(self._files.starts)
        files.fetch(range(len(counts)))
        opened = [files.open(number) for number in range(len(counts))]
        rows = [each.rows(np.arange(count)) for each, count in zip(opened, counts)]
        arrays = {}
        for name in set.intersection(*(set(each.arrays) for each in opened)):
            like = opened[0].arrays[name]
            sizes = [each.size(name, mine) for each, mine in zip(opened, rows)]
            into, end = np.empty((sum(sizes), *like.shape[1:]), like.dtype), 0
            for number, (each, mine, size) in enumerate(zip(opened, rows, sizes)):
                part = each.take(name, mine)
                _require_sound(name, part, like, files.place(number))
                into[end : end + size], end = part, end + size
            arrays[name] = into
        if opened[0].lengths is not None:
            lengths = [each.lengths[mine] for each, mine in zip(opened, rows)]  # type: ignore
            arrays[LENGTHS] = np.concatenate(lengths)
        held = _Held(arrays, files.keys)
        return StoredFeatures(held, self._labels, self._index, self._known_from)

    def _places(self, index: Tensor | slice) -> NDArray[np.int64]:
        """Rows of the files."""
        if isinstance(index, slice):
            places = np.arange(*index.indices(len(self)))
        else:
            places = (index.nonzero().flatten() if index.dtype == torch.bool else index).numpy()
        return places if self._index is None else self._index[places]

    def _gather(self, places: NDArray[np.int64], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """These columns of these rows; captions are padded to the longest of them."""
        files = self._files
        numbers = np.searchsorted(files.starts, places, side="right") - 1
        needed = np.unique(numbers).tolist() or [0]  # of no rows too there are shapes to know
        files.fetch(needed)
        parts = []
        lengths = np.zeros(len(places), np.int64)
        for number in needed:
            opened, mine = files.open(number), np.flatnonzero(numbers == number)
            rows = opened.rows(places[mine] - files.starts[number])
            if opened.lengths is not None:
                lengths[mine] = opened.lengths[rows]
            parts.append((number, opened, mine, rows))
        columns: dict[str, NDArray[Any]] = {}
        there = [name for name in names if name in parts[0][1].arrays]
        for number, opened, mine, rows in parts:
            differs = {name for name in names if name in opened.arrays} ^ {*there}
            require(
                not differs,
                f"Some files of the same features have {', '.join(sorted(differs))}, others do "
                f"not, first {files.place(number)}. {REMEDY}",
            )
            for name in there:
                part = opened.take(name, rows)
                if not opened.is_checked:
                    _require_sound(name, part, parts[0][1].arrays[name], files.place(number))
                if opened.is_ragged(name):
                    part = _padded(part, lengths[mine], int(lengths.max(initial=1)))
                if len(needed) == 1:
                    columns[name] = part
                    continue
                shape = (len(places), *part.shape[1:])
                columns.setdefault(name, np.empty(shape, part.dtype))[mine] = part
        if LOCAL in columns and parts[0][1].lengths is not None:
            columns["mask"] = np.arange(columns[LOCAL].shape[1]) < lengths[:, None]
        return columns


def held_if_small(
    files: FeatureFiles,
    labels: Bool[Tensor, "rows classes"],
    budget_bytes: float,
    known_from: Float[Tensor, "rows classes"] | None = None,
) -> StoredFeatures:
    """The rows of some files, in memory where they fit the budget."""
    rows = StoredFeatures(files, labels, known_from=known_from)
    return rows.held() if 0 < files.size_bytes <= budget_bytes else rows


def map_shard(
    store: Store, key: str, entry: Entry, copies: LocalCopies | None = None
) -> StoredArrays:
    """The arrays of a shard of features, mapped where it lies or from a copy of it.

    Args:
        store: home of the shard.
        key: of the shard.
        entry: what a listing told of it.
        copies: of a bucket's shards; not needed for a folder.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is damaged.
    """
    place, path = f"{key} in {store.uri}", store.local_path(key)
    if path is not None:
        return map_arrays(path, place)
    assert copies is not None
    for attempt in range(1, COPY_TRIES + 1):
        copy = copies.fetch(store, key, entry.version)
        try:
            return map_arrays(copy, place)
        except FileNotFoundError:  # it gave way to others before it was opened
            if attempt == COPY_TRIES:
                raise
    raise AssertionError


def _opened(stored: StoredArrays, wanted: Sequence[str], place: str) -> _Opened:
    """The arrays of a file with the rows of the samples that are wanted, found by their keys.

    Raises:
        ValueError: they are rows of other samples.
    """
    arrays = dict(stored.arrays)
    require(GLOBAL in arrays and LOCAL in arrays, f"{place} holds no features. {REMEDY}")
    at, num_rows = None, len(arrays[GLOBAL])
    row_keys = range(num_rows) if stored.row_keys is None else stored.row_keys
    mask, lengths = arrays.pop("mask", None), arrays.pop(LENGTHS, None)
    if mask is not None:  # of a version that padded captions
        require(
            mask.shape == arrays[LOCAL].shape[:2],
            f"{place} holds a mask that does not fit its captions. {REMEDY}",
        )
        starts = np.arange(num_rows, dtype=np.int64) * mask.shape[1]
        arrays[LOCAL] = arrays[LOCAL].reshape(-1, arrays[LOCAL].shape[-1])
        lengths = mask.sum(axis=1, dtype=np.int64)
    elif lengths is not None:
        lengths = lengths.astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        num_positions = {len(arrays[name]) for name in (LOCAL, SCALES) if name in arrays}
        require(
            num_positions == {int(lengths.sum())} and bool((lengths >= 0).all()),
            f"{place} holds {max(num_positions)} positions, and captions of {lengths.sum()}. "
            f"{REMEDY}",
        )
    else:
        starts = None
    ragged = (LOCAL, SCALES) if lengths is not None else ()
    even = {len(array) for name, array in arrays.items() if name not in ragged}
    even |= set() if lengths is None else {len(lengths)}
    require(even == {len(row_keys)}, f"{place} holds columns of {sorted(even)} rows. {REMEDY}")
    if stored.row_keys is None:  # from before rows had keys: in the samples' order
        require(
            num_rows == len(wanted),
            f"{place} holds the features of {num_rows} samples, the run has {len(wanted)} there. "
            f"{REMEDY}",
        )
    elif stored.row_keys != list(wanted):
        at = _joined(stored.row_keys, wanted, place)
    return _Opened(arrays, at, starts, lengths)


def _joined(there: Sequence[str], wanted: Sequence[str], place: str) -> NDArray[np.int64]:
    row = {name: number for number, name in enumerate(there)}
    missing = [name for name in wanted if name not in row]
    if missing:
        known = set(wanted)
        others = [name for name in there if name not in known]
        raise ValueError(
            f"{place} holds the features of other samples: the run has {missing[0]!r} there, the "
            f"features {repr(others[0]) if others else 'do not'}. {REMEDY}"
        )
    return np.array([row[name] for name in wanted], np.int64)


def _padded(flat: np.ndarray, lengths: NDArray[np.int64], longest: int) -> np.ndarray:
    """What is one behind the other as rows of one length, zeros behind the shorter ones."""
    rows = np.zeros((len(lengths), longest, *flat.shape[1:]), flat.dtype)
    rows[np.arange(longest) < lengths[:, None]] = flat
    return rows


def _require_sound(name: str, column: np.ndarray, like: np.ndarray, place: str) -> None:
    """Refuses halves that are no numbers, and columns of another shape than other files have."""
    require(
        column.shape[1:] == like.shape[1:] and column.dtype == like.dtype,
        f"{place} holds {name} of shape {column.shape[1:]} and {column.dtype}, other files have "
        f"{like.shape[1:]} and {like.dtype}: it is of another backbone. {REMEDY}",
    )
    if column.dtype == np.float16:
        bad = (np.ascontiguousarray(column).view(np.uint16) & NOT_FINITE) == NOT_FINITE
        require(not bad.any(), f"{place} holds {name} that are infinite or no numbers. {REMEDY}")
