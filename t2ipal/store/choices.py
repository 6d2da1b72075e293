"""Choices among a run's images: a new manifest over the same shards; nothing is copied or lost.

`manifests/NAME.parquet` has a row for every image with what was measured on it and whether it is
kept, `manifests/NAME.json` what was asked for and how many are.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from t2ipal.config import from_dict, require, to_dict
from t2ipal.store.index import Names
from t2ipal.store.objects import Store
from t2ipal.store.records import known
from t2ipal.store.tables import json_bytes, read_json, read_table, to_parquet

BLOCK_ROWS = 65536
CHOICE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # of the sample, as in its tar
        ("caption_id", pa.string()),
        ("k", pa.int32()),
        ("similarity", pa.float32()),  # cosine of CLIP's features of image and caption
        ("found", pa.list_(pa.int32())),  # named classes that the heatmaps find
        ("missing", pa.list_(pa.int32())),  # named classes that they do not
        ("twin_of", pa.string()),  # key of the first image of the same classes that is alike
        ("kept", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class ChoiceRow:
    """One image of a choice; `CHOICE_SCHEMA` says what the columns are."""

    key: str
    caption_id: str
    k: int
    similarity: float
    found: tuple[int, ...]
    missing: tuple[int, ...]
    twin_of: str
    kept: bool


@dataclass(frozen=True)
class ChoiceManifest:
    """manifests/NAME.json: what a choice was asked for, and what it keeps."""

    settings: Mapping[str, Any]
    """Plain values: thresholds, and the features that were looked at."""
    num_images: int
    num_kept: int


def write_choice(
    store: Store, name: str, rows: Iterable[ChoiceRow], settings: Mapping[str, Any]
) -> None:
    """Writes a choice under a name; one that is there gives way. Few rows are held at once.

    Raises:
        ValueError: the name is not one word of letters, digits, - and _.
    """
    check_choice_name(name)
    parts, left = [], iter(rows)
    while block := [vars(row) for row in islice(left, BLOCK_ROWS)]:
        parts.append(pa.Table.from_pylist(block, CHOICE_SCHEMA))
    table = pa.concat_tables([CHOICE_SCHEMA.empty_table(), *parts]).combine_chunks()
    store.write(f"manifests/{name}.parquet", to_parquet(table))
    num_kept = int(np.count_nonzero(table["kept"].to_numpy()))
    manifest = ChoiceManifest(dict(settings), table.num_rows, num_kept)
    store.write(f"manifests/{name}.json", json_bytes(to_dict(manifest)))


def read_choice(store: Store, name: str) -> list[ChoiceRow]:
    """The rows of a choice, one for each image that there was.

    Raises:
        FileNotFoundError: there is none of that name; those that there are get named.
        ValueError: rows and manifest are of two choices, as a command that was killed leaves them.
    """
    rows, lists = _read_table(store, name, CHOICE_SCHEMA.names).to_pylist(), ("found", "missing")
    return [ChoiceRow(**{**row, **{n: tuple(row[n] or ()) for n in lists}}) for row in rows]


def read_kept(store: Store, name: str) -> tuple[Names, NDArray[np.bool_]]:
    """The keys of the images of a choice, and which of them it keeps; raises as `read_choice`."""
    table = _read_table(store, name, ("key", "kept"))
    return Names(table["key"]), table["kept"].to_numpy()


def _read_table(store: Store, name: str, columns: Sequence[str]) -> pa.Table:
    manifest = read_choice_manifest(store, name)
    table = read_table(store, f"manifests/{name}.parquet", columns)
    there = table.num_rows, int(np.count_nonzero(table["kept"].to_numpy()))
    require(
        there == (manifest.num_images, manifest.num_kept),
        f"manifests/{name}.parquet in {store.uri} is not what manifests/{name}.json describes. Run "
        "jobs/choose.py again.",
    )
    return table


def read_choice_manifest(store: Store, name: str) -> ChoiceManifest:
    """What a choice was asked for, and `num_images` and `num_kept`.

    Raises:
        FileNotFoundError: there is none of that name; those that there are get named.
    """
    check_choice_name(name)
    if not store.exists(f"manifests/{name}.json"):
        endings = [key.removeprefix("manifests/") for key in store.list("manifests/")]
        there = [ending.removesuffix(".json") for ending in endings if ending.endswith(".json")]
        raise FileNotFoundError(
            f"No choice {name!r} of images in {store.uri}; there is {', '.join(there) or 'none'}. "
            "Run jobs/choose.py first."
        )
    try:
        values = read_json(store, f"manifests/{name}.json")
        return from_dict(ChoiceManifest, known(ChoiceManifest, values))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"manifests/{name}.json in {store.uri} is damaged. Run jobs/choose.py again."
        ) from error


def check_choice_name(name: str) -> None:
    """Raises ValueError unless a choice can have this name."""
    require(
        re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
        f"A choice's name must be one word of letters, digits, - and _, got {name!r}.",
    )
