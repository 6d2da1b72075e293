"""Tables as parquet, arrays as safetensors, records as JSON: what the objects of a run hold."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy

from t2ipal.config import one_of
from t2ipal.store.objects import Store, read_bytes

SIDECAR_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # name of the sample in the tar
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("labels", pa.list_(pa.int32())),  # indices into the vocabulary's class names
        ("k", pa.int32()),  # which image of the caption, from 0
        ("attempt", pa.int32()),  # whose seed it has, from 0; each retry of a failed sample is one
        ("seed", pa.uint64()),  # of the sample's noise; null where it failed before
        ("status", pa.string()),  # "ok" or "failed"
        ("reason", pa.string()),  # why it failed, else ""
        ("settings", pa.string()),  # fingerprint of what the image was made with
        ("width", pa.int32()),  # pixels; 0 where failed
        ("height", pa.int32()),
    ]
)

CAPTIONS_SCHEMA = pa.schema(
    [
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("status", pa.string()),  # "kept" or "rejected"
        ("reason", pa.string()),  # why it was rejected, else ""
    ]
)


class KeptCaption(Protocol):
    """A caption that names classes; `labels` are their indices."""

    @property
    def caption_id(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[int]: ...  # noqa: D102


class RefusedCaption(Protocol):
    """A caption that the filter took out, and why."""

    @property
    def caption_id(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


def captions_table(kept: Iterable[KeptCaption], rejected: Iterable[RefusedCaption]) -> pa.Table:
    """Captions that were looked at, and what became of each."""
    rows: list[tuple[Any, ...]] = [(c.caption_id, c.text, list(c.labels), "kept", "") for c in kept]
    rows += [(c.caption_id, c.text, [], "rejected", c.reason) for c in rejected]
    columns = zip(*rows, strict=True) if rows else [[] for _ in CAPTIONS_SCHEMA]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, CAPTIONS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=CAPTIONS_SCHEMA)


def read_parquet_columns(
    uri: str | Path,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    endpoint_url: str | None = None,
) -> dict[str, list[Any]]:
    """Named columns of a parquet file, local or on `s3://`, as plain lists.

    Args:
        uri: of the file.
        columns: that it must have.
        optional: that are read too where it has them.
        endpoint_url: server of an S3 bucket that is not on AWS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no parquet file, or lacks a column.
    """
    data = read_bytes(uri, endpoint_url)
    try:
        names = _open_parquet(data).schema_arrow.names
        return from_parquet(data, [*columns, *(n for n in optional if n in names)]).to_pydict()
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from error


def read_table(store: Store, key: str, columns: Sequence[str]) -> pa.Table:
    """Named columns of one parquet object.

    Raises:
        FileNotFoundError: there is no such object.
        ValueError: it is damaged.
    """
    data = store.read(key)
    try:
        return from_parquet(data, columns)
    except ValueError as error:
        raise ValueError(damaged(store, key)) from error


def to_parquet(table: pa.Table) -> bytes:
    """A table as parquet bytes, the same ones for the same rows and pyarrow version."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, columns: Sequence[str]) -> pa.Table:
    """Named columns of parquet bytes.

    Raises:
        ValueError: it is no parquet file, or lacks a column (the nearest one is named).
    """
    file = _open_parquet(data)
    for column in columns:
        one_of("column", column, file.schema_arrow.names)
    try:
        return file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ValueError("This parquet file is damaged.") from error


def _open_parquet(data: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError("This is not a parquet file, or not all of it.") from error


def sidecar_rows(data: bytes) -> pa.Table:
    """The rows of a sidecar; where it is from before there were attempts, all have the first's."""
    if "attempt" in _open_parquet(data).schema_arrow.names:
        return from_parquet(data, SIDECAR_SCHEMA.names)
    rows = from_parquet(data, [name for name in SIDECAR_SCHEMA.names if name != "attempt"])
    attempts = pa.array([0] * rows.num_rows, pa.int32())
    return rows.append_column("attempt", attempts).select(SIDECAR_SCHEMA.names)


def write_arrays(store: Store, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as one safetensors object."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    store.write(key, safetensors.numpy.save(contiguous))


def read_arrays(store: Store, key: str) -> dict[str, np.ndarray]:
    """The named arrays of one safetensors object.

    Raises:
        FileNotFoundError: there is no such object.
        ValueError: it is not a complete safetensors file.
    """
    data = store.read(key)
    try:
        return safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{key} in {store.uri} is not a complete safetensors file. Remove it and make it again."
        ) from error


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """A record as JSON, the same bytes for the same values."""
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def read_json(store: Store, key: str) -> dict[str, Any]:
    """The record that one object holds.

    Raises:
        FileNotFoundError: there is no such object.
        ValueError: it is not a whole JSON record.
    """
    try:
        values = json.loads(store.read(key))
    except ValueError as error:
        raise ValueError(damaged(store, key)) from error
    if not isinstance(values, dict):
        raise ValueError(damaged(store, key))
    return values


def damaged(store: Store, key: str) -> str:
    """What to say of an object that cannot be read."""
    return f"{key} in {store.uri} is damaged. Remove it and run jobs/synthesize.py again."
