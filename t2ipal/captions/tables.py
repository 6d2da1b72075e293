"""Rows of text files: CSV and TSV as people write them, lists with file names, a caption a line.

Owns line ends, separators, quotation marks and whether there is a line of names.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from t2ipal.captions.columns import Columns, find_columns, require_columns
from t2ipal.config import require

LONGEST_QUOTE = 50
"""Lines that a field in quotation marks may go over; a mark that is not closed by then is one
that somebody forgot."""
_LINE_END = re.compile(r"\r*\n|\r|\x85|\u2028|\u2029")
_LEADING_FILE = re.compile(r"(\S+?\.(?:jpe?g|png|webp|gif|bmp)(?:#\d+)?)[\s,;|]+(?=\S)", re.I)
"""The file of a photograph before its caption: Flickr8k.token.txt and its like."""
_LOOKED_AT = 100
"""Lines by which a file without names of columns is judged."""
_SEPARATORS = {".csv": ",;\t|", ".tsv": "\t,;|", ".tab": "\t,;|", ".txt": ",\t|;", ".token": "\t"}


@dataclass(frozen=True)
class Row:
    """One row of a caption file."""

    number: int
    """From 1, of the row or line."""
    place: str
    """In its file, e.g. "line 7"."""
    texts: Any = None
    """A text, or several in a list."""
    id: Any = None
    image: Any = None
    """What names the image that the texts are of."""
    columns: str = "a caption a line"
    """Where text and id were found, for a person."""
    reason: str = ""
    """Why it cannot be used, else ""."""


def brief(value: Any) -> str:
    """A value as an error shows it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def text_rows(
    text: str, uri: str, suffix: str, caption_column: str | None, id_column: str | None
) -> Iterator[Row]:
    """The rows of a text file; arguments as those of `rows.read_rows`.

    Raises:
        ValueError: a table without a column of texts.
    """
    lines = [(at, line) for at, line in enumerate(_LINE_END.split(text), start=1) if line.strip()]
    if lines and lines[0][1].lower().startswith("sep="):  # Excel's
        lines = lines[1:]
    require(bool(lines), f"{uri} holds no caption.")
    lines[0] = lines[0][0], lines[0][1].lstrip("\ufeff")
    if suffix in (".txt", ".token") and not (caption_column or id_column):
        first = [line for _, line in lines[:_LOOKED_AT]]
        if all(map(_LEADING_FILE.match, first)):
            yield from _after_file_names(lines)
            return
        separator = _separator_of_names(first[0], suffix, None)
        if separator is None and not _has_steady_tabs(first):
            yield from (Row(at, f"line {at}", line.strip("\ufeff \t")) for at, line in lines)
            return
    yield from _table(lines, uri, suffix, caption_column, id_column)


def _after_file_names(lines: Sequence[tuple[int, str]]) -> Iterator[Row]:
    """NAME#K<TAB>caption: the name is the id."""
    for at, line in lines:
        file = _LEADING_FILE.match(line)
        if file is None:
            yield Row(at, f"line {at}", reason="no file name before the caption")
        else:
            columns = "the text behind the file's name; id: that name"
            text = line[file.end() :].strip()
            yield Row(at, f"line {at}", text, file[1], file[1], columns)


def _has_steady_tabs(lines: Sequence[str]) -> bool:
    counts = {line.count("\t") for line in lines}
    return len(counts) == 1 and counts != {0}


def _separator_of_names(line: str, suffix: str, caption_column: str | None) -> str | None:
    """What separates the names of columns, where the line holds such."""
    for separator in _SEPARATORS[suffix]:
        names = _fields(line, separator) or []
        several = len(names) > 1 or suffix != ".txt" or caption_column is not None
        if several and find_columns([name.strip() for name in names], caption_column, None):
            return separator
    return None


