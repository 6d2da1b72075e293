"""Tables as parquet and records as JSON: what the objects of a run hold beside arrays."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t2ipal.config import one_of, parse_json
from t2ipal.store.objects import Store, store_and_key
from t2ipal.store.records import Caption, Sample, known

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


def captions_table(captions: Iterable[Caption]) -> pa.Table:
    """Captions that were looked at, and what became of each."""
    rows = [
        (c.caption_id, c.caption, list(c.labels), "rejected" if c.reason else "kept", c.reason)
        for c in captions
    ]
    columns = zip(*rows, strict=True) if rows else [[] for _ in CAPTIONS_SCHEMA]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, CAPTIONS_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=CAPTIONS_SCHEMA)


def table_captions(table: pa.Table) -> list[Caption]:
    """The captions of such a table, in its order."""
    names = ("caption_id", "caption", "labels", "reason")
    columns = (table[name].to_pylist() for name in names)
    return [Caption(i, text, tuple(labels), why) for i, text, labels, why in zip(*columns)]


def read_parquet_columns(
    uri: str | Path,
    choose: Callable[[list[str]], Sequence[str]],
    endpoint_url: str | None = None,
) -> dict[str, list[Any]]:
    """Some columns of a parquet file, local or on `s3://`, as plain lists; no other is read.

    Args:
        uri: of the file.
        choose: takes the names of all columns and gives those to read.
        endpoint_url: server of an S3 bucket that is not on AWS.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no parquet file, or lacks a column.
    """
    store, name = store_and_key(uri, endpoint_url)
    if not store.is_bucket and not store.exists(name):
        raise FileNotFoundError(f"No file {uri}.")
    try:
        source = pa.BufferReader(store.read(name)) if store.is_bucket else f"{store.uri}/{name}"
        file = _open_parquet(source)
        return _columns(file, choose(file.schema_arrow.names)).to_pydict()
    except ValueError as error:
        raise ValueError(error if str(uri) in str(error) else f"{uri}: {error}") from error


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
    return _columns(_open_parquet(pa.BufferReader(data)), columns)


def _columns(file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    for column in columns:
        one_of("column", column, file.schema_arrow.names)
    try:
        return file.read(columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ValueError("This parquet file is damaged.") from error


def _open_parquet(source: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise ValueError("This is not a parquet file, or not all of it.") from error


def sidecar_table(samples: Iterable[Sample]) -> pa.Table:
    """The table of a shard's sidecar."""
    return pa.Table.from_pylist([vars(sample) for sample in samples], SIDECAR_SCHEMA)


def sidecar_samples(data: bytes) -> list[Sample]:
    """The samples of a sidecar; one from before there were attempts has the first's alone."""
    there = _open_parquet(pa.BufferReader(data)).schema_arrow.names
    rows = from_parquet(data, [n for n in SIDECAR_SCHEMA.names if n in there or n != "attempt"])
    return [sample_of(row) for row in rows.to_pylist()]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The sample of a stored row; what a later version adds is left alone."""
    values = known(Sample, {"attempt": 0, **row})
    return Sample(**{**values, "labels": tuple(values["labels"])})


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """A record as JSON, the same bytes for the same values."""
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def read_json(store: Store, key: str, job: str = "synthesize") -> dict[str, Any]:
    """The record that one object holds.

    Args:
        store: where from.
        key: of the object.
        job: that writes it, for the message where it is damaged.

    Raises:
        FileNotFoundError: there is no such object.
        ValueError: it is not a whole JSON record.
    """
    try:
        values = parse_json(store.read(key))
    except ValueError as error:
        raise ValueError(damaged(store, key, job)) from error
    if not isinstance(values, dict):
        raise ValueError(damaged(store, key, job))
    return values


def damaged(store: Store, key: str, job: str = "synthesize") -> str:
    """What to say of an object that cannot be read."""
    return f"{key} in {store.uri} is damaged. Remove it and run jobs/{job}.py again."
