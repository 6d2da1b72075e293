"""Captions of files as data sets come: any number of rows in, `Caption`s out.

Owns ids and what a usable text is. `sources.py` knows files, `rows.py` and `tables.py` formats.
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from t2ipal.captions.columns import find_columns
from t2ipal.captions.leaks import TestImages
from t2ipal.captions.rows import read_rows
from t2ipal.captions.sources import Tell, caption_files
from t2ipal.captions.tables import Row, brief
from t2ipal.config import require
from t2ipal.store import Caption

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""What JSON can escape, and a byte that is no UTF-8, become: no file could hold it afterwards."""
_NO_CHARACTER = "half a character, or a byte that is no UTF-8"


def read_captions(
    uris: str | Path | Sequence[str | Path],
    endpoint_url: str | None = None,
    caption_column: str | None = None,
    id_column: str | None = None,
    tell: Tell = lambda _: None,
    test_images: TestImages | None = None,
) -> Iterator[Caption]:
    """The captions of files; a row that holds none is one with a `reason`.

    Read are COCO's and Karpathy's json, json of rows or of texts by image, jsonl, csv, tsv,
    parquet, Flickr's token files and a caption a line, packed by gzip, bzip2 or xz too.

    Ids: the annotation's (COCO), image_id/annotator_id (localized narratives), the file's name
    (Flickr), the column caption_id, id or sentid where there is one, otherwise the number of the
    row or line from 1, in several files with the file's name before it. Several texts of one row
    get #0, #1, ... behind its id, and an id that comes again #2, #3, ...

    Args:
        uris: one or several files, folders or patterns, local or s3://.
        endpoint_url: server of an S3 bucket that is not on AWS; AWS_ENDPOINT_URL does the same.
        caption_column: name of the column of texts, or its number where the file names none; None:
            guess.
        id_column: the same of the ids.
        tell: takes what was guessed, how many rows hold no caption and how many are of test images,
            line by line.
        test_images: whose captions are left out, with a `reason` too, or counted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown suffix, a damaged file, no column of texts, or no caption at all.
    """
    given = [uris] if isinstance(uris, str | Path) else uris
    files = caption_files(given, endpoint_url)
    captions: list[Caption] = []
    guesses: Counter[str] = Counter()
    ids = _Ids()
    num_unusable, first = 0, ""
    leaks: Counter[bool | None] = Counter()
    for file in files:
        name = PurePosixPath(file).name
        prefix = f"{name.partition('.')[0]}/" if len(files) > 1 else ""
        for row in read_rows(file, endpoint_url, caption_column, id_column, tell):
            for row_id, text, reason in _of_row(row, prefix):
                text = text.strip()
                if not reason and ids.texts.get(row_id) == text:
                    reason = "the same row twice"
                leak = ""
                if test_images and not reason:
                    shown = test_images.shows(row.image)
                    leaks[shown] += 1
                    leak = test_images.reason(shown)
                captions.append(Caption(ids.unused(row_id, text), text, reason=reason or leak))
                if not reason:
                    guesses[row.columns] += 1
                    continue
                num_unusable += 1
                first = first or f"{file}, {row.place}: {reason}"
    if num_unusable == len(captions):
        why = f" The first row: {first}." if first else ""
        raise ValueError(f"{_brief(files)} holds no caption.{why}")
    for columns, count in guesses.items():
        tell(f"{count:,} captions of {_brief(files)} ({columns}).")
    if num_unusable:
        tell(f"{num_unusable:,} rows hold no usable caption; the first: {first}.")
    if test_images:
        tell(_leak_remark(test_images, leaks, _brief(files)))
    return iter(captions)


def _leak_remark(test_images: TestImages, leaks: Counter[bool | None], files: str) -> str:
    """What a person should know of captions of test images.

    Raises:
        ValueError: no caption is left.
    """
    total, of_them = leaks.total(), f"of the images of {', '.join(test_images.files)}"
    clean = test_images.mode == "clean"
    require(
        not clean or leaks[None] < total,
        f"{files} must name the image of each caption (image_id, cocoid, file_name), to tell which "
        "are of test images; none is named. Leave --test-images out, or take another file.",
    )
    require(
        not clean or leaks[False] > 0,
        f"All captions of {files} are {of_them}, and are left out: nothing remains to train on.",
    )
    line = f"{leaks[True]:,} of {total:,} captions are {of_them}"
    unknown = f", and {leaks[None]:,} name no image" if leaks[None] else ""
    return f"{line}{unknown}: {'left out' if clean else 'kept, as the ancestor did'}."


def _brief(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{len(files)} files ({files[0]}, ...)"


def _of_row(row: Row, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Id, text and what is wrong with it, of each caption of a row."""
    row_id = _id(row.id)
    base = f"{prefix}{row.number}" if row_id is None else row_id
    if row.id is not None and row_id is None:
        base = f"{prefix}row{row.number}"  # so that it is no other row's id
    if row.reason:
        yield base, "", row.reason
        return
    texts = list(_texts(row.texts))
    several = isinstance(row.texts, list) or len(texts) > 1
    for k, (own_id, text) in enumerate(texts):
        caption_id = own_id or (f"{base}#{k}" if several else base)
        if not isinstance(text, str):
            missing = text is None or (isinstance(text, float) and math.isnan(text))
            yield caption_id, "", "no caption" if missing else f"no text: {brief(text)}"
        elif _HALF_CHARACTER.search(text + caption_id):
            yield base.encode(errors="replace").decode(), "", _NO_CHARACTER
        elif not text.strip():
            yield caption_id, "", "empty"
        else:
            yield caption_id, text, ""
    if not texts:
        yield base, "", "no caption"


def _texts(value: Any) -> Iterator[tuple[str | None, Any]]:
    """The texts of a field, each with its own id where it has one."""
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if isinstance(value, str):
        listed = _written_list(value)
        yield from [(None, value)] if listed is None else ((None, text) for text in listed)
    elif isinstance(value, Mapping):  # Karpathy's sentences, structs of parquet
        columns = find_columns(list(value), None, None)
        if columns is None:
            yield None, value
            return
        inner = list(_texts(value[columns.texts[0]]))
        own_id = _id(value[columns.id]) if columns.id and len(inner) == 1 else None
        yield from ((own_id or each, text) for each, text in inner)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    else:
        yield None, value


def _written_list(text: str) -> list[str] | None:
    """The texts of a list that a cell of a table holds in writing: ["a dog", "a black dog"]."""
    if text[:2] not in ('["', "['") or text[-1:] != "]":
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            listed = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(listed, list) and all(isinstance(each, str) for each in listed):
            return listed
    return None


def _id(value: Any) -> str | None:
    """An id as text; None where there is none. pandas writes 1 as 1.0 beside a gap."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    return re.sub(r"^(\d+)\.0$", r"\1", str(value).strip()) or None


class _Ids:
    """Makes ids unique: one that comes again gets #2, #3, ... behind it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._repeats: Counter[str] = Counter()

    def unused(self, caption_id: str, text: str) -> str:
        """An id that no caption had before."""
        unused = caption_id
        while unused in self.texts:
            self._repeats[caption_id] += 1
            unused = f"{caption_id}#{self._repeats[caption_id] + 1}"
        self.texts[unused] = text
        return unused
