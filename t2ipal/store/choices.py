"""Choices among a run's images: a new manifest over the same shards; nothing is copied or lost.

`manifests/NAME.parquet` has a row for every image with what was measured on it and whether it is
kept, `manifests/NAME.json` what was asked for and how many are.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from t2ipal.config import require
from t2ipal.store.objects import Store
from t2ipal.store.tables import json_bytes, read_json, read_table, to_parquet

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


def write_choice(
    store: Store, name: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> None:
    """Writes a choice under a name; one that is there gives way.

    Raises:
        ValueError: the name is not one word of letters, digits, - and _.
    """
    check_choice_name(name)
    table = pa.Table.from_pylist([dict(row) for row in rows], CHOICE_SCHEMA)
    store.write(f"manifests/{name}.parquet", to_parquet(table))
    num_kept = sum(bool(row["kept"]) for row in rows)
    manifest = {"settings": dict(settings), "num_images": len(rows), "num_kept": num_kept}
    store.write(f"manifests/{name}.json", json_bytes(manifest))


def read_choice(store: Store, name: str) -> pa.Table:
    """The rows of a choice.

    Raises:
        FileNotFoundError: there is none of that name; those that there are get named.
    """
    read_choice_settings(store, name)
    return read_table(store, f"manifests/{name}.parquet", CHOICE_SCHEMA.names)


def read_choice_settings(store: Store, name: str) -> dict[str, Any]:
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
    return read_json(store, f"manifests/{name}.json")


def check_choice_name(name: str) -> None:
    """Raises ValueError unless a choice can have this name."""
    require(
        re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None,
        f"A choice's name must be one word of letters, digits, - and _, got {name!r}.",
    )