def _table(
    lines: list[tuple[int, str]],
    uri: str,
    suffix: str,
    caption_column: str | None,
    id_column: str | None,
) -> Iterator[Row]:
    by_number = caption_column is not None and caption_column.isdecimal()
    separator = None if by_number else _separator_of_names(lines[0][1], suffix, caption_column)
    if separator is not None:
        names = [name.strip() for name in _fields(lines[0][1], separator) or []]
        columns, lines = require_columns(names, uri, caption_column, id_column), lines[1:]
        where = str(columns)
    else:
        separator = max(_SEPARATORS[suffix], key=lines[0][1].count)
        records = [record for _, record, _ in _records(lines[:_LOOKED_AT], separator, None)]
        names, columns = _without_names(records, uri, caption_column, id_column)
        where = f"no line of names; caption: column {columns.texts[0]}"
    places = {name: [at for at, n in enumerate(names) if n == name] for name in names}
    wanted = [at for name in columns.texts for at in places[name]]
    id_at = places[columns.id][0] if columns.id else len(names)
    image_at = places[columns.image][0] if columns.image else len(names)
    for number, (at, record, reason) in enumerate(_records(lines, separator, len(names)), 1):
        place = f"line {at}"
        if not reason and len(record) > len(names):
            reason = (
                f"{len(record)} fields where the first line has {len(names)}; put a caption with "
                f"{separator!r} into double quotes"
            )
        if reason:
            yield Row(number, place, columns=where, reason=reason)
            continue
        texts = [record[i] for i in wanted if i < len(record)]
        row_id, image = (record[i].strip() if i < len(record) else None for i in (id_at, image_at))
        value = texts[0] if len(wanted) == 1 and texts else texts
        yield Row(number, place, value, row_id, image, where)


def _without_names(
    records: Sequence[Sequence[str]], uri: str, caption_column: str | None, id_column: str | None
) -> tuple[list[str], Columns]:
    """Columns by number, where the first line is no line of names.

    Raises:
        ValueError: it is one, or not one column alone holds sentences.
    """
    names = [str(at + 1) for at in range(max(map(len, records)))]
    if caption_column and caption_column.isdecimal():
        return names, require_columns(names, uri, caption_column, id_column)
    looks_like_names = all(
        re.fullmatch(r"\s*\w[\w .-]{0,40}", f) and f.count(" ") < 2 and not f.strip().isdecimal()
        for f in records[0]
    )
    if not looks_like_names and caption_column is None:
        sentences = [
            sum(len(r) > at and len(r[at].split()) > 1 and "://" not in r[at] for r in records)
            for at in range(len(names))
        ]
        likely = [name for name, n in zip(names, sentences) if n > len(records) / 2]
        if len(likely) == 1:
            return names, require_columns(names, uri, likely[0], id_column)
    advice = "In a file without a line of names, give its number, counted from 1."
    try:
        require_columns([name.strip() for name in records[0]], uri, caption_column, id_column)
    except ValueError as error:
        raise ValueError(f"{error} {advice}") from error
    raise ValueError(f"{uri} must name its columns in one line. {advice}")


def _records(
    lines: Sequence[tuple[int, str]], separator: str, width: int | None
) -> Iterator[tuple[int, list[str], str]]:
    """Line, fields and what is wrong with them, of each record.

    A field in quotation marks may go over several lines. Most tables with tabs know no quoting:
    there a mark is a mark, unless the next line alone has too few fields.
    """
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        if separator == "\t" and not _goes_on(line, lines[at : at + 1], width):
            yield number, [_unquoted(field) for field in line.split("\t")], ""
            continue
        fields, taken = _fields(line, separator), 0
        while fields is None and taken < LONGEST_QUOTE and at + taken < len(lines):
            taken += 1
            several = [text for _, text in lines[at - 1 : at + taken]]
            fields = _fields("\n".join(several), separator)
            if fields is not None and _are_rows(several[1:], separator, width):
                fields = None
                break
        if fields is None:
            yield number, [], "a quotation mark that is not closed, or has text behind it"
        else:
            at += taken
            yield number, fields, ""


def _goes_on(line: str, following: Sequence[tuple[int, str]], width: int | None) -> bool:
    """Whether a field of a line with tabs may go on in the next line."""
    opened = any(f.startswith('"') and f.count('"') % 2 for f in line.split("\t"))
    return opened and any(text.count("\t") + 1 < (width or 0) for _, text in following)


def _are_rows(lines: Sequence[str], separator: str, width: int | None) -> bool:
    """Whether lines inside of quotation marks are rows that a forgotten mark would swallow."""
    each = [line.split(separator) for line in lines]
    return (width or 0) > 1 and all(len(f) == width and " " not in f[0].strip() for f in each)


def _unquoted(field: str) -> str:
    """Without the marks that Excel puts around a field; a mark inside stands there twice."""
    inner = field[1:-1]
    whole = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _fields(text: str, separator: str) -> list[str] | None:
    """The fields of one record; None where a quotation mark is not closed."""
    if '"' not in text:
        return text.split(separator)
    limit = csv.field_size_limit(max(len(text), 131_072))  # longer ones are the filter's to reject
    try:
        return next(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return None
    finally:
        csv.field_size_limit(limit)
