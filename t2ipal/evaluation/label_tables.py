"""Labels in a csv: a column of files, and one of labels or one of 0 and 1 for each class.

Names of columns and separators are guessed; what a class is called may differ in case, spaces, `_`
and `-` from the recognizer's own name.
"""

import csv
import io
from collections.abc import Sequence
from itertools import zip_longest

from t2ipal.config import require
from t2ipal.evaluation.class_names import ClassNames

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
LABEL_COLUMNS = ("labels", "label", "classes", "class", "tags")
DELIMITERS = (",", ";", "\t")
"""Of a csv's columns: the one that splits its first line into most."""
SEPARATORS = (";", "|", ",")
"""Of several labels in a cell: the first of these that is in it. No space, for names have some."""
FLAGS = {
    **dict.fromkeys(("1", "1.0", "1,0", "100%", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "0,0", "0%", "false", "f", "no", "n", ""), False),
}
"""How a column of a class says that it is there, and that it is not."""

Row = dict[str, str]


def read_labels(text: str, names: ClassNames, place: str) -> tuple[dict[str, set[int]], str]:
    """Classes of each file that a csv names, and how it says them, in words.

    A file may stand in several rows: it has the classes of all of them.

    Args:
        text: of the csv.
        names: of the classes.
        place: of the csv, for messages.

    Raises:
        ValueError: no column of files or of labels, or a class that is not known.
    """
    header, rows = _rows(text, place)
    known = {name.lower(): name for name in header}
    file = next((known[name] for name in FILE_COLUMNS if name in known), None)
    label = next((known[name] for name in LABEL_COLUMNS if name in known), None)
    if file is None:
        raise ValueError(
            f"{place} must have a column of files ({', '.join(FILE_COLUMNS)}), got "
            f"{', '.join(header) or 'nothing'}."
        )
    for number, row in rows:
        require(row[file] != "", f"{place}, row {number}, names no file.")
    if label is not None:
        said = f"columns {file} and {label}"
        found = [
            {names.require(name, f"{place}, row {number},") for name in _split(row[label], names)}
            for number, row in rows
        ]
    else:
        others = [name for name in header if name not in ("", file)]
        columns = _one_hot([row for _, row in rows], others, names, place)
        said = f"column {file}, and {len(columns)} columns of 0 and 1"
        found = [
            {index for name, index in columns.items() if FLAGS[row[name].lower()]}
            for _, row in rows
        ]
    labels: dict[str, set[int]] = {}
    for (_, row), classes in zip(rows, found):
        labels.setdefault(row[file], set()).update(classes)
    return labels, said


def _rows(text: str, place: str) -> tuple[list[str], list[tuple[int, Row]]]:
    """Names of the columns; and each row that is not blank, by these, with its number."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep="):  # Excel's word for the delimiter
        delimiter, text = first[4:5], rest
    else:
        delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[tuple[int, Row]] = []
    number = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not header:
                header = cells
                twice = [name for name in header if name and header.count(name) > 1]
                require(not twice, f"{place} names the column {twice and twice[0]} twice.")
            elif any(cells):
                require(
                    not any(cells[len(header) :]),
                    f"{place}, row {number}, has more cells than there are columns: put "
                    f"{SEPARATORS[0]} between several labels, or quotes around them.",
                )
                rows.append((number, dict(zip_longest(header, cells[: len(header)], fillvalue=""))))
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{place}, row {number}, is no valid csv: {error}.") from error
    return header, rows


def _split(cell: str, names: ClassNames) -> list[str]:
    """The labels in one cell; one that is a class's name as it stands is not split."""
    if names.column(cell) is not None:
        return [cell]
    if cell[:1] + cell[-1:] in ("[]", "{}", "()"):  # a list, as a program writes it
        cell = cell[1:-1]
    words = cell.split()
    if all(names.column(word) is not None for word in words):
        return words
    separator = next((s for s in SEPARATORS if s in cell), SEPARATORS[0])
    parts = [part.strip().strip("'\"") for part in cell.split(separator)]
    return [part for part in parts if part]


def _one_hot(
    rows: Sequence[Row], others: Sequence[str], names: ClassNames, place: str
) -> dict[str, int]:
    """Columns of classes; one that holds anything else than 0 and 1 is none, as a width or a date.

    Raises:
        ValueError: a column of 0 and 1 whose class is unknown, or no column of a class.
    """
    columns: dict[str, int] = {}
    for name in others:
        values = {row[name].lower() for row in rows}
        known = names.column(name)
        if known is None and (values <= {""} or name.lower().startswith("unnamed:")):
            continue  # a remark that nobody made, or the numbers of pandas' rows
        if values <= {*FLAGS}:
            columns[name] = names.require(name, place)
        elif known is not None:
            odd = sorted(values - {*FLAGS})[0]
            raise ValueError(f"Column {name} of {place} must hold 0 and 1, got {odd!r}.")
    require(
        bool(columns),
        f"{place} must have a column of labels ({', '.join(LABEL_COLUMNS)}), or columns of 0 and 1 "
        f"that are named after the classes, got {', '.join(others) or 'none'}.",
    )
    return columns
