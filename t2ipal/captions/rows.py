"""The rows of one caption file: JSON of several data sets, JSON lines, parquet.

Owns where the texts lie in each format; `tables.py` owns CSV, TSV and text. A row that cannot be
read carries its reason and takes nothing else with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t2ipal.captions.columns import Columns, find_columns, require_columns
from t2ipal.captions.sources import Tell, decode, file_format, read_file
from t2ipal.captions.tables import Row, brief, text_rows
from t2ipal.config import parse_json, require
from t2ipal.store import read_parquet_columns

_LISTS = ("annotations", "images", "data", "rows", "captions", "items", "examples")
"""Where the rows of a JSON object lie: COCO and VizWiz, Karpathy, TextCaps, ..."""


def read_rows(
    uri: str,
    endpoint_url: str | None,
    caption_column: str | None,
    id_column: str | None,
    tell: Tell,
) -> Iterator[Row]:
    """The rows of a file, in its order.

    Args:
        uri: of a file of one of `sources.SUFFIXES`.
        endpoint_url: server of an S3 bucket that is not on AWS.
        caption_column: name of the column of texts; None: guess.
        id_column: and that of the ids.
        tell: takes what was guessed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: nothing in it can be read, or it has no such column.
    """
    suffix = file_format(uri)
    if suffix == ".parquet":
        yield from _parquet(uri, endpoint_url, caption_column, id_column)
        return
    text = decode(read_file(uri, endpoint_url), uri, tell)
    if suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(text, _Finder(caption_column, id_column))
    elif suffix == ".json":
        yield from _json(text, uri, _Finder(caption_column, id_column))
    else:
        yield from text_rows(text, uri, suffix, caption_column, id_column)


class _Finder:
    """Takes text and id out of mappings; looks only once at each set of names."""

    def __init__(self, caption_column: str | None, id_column: str | None):
        self._wanted = caption_column, id_column
        self._known: dict[tuple[str, ...], Columns | None] = {}

    def __call__(self, number: int, place: str, value: Any) -> Row:
        if isinstance(value, str | list):
            return Row(number, place, value, columns="a list of texts")
        if not isinstance(value, Mapping):
            return Row(number, place, reason=f"no caption: {brief(value)}")
        names = tuple(map(str, value))
        if names not in self._known:
            self._known[names] = find_columns(names, *self._wanted)
        columns = self._known[names]
        if columns is None:
            wanted = self._wanted[0] or "caption or text"
            return Row(number, place, reason=f"no {wanted}, only {', '.join(names)}")
        texts = [value[name] for name in columns.texts]
        row_id = _given(value[columns.id]) if columns.id else None
        if self._wanted[1] is None and "image_id" in value and "annotator_id" in value:
            row_id = f"{value['image_id']}/{value['annotator_id']}"  # localized narratives
        image = value[columns.image] if columns.image else None
        one = texts[0] if len(texts) == 1 else texts
        return Row(number, place, one, row_id, image, str(columns))


def _given(row_id: Any) -> Any:
    """An id of a row that may lack one: not None, which stands for rows without a column of ids."""
    return "" if row_id is None else row_id


def _json_lines(text: str, find: _Finder) -> Iterator[Row]:
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        line = line.strip(" \t\ufeff")
        if not line:
            continue
        place = f"line {number}"
        try:
            yield find(number, place, parse_json(line, strict=False))
        except ValueError as error:
            yield Row(number, place, reason=f"no valid JSON: {error}")


def _json(text: str, uri: str, find: _Finder) -> Iterator[Row]:
    require(bool(text.strip()), f"{uri} holds no caption.")
    try:
        content = parse_json(text, strict=False)
    except ValueError as error:
        rows = list(_json_lines(text, find))
        # Often JSON lines are called .json; a single damaged document has no line of its own.
        if len(rows) > 1 and not rows[0].reason:
            yield from rows
            return
        raise ValueError(f"{uri} is no valid JSON: {error}.") from error
    name, values = _rows_of(content, uri)
    for at, value in enumerate(values):
        place = f"{name}[{at}]" if name in _LISTS else f"row {at + 1}"
        if name == "images" and isinstance(value, Mapping) and "sentences" in value:
            columns = "sentences of images (Karpathy); id: sentid"
            file_name = value.get("filename")
            image = value.get("cocoid", file_name)
            yield Row(at + 1, place, value["sentences"], file_name, image, columns)
        elif name == "by image":
            columns = "texts by image; id: the image's name"
            yield Row(at + 1, place, value[1], value[0], value[0], columns)
        else:
            yield find(at + 1, place, value)


def _rows_of(content: Any, uri: str) -> tuple[str, Sequence[Any]]:
    """The list of rows in a JSON document, and what to call it."""
    if isinstance(content, list):
        return "rows of a list", content
    if isinstance(content, Mapping):
        for name in _LISTS:
            if isinstance(content.get(name), list) and not _is_column(content, name):
                return name, content[name]
        columns = find_columns(list(content), None, None)
        if columns and _is_column(content, columns.texts[0]):
            return "rows of columns", _from_columns(content)
        if content and all(isinstance(value, str | list) for value in content.values()):
            return "by image", list(content.items())
    raise ValueError(
        f'{uri} must be captions: MS-COCO\'s with a list "annotations", Karpathy\'s with "images", '
        f"a list of rows or texts by image; got {brief(content)}."
    )


def _is_column(content: Mapping[str, Any], name: str) -> bool:
    """Whether it is one of several lists or mappings of the same length, as pandas writes them."""
    values = content[name]
    alike = [v for v in content.values() if isinstance(v, type(values)) and len(v) == len(values)]
    texts = values.values() if isinstance(values, Mapping) else values
    return (
        isinstance(values, list | Mapping)
        and len(alike) == len(content)
        and any(isinstance(text, str) for text in texts)
    )


def _from_columns(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = [list(v.values()) if isinstance(v, Mapping) else v for v in content.values()]
    return [dict(zip(content, row)) for row in zip(*columns)]


def _parquet(
    uri: str, endpoint_url: str | None, caption_column: str | None, id_column: str | None
) -> Iterator[Row]:
    columns = Columns((), None)

    def choose(names: list[str]) -> list[str]:
        nonlocal columns
        columns = require_columns(names, uri, caption_column, id_column)
        others = dict.fromkeys(name for name in (columns.id, columns.image) if name)
        return list(dict.fromkeys([*columns.texts, *others]))

    values = read_parquet_columns(uri, choose, endpoint_url)
    none = [None] * len(values[columns.texts[0]])
    ids = map(_given, values[columns.id]) if columns.id else none
    images = values[columns.image] if columns.image else none
    texts_of = zip(*(values[name] for name in columns.texts))
    for at, (row_id, image, texts) in enumerate(zip(ids, images, texts_of)):
        value = texts[0] if len(texts) == 1 else list(texts)
        yield Row(at + 1, f"row {at + 1}", value, row_id, image, str(columns))
