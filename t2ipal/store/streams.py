"""Tables that are written while their rows come: JSON lines, CSV or parquet, by the file's ending.

A reader sees the whole table or none: until then it lies beside it under a temporary name, or, for
a bucket, in this machine's temporary folder. Memory does not grow with the number of rows.
"""

import contextlib
import csv
import json
import mmap
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from t2ipal.config import one_of
from t2ipal.store.objects import TEMPORARY_PREFIX, clear_error, store_and_key

Kind = Literal["text", "texts", "number", "numbers", "count"]
TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "number": pa.float64(),
    "numbers": pa.list_(pa.float64()),
    "count": pa.int64(),
}
"""Kind of a column -> its type in parquet; what JSON has for it goes without saying."""
BETWEEN = ";"
"""Stands in a CSV's cell between the values of a list."""
GROUP_ROWS = 4096
"""Of a parquet row group; so many rows are in memory."""

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], None]


@contextlib.contextmanager
def table_writer(
    uri: str, columns: Mapping[str, Kind], endpoint_url: str | None = None
) -> Iterator[Write]:
    """A function that takes rows; the table is there once the `with` block has ended well.

    Args:
        uri: of the table, local or on `s3://`, ending in .jsonl, .csv or .parquet.
        columns: name -> kind; a row's value may also be None.
        endpoint_url: server of an S3 bucket that is not on AWS.

    Raises:
        ValueError: another ending.
        OSError: the place cannot be written to; found out before any row is written.
    """
    writer = WRITERS[table_format(uri)]
    with _spooled(uri, endpoint_url) as path, writer(path, columns) as write:
        yield write


def table_format(uri: str) -> str:
    """The ending of a table's file, in lower case.

    Raises:
        ValueError: no table is written with it.
    """
    ending = Path(uri).suffix.lower()
    one_of(f"ending of {uri}", ending, WRITERS)
    return ending


@contextlib.contextmanager
def _jsonl(path: Path, columns: Mapping[str, Kind]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                values = {name: row[name] for name in columns}
                file.write(json.dumps(values, ensure_ascii=False) + "\n")

        yield write


@contextlib.contextmanager
def _csv(path: Path, columns: Mapping[str, Kind]) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)

        def cell(value: Any) -> Any:
            return BETWEEN.join(map(str, value)) if isinstance(value, list | tuple) else value

        yield lambda rows: table.writerows([cell(row[n]) for n in columns] for row in rows)


@contextlib.contextmanager
def _parquet(path: Path, columns: Mapping[str, Kind]) -> Iterator[Write]:
    schema = pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])
    waiting: list[Row] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as file:

        def write(rows: Sequence[Row], least: int = GROUP_ROWS) -> None:
            waiting.extend(rows)
            while len(waiting) >= least:
                group = [{n: row[n] for n in columns} for row in waiting[:GROUP_ROWS]]
                file.write_table(pa.Table.from_pylist(group, schema))
                del waiting[:GROUP_ROWS]

        yield write
        while waiting:
            write([], least=1)


WRITERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


@contextlib.contextmanager
def _spooled(uri: str, endpoint_url: str | None) -> Iterator[Path]:
    """A local file that becomes the object at `uri` when the block ends well."""
    store, name = store_and_key(uri, endpoint_url)
    if store.is_bucket:
        store.conditional_writes()  # writes a small object: what is refused is refused now
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "table"
            yield path
            if not path.stat().st_size:  # what cannot be mapped
                store.write(name, b"")
                return
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
                store.write(name, cast(bytes, m))
        return
    path = Path(store.uri) / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        with _clear_errors(path.with_name(name)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        yield path
        with _clear_errors(path.with_name(name)):
            path.replace(path.with_name(name))
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise clear_error(error, path, 0) from error
