"""Which column of a caption file holds the texts, and which the ids.

Owns the names that data sets use. Knows no format: a row is a mapping of names to values.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from t2ipal.config import unknown

CAPTION_NAMES = (
    *("caption", "text", "captions", "texts", "raw", "raw_caption", "sentence", "sentences"),
    *("comment", "description", "alt_text", "caption_str", "phrase", "prompt"),
)
"""What columns of texts are called, the likeliest first: COCO, LAION, Karpathy, Flickr30k, ..."""
ID_NAMES = ("caption_id", "id", "sentid")
IMAGE_NAMES = (
    *("image_id", "cocoid", "coco_id", "file_name", "filename", "image_name", "image_file"),
)
"""What columns are called that name the image; one called "image" may hold the image itself."""


@dataclass(frozen=True)
class Columns:
    """The columns of one kind of row."""

    texts: tuple[str, ...]
    """More than one where captions are numbered: caption_0, caption_1, ..."""
    id: str | None
    """None: ids are the numbers of the rows."""
    image: str | None = None
    """None: no column names the image."""

    def __str__(self) -> str:
        ids = "the row's number" if self.id is None else self.id
        return f"caption: {', '.join(self.texts)}; id: {ids}"


def find_columns(
    names: Sequence[str], caption_column: str | None, id_column: str | None
) -> Columns | None:
    """The columns among `names`; None where no column of texts is known.

    Args:
        names: of all columns.
        caption_column: what the user calls the column of texts; None: guess.
        id_column: and that of the ids.
    """
    texts = _named(names, (caption_column,) if caption_column else CAPTION_NAMES)
    if not texts and not caption_column:
        texts = _numbered(names)
    ids = _named(names, (id_column,) if id_column else ID_NAMES)
    image = next(iter(_named(names, IMAGE_NAMES)), None)
    return Columns(texts, ids[0] if ids else None, image) if texts else None


def require_columns(
    names: Iterable[str], place: str, caption_column: str | None, id_column: str | None
) -> Columns:
    """As `find_columns`.

    Raises:
        ValueError: there is no column of texts, or not the one that was asked for.
    """
    names = list(names)
    for option, name in (("caption_column", caption_column), ("id_column", id_column)):
        if name and not _named(names, (name,)):
            raise unknown(f"{option} of {place}:", name, names)
    found = find_columns(names, caption_column, id_column)
    if found is None:
        raise ValueError(
            f"{place} must have a column caption or text, got {', '.join(names)}. "
            "Name the column of the texts with --caption-column."
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _named(names: Sequence[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """The first wanted name that is there: as it is written, else in other letters."""
    plain = {_plain(name): name for name in reversed(names)}
    for name in wanted:
        if name in names:
            return (name,)
        if _plain(name) in plain:
            return (plain[_plain(name)],)
    return ()


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """caption_0, caption_1, ...: the columns of several captions in a row."""
    for wanted in CAPTION_NAMES:
        found = [n for n in names if re.fullmatch(rf"{wanted}_?\d+", _plain(n))]
        if found:
            return tuple(found)
    return ()
