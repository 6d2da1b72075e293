"""Readers of caption files: COCO json, jsonl, csv, tsv, parquet, plain text; local or s3://.

Owns the formats and the caption ids. Bytes and parquet tables come from the store.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from t2ipal.config import require, unknown
from t2ipal.store import Caption, read_bytes, read_parquet_columns

_TEXT_FIELDS = ("caption", "text")
_ID_FIELDS = ("caption_id", "id")
_SAVE = "Save it as UTF-8."
_OTHER_KINDS = (
    (b"\xff\xfe", "UTF-16", _SAVE),
    (b"\xfe\xff", "UTF-16", _SAVE),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"PK\x03\x04", "a zip archive", "Unpack it first."),
    (b"PAR1", "parquet", "Name it .parquet."),
    (b"version https://git-lfs", "a pointer of git LFS", "Run `git lfs pull`."),
)
"""First bytes of what is often given in place of text, and what to do about it."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def read_captions(uri: str | Path, endpoint_url: str | None = None) -> Iterator[Caption]:
    """The captions of a file; .json, .jsonl, .csv, .tsv, .parquet or .txt names its format.

    Ids: the annotation id (COCO), image_id/annotator_id (localized narratives), the field
    caption_id or id where there is one, otherwise the number of the row or line from 1.

    Args:
        uri: of the file.
        endpoint_url: server of an S3 bucket that is not on AWS; AWS_ENDPOINT_URL does the same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown suffix, a malformed file (with the place), an id twice, or no
            caption at all.
    """
    uri = str(uri)
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix == ".parquet":
        captions = _parquet(uri, endpoint_url)
    else:
        parsers = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".tsv": _csv, ".txt": _lines}
        if suffix not in parsers:
            raise unknown(f"suffix of the caption file {uri}:", suffix, (*parsers, ".parquet"))
        captions = parsers[suffix](_decode(uri, endpoint_url), uri)
    return iter(_unique(captions, uri))


def _decode(uri: str, endpoint_url: str | None) -> str:
    data = read_bytes(uri, endpoint_url)
    for start, kind, remedy in _OTHER_KINDS:
        require(not data.startswith(start), f"{uri} must be UTF-8 text, got {kind}. {remedy}")
    # Without a mark at its start, UTF-16 shows by the zeros beside its first letters.
    require(
        len(data) < 4 or {data[0] == 0, data[1] == 0} != {True, False} or 0 not in data[2:4],
        f"{uri} must be UTF-8 text, got UTF-16. {_SAVE}",
    )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{uri} must be UTF-8 text, got byte 0x{data[error.start]:02x} in line {line}. {_SAVE}"
        ) from error


def _unique(captions: Iterable[Caption], uri: str) -> list[Caption]:
    seen: set[str] = set()
    listed = list(captions)
    for caption in listed:
        require(
            caption.caption_id not in seen,
            f"{uri}: caption id {caption.caption_id!r} occurs twice; ids must be unique.",
        )
        seen.add(caption.caption_id)
    require(bool(listed), f"{uri} holds no caption.")
    return listed


def _json(text: str, uri: str) -> Iterator[Caption]:
    """MS-COCO: {"annotations": [{"id", "image_id", "caption"}, ...]}."""
    require(bool(text.strip()), f"{uri} holds no caption.")
    content = _parsed(text, uri)
    annotations = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(annotations, list):
        raise ValueError(
            f'{uri} must be MS-COCO captions with a list "annotations", got {_brief(content)}.'
        )
    for at, row in enumerate(annotations):
        place = f"{uri}: annotations[{at}]"
        require(isinstance(row, Mapping), f"{place} must be a mapping, got {_brief(row)}.")
        require("id" in row, f"{place} has no id.")
        yield Caption(_id(row["id"], place), _text(row, place))


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # too many digits, too deep
        raise ValueError(f"{place} is no valid JSON: {error}.") from error


