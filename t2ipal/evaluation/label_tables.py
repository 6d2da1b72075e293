"""Labels in a csv: a column of files, and one of labels or one of 0 and 1 for each class.

Names of columns and separators are guessed; what a class is called may differ in case, spaces, `_`
and `-` from the recognizer's own name: "Potted plant" is "pottedplant".
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2ipal.config import require, unknown

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path")
LABEL_COLUMNS = ("labels", "label", "classes", "class")
DELIMITERS = (",", ";", "\t")
"""Of a csv's columns: the one that splits its first line into most."""
SEPARATORS = (";", "|", ",")
"""Of several labels in a cell: the first of these that is in it. No space, for names have some."""
TRUE = {"1", "1.0", "true"}
FLAGS = TRUE | {"0", "0.0", "false", ""}


@dataclass(frozen=True)
class ClassNames:
    """The recognizer's class names, found again however they are written."""

    class_names: tuple[str, ...]

    def column(self, name: str) -> int | None:
        """Of the class of this name; None: there is none, or there are several."""
        if name in self.class_names:
            return self.class_names.index(name)
        alike = [i for i, known in enumerate(self.class_names) if _plain(known) == _plain(name)]
        return alike[0] if len(alike) == 1 else None

    def require(self, name: str, place: str) -> int:
        """Raises ValueError, with the nearest name, where there is no such class."""
        column = self.column(name)
        if column is None:
            raise unknown(f"class in {place}", name, self.class_names)
        return column


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
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = {name.strip().lower(): name for name in table.fieldnames or ()}
    file = next((header[name] for name in FILE_COLUMNS if name in header), None)
    label = next((header[name] for name in LABEL_COLUMNS if name in header), None)
    if file is None:
        raise ValueError(
            f"{place} must have a column of files ({', '.join(FILE_COLUMNS)}), got "
            f"{', '.join(header) or 'nothing'}."
        )
    rows = [row for row in table if (row[file] or "").strip()]
    for number, row in enumerate(rows, 2):
        require(
            None not in row,
            f"{place}, row {number}, has more cells than there are columns: put {SEPARATORS[0]} "
            "between several labels, or quotes around them.",
        )
    labels: dict[str, set[int]] = {}
    if label is not None:
        for number, row in enumerate(rows, 2):
            named = {
                names.require(name, f"{place}, row {number},")
                for name in _split(row[label] or "", names)
            }
            labels.setdefault(row[file].strip(), set()).update(named)
        said = f"columns {file} and {label}"
    else:
        columns = _one_hot(rows, [n for n in header.values() if n != file], names, place)
        for row in rows:
            named = {index for name, index in columns.items() if _flag(row[name])}
            labels.setdefault(row[file].strip(), set()).update(named)
        said = f"column {file}, and {len(columns)} columns of 0 and 1"
    return labels, said


def _split(cell: str, names: ClassNames) -> list[str]:
    """The labels in one cell; one that is a class's name as it stands is not split."""
    if names.column(cell.strip()) is not None:
        return [cell.strip()]
    separator = next((s for s in SEPARATORS if s in cell), SEPARATORS[0])
    return [part.strip() for part in cell.split(separator) if part.strip()]


def _one_hot(
    rows: Sequence[Mapping[str, str]], others: Sequence[str], names: ClassNames, place: str
) -> dict[str, int]:
    """Columns of classes; one that holds anything else than 0 and 1 is none, as a width or a date.

    Raises:
        ValueError: a column of 0 and 1 whose class is unknown, or no column of a class.
    """
    columns: dict[str, int] = {}
    for name in others:
        values = {(row[name] or "").strip().lower() for row in rows}
        known = names.column(name.strip())
        if values <= FLAGS:
            columns[name] = names.require(name.strip(), place)
        elif known is not None:
            odd = sorted(values - FLAGS)[0]
            raise ValueError(f"Column {name} of {place} must hold 0 and 1, got {odd!r}.")
    require(
        bool(columns),
        f"{place} must have a column of labels ({', '.join(LABEL_COLUMNS)}), or columns of 0 and 1 "
        f"that are named after the classes, got {', '.join(others) or 'none'}.",
    )
    return columns


def _flag(value: str | None) -> bool:
    return (value or "").strip().lower() in TRUE


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
