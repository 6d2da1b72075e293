"""What a run was asked for, section by section: a run that grows gets another, the old ones stay.

A section is captions x images of each, a rectangle. `sections/00000.json` describes it and names
the parquet file of the captions that it brings. The run's captions are those of all its sections,
in their order; a section that only adds images to captions brings none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from t2ipal.config import from_dict, require, to_dict
from t2ipal.store.objects import Store
from t2ipal.store.records import Caption
from t2ipal.store.tables import (
    CAPTIONS_SCHEMA,
    captions_table,
    json_bytes,
    read_json,
    read_table,
    table_captions,
    to_parquet,
)

REJECTED_KEY = "rejected.parquet"
_REMEDY = "and later sections, and run the same commands again in their order: shards are kept."


@dataclass(frozen=True)
class Section:
    """One rectangle of captions and images."""

    first_shard: int
    """Number of its first shard; shards are numbered through all sections."""
    num_shards: int
    first_caption: int
    """Position in the run's order of captions."""
    num_captions: int
    first_k: int
    """The first image that it gives each caption, from 0."""
    num_k: int
    """Images that it gives each caption."""
    captions_key: str
    """Object with the captions it brings; "" where it only adds images to those there are."""
    extras_key: str = ""
    """Object with how many of the `num_k` images each caption gets, where not all get them."""
    num_extras: int = 0
    """Sum of those."""

    def __post_init__(self) -> None:
        for name in ("num_shards", "num_captions", "num_k"):
            require(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}.")
        for name in ("first_shard", "first_caption", "first_k", "num_extras"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, got {getattr(self, name)}.")

    @property
    def num_samples(self) -> int:
        """Images that it asks for."""
        return self.num_extras if self.extras_key else self.num_captions * self.num_k


def read_sections(store: Store) -> list[Section]:
    """The run's sections in order; none where nothing was asked for yet.

    Raises:
        ValueError: one of them is damaged.
    """
    sections = []
    for key in store.list("sections/"):
        if not key.endswith(".json"):
            continue
        expected = _key(len(sections))
        require(
            key == expected, f"{expected} in {store.uri} is gone. Remove its captions {_REMEDY}"
        )
        try:
            sections.append(from_dict(Section, read_json(store, key)))
        except (TypeError, ValueError) as error:  # a field is missing, or of another kind
            raise ValueError(f"{key} in {store.uri} is damaged. Remove it {_REMEDY}") from error
    return sections


def _key(number: int) -> str:
    return f"sections/{number:05d}.json"


def _read_part(store: Store, key: str, columns: Sequence[str]) -> pa.Table:
    """What a section names. It is written before the section, so it can come again with it only."""
    try:
        return read_table(store, key, columns)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"{key} in {store.uri} is gone or damaged. Remove it, its section {_REMEDY}"
        ) from error


def write_section(store: Store, number: int, section: Section) -> bool:
    """Adds the section after the `number` that there are; False where another writer was first."""
    data = json_bytes(to_dict(section))
    return store.write_if_absent(_key(number), data) or store.read(_key(number)) == data


def write_section_captions(store: Store, number: int, captions: Sequence[Caption]) -> str:
    """Writes the captions that a section brings, under a name of their content; returns the key."""
    data = to_parquet(captions_table(captions))
    key = f"sections/{number:05d}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    store.write_if_absent(key, data)
    return key


def write_extras(store: Store, number: int, extras: Mapping[int, int]) -> str:
    """Writes how many more images captions get, by their positions; returns the key.

    The name follows the content, as that of a section's captions.
    """
    positions = sorted(extras)
    table = pa.table({"caption": positions, "num_images": [extras[at] for at in positions]})
    data = to_parquet(table)
    key = f"sections/{number:05d}-extras-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    store.write_if_absent(key, data)
    return key


def read_extras(store: Store, section: Section) -> dict[int, int]:
    """What `write_extras` was given for a section."""
    table = _read_part(store, section.extras_key, ("caption", "num_images"))
    return dict(zip(table["caption"].to_pylist(), table["num_images"].to_pylist()))


def write_rejected(store: Store, rejected: Sequence[Caption], if_absent: bool = False) -> None:
    """Writes the captions that were looked at and not taken, with the reasons."""
    write = store.write_if_absent if if_absent else store.write
    write(REJECTED_KEY, to_parquet(captions_table(rejected)))


def read_captions(store: Store, sections: Sequence[Section] | None = None) -> list[Caption]:
    """The kept captions of a run, in its order.

    Args:
        store: home of the run.
        sections: those whose captions to read; None: all that are there now.

    Raises:
        FileNotFoundError: the run has no captions yet.
    """
    sections = read_sections(store) if sections is None else sections
    tables = caption_tables(store, sections, CAPTIONS_SCHEMA.names)
    return [caption for table in tables for caption in table_captions(table)]


def caption_tables(
    store: Store, sections: Sequence[Section], columns: Sequence[str]
) -> list[pa.Table]:
    """Some columns of the captions of these sections, one table for each that brings some.

    Raises:
        FileNotFoundError: there is no section.
        ValueError: the captions of one are damaged.
    """
    if not sections:
        raise FileNotFoundError(f"No captions in {store.uri}. Run jobs/synthesize.py first.")
    return [
        _section_captions(store, section, columns) for section in sections if section.captions_key
    ]


def read_rejected(store: Store) -> list[Caption]:
    """The captions that were looked at and not taken, with the reasons.

    Raises:
        FileNotFoundError: the run has none yet.
    """
    return table_captions(read_table(store, REJECTED_KEY, CAPTIONS_SCHEMA.names))


def count_rejected(store: Store) -> dict[str, int]:
    """How many captions were looked at and not taken, by the reason; reads no caption."""
    if not store.exists(REJECTED_KEY):
        return {}
    reasons = read_table(store, REJECTED_KEY, ["reason"])["reason"].value_counts().to_pylist()
    return {counted["values"]: counted["counts"] for counted in reasons}


def _section_captions(store: Store, section: Section, columns: Sequence[str]) -> pa.Table:
    table = _read_part(store, section.captions_key, columns)
    require(
        table.num_rows == section.num_captions,
        f"{section.captions_key} in {store.uri} holds {table.num_rows} captions where its section "
        f"has {section.num_captions}. Remove both {_REMEDY}",
    )
    return table
