"""Named arrays as one safetensors object: written, read whole, or mapped where a file of it lies.

The head keeps the names of the rows, plain facts, and a digest of what follows it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from t2ipal.config import parse_json, require
from t2ipal.store.objects import Store

ROW_KEYS, DIGEST = "row_keys", "sha256"
"""Names, in the head of a safetensors object, of its rows' names and of the digest of its data."""
HEAD_ROOM = 8
"""Bytes before the head, which tell its length (safetensors' own format)."""
DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
        "F16": "<f2", "F32": "<f4", "F64": "<f8",
    }.items()
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredArrays:
    """What one object holds."""

    arrays: Mapping[str, np.ndarray]
    """By name; mapped ones cannot be written to."""
    row_keys: list[str] | None
    """Names of the rows that the arrays share; None where they have none."""
    facts: Mapping[str, str]
    """What else the head tells."""


def write_arrays(
    store: Store,
    key: str,
    arrays: Mapping[str, np.ndarray],
    row_keys: Sequence[str] | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Writes named arrays as one safetensors object.

    Args:
        store: where to.
        key: of the object.
        arrays: by name.
        row_keys: names of the rows that the arrays share, in order; kept in the file's head.
        facts: kept there too.
    """
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = safetensors.numpy.save(contiguous)
    start = HEAD_ROOM + int.from_bytes(data[:HEAD_ROOM], "little")
    told = {**(facts or {}), DIGEST: hashlib.sha256(memoryview(data)[start:]).hexdigest()}
    if row_keys is not None:
        told[ROW_KEYS] = json.dumps(list(row_keys))
    head = json.dumps({"__metadata__": told, **json.loads(data[HEAD_ROOM:start])}).encode()
    head += b" " * (-len(head) % 8)  # so that the data are aligned
    store.write(key, b"".join((len(head).to_bytes(8, "little"), head, memoryview(data)[start:])))


def read_arrays(store: Store, key: str) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """The named arrays of one safetensors object, and the names of their rows where it has them.

    Raises:
        FileNotFoundError: there is no such object.
        ValueError: it is not a complete safetensors file.
    """
    data = np.frombuffer(store.read(key), np.uint8)
    there = _arrays_in(data, f"{key} in {store.uri}")
    return {name: array.copy() for name, array in there.arrays.items()}, there.row_keys


def map_arrays(path: Path, place: str) -> StoredArrays:
    """The arrays of a file, none of which is read before it is looked at.

    Args:
        path: of the file, which may be removed while its arrays are in use.
        place: what a message calls it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is not a complete safetensors file.
    """
    import torch  # Python's own mapping would keep a descriptor for each file

    data = torch.empty(0, dtype=torch.uint8)
    try:
        with path.open("rb") as file:  # raises what is wrong with it
            size = os.fstat(file.fileno()).st_size
        if size:
            storage: Any = torch.UntypedStorage.from_file(str(path), False, size)
            data.set_(storage)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{place} is gone. Run the command again to make it anew."
        ) from error
    except (OSError, RuntimeError) as error:
        raise OSError(f"{place} cannot be read: {error}") from error
    return _arrays_in(data.numpy(), place)


def require_digest_of_arrays(path: Path, place: str) -> None:
    """Raises ValueError where a file is not complete, or its data are not what its head tells."""
    there = map_arrays(path, place)
    if DIGEST in there.facts:
        with path.open("rb") as file:
            file.seek(HEAD_ROOM + int.from_bytes(file.read(HEAD_ROOM), "little"))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        require(digest == there.facts[DIGEST], incomplete(place))


def incomplete(place: str) -> str:
    """What to say of such an object that cannot be read."""
    return f"{place} is not a complete safetensors file. Remove it and make it again."


def _arrays_in(data: NDArray[np.uint8], place: str) -> StoredArrays:
    try:
        start = HEAD_ROOM + int.from_bytes(bytes(data[:HEAD_ROOM]), "little")
        head: dict[str, Any] = parse_json(bytes(data[HEAD_ROOM:start]))
        facts = head.pop("__metadata__", {})
        row_keys = parse_json(facts.get(ROW_KEYS, "null"))
        require(row_keys is None or isinstance(row_keys, list), "The rows have no names.")
        arrays = {name: _array(data[start:], entry) for name, entry in head.items()}
        end = start + max((entry["data_offsets"][1] for entry in head.values()), default=0)
        require(len(data) == end, f"{len(data)} bytes for {end}.")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(incomplete(place)) from error
    return StoredArrays(arrays, row_keys, facts)


def _array(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape, (first, last) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = int(np.prod(shape, dtype=np.int64))
    require(first >= 0 and last - first == count * dtype.itemsize, "The offsets fit no array.")
    array = data[first:last].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array