def _jsonl(text: str, uri: str) -> Iterator[Caption]:
    repeats: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{uri}, line {number}"
        row = _parsed(line, place)
        require(isinstance(row, Mapping), f"{place} must be a mapping, got {_brief(row)}.")
        if "image_id" in row and "annotator_id" in row:
            caption_id = f"{_id(row['image_id'], place)}/{_id(row['annotator_id'], place)}"
            # Nothing in the format forbids one annotator to narrate an image twice.
            repeats[caption_id] = repeats.get(caption_id, 0) + 1
            if repeats[caption_id] > 1:
                caption_id = f"{caption_id}#{repeats[caption_id]}"
        else:
            field = next((name for name in _ID_FIELDS if name in row), None)
            caption_id = _id(row[field], place) if field else str(number)
        yield Caption(caption_id, _text(row, place))


def _csv(text: str, uri: str) -> Iterator[Caption]:
    # The whole process's, 131,072 characters; longer captions are for the filter to reject.
    limit = csv.field_size_limit()
    csv.field_size_limit(max(limit, len(text)))
    try:
        yield from _csv_rows(text, uri)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(text: str, uri: str) -> Iterator[Caption]:
    delimiter = "\t" if uri.lower().endswith(".tsv") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = reader.fieldnames or ()
    require(bool(names), f"{uri} holds no caption.")
    require(
        any(name in names for name in _TEXT_FIELDS),
        f"{uri} must name a column caption or text in its first line, got {', '.join(names)}.",
    )
    for name in (*_TEXT_FIELDS, *_ID_FIELDS):
        require(names.count(name) < 2, f"{uri} names the column {name} twice in its first line.")
    field = next((name for name in _ID_FIELDS if name in names), None)
    try:
        for number, row in enumerate(reader, start=1):
            place = f"{uri}, line {reader.line_num}"
            rest = row.pop(None, [])  # pyright: ignore[reportArgumentType]
            require(
                not rest,
                f"{place} has {len(names) + len(rest)} fields where the first line names "
                f"{len(names)}. Put a caption with a comma into double quotes.",
            )
            caption_id = _id(row[field], place) if field else str(number)
            yield Caption(caption_id, _text(row, place))
    except csv.Error as error:
        raise ValueError(f"{uri}, line {reader.line_num + 1} is no valid CSV: {error}.") from error


def _parquet(uri: str, endpoint_url: str | None) -> Iterator[Caption]:
    columns = read_parquet_columns(uri, (), (*_TEXT_FIELDS, *_ID_FIELDS), endpoint_url)
    texts = next((columns[name] for name in _TEXT_FIELDS if name in columns), None)
    if texts is None:
        raise ValueError(f"{uri} must be parquet with a column caption or text, got neither.")
    ids = next((columns[name] for name in _ID_FIELDS if name in columns), None)
    for at, text in enumerate(texts):
        place = f"{uri}, row {at + 1}"
        caption_id = str(at + 1) if ids is None else _id(ids[at], place)
        yield Caption(caption_id, _text({"caption": text}, place))


def _lines(text: str, uri: str) -> Iterator[Caption]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield Caption(str(number), line.strip())


def _text(row: Mapping[str, Any], place: str) -> str:
    field = next((name for name in _TEXT_FIELDS if name in row), None)
    if field is None:
        raise ValueError(
            f"{place} has no caption, only {', '.join(map(str, row))}; is this a caption file?"
        )
    text = row[field]
    require(isinstance(text, str), f"{place}: {field} must be a text, got {_brief(text)}.")
    _check_whole(text, place)
    return text.strip()


def _id(value: Any, place: str) -> str:
    plain = isinstance(value, int | str) and not isinstance(value, bool)
    require(
        plain and str(value) != "",
        f"{place}: an id must be a whole number or a text, got {_brief(value)}.",
    )
    _check_whole(str(value), place)
    return str(value)


def _check_whole(text: str, place: str) -> None:
    """JSON can escape half of a character, which no file could hold afterwards."""
    half = _HALF_CHARACTER.search(text)
    require(half is None, f"{place} holds half a character, {half and half[0]!r}. Remove it.")


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
