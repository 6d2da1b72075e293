"""A json of MS-COCO's instances: which categories are in which image, whoever wrote it.

Knows neither photographs nor classes. Crowds count, boxes and masks do not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from t2ipal.config import parse_json, require
from t2ipal.evaluation.texts import read_bytes
from t2ipal.store import Store

INSTANCE_LISTS = ("images", "annotations", "categories")
WHOLE = re.compile(r"-?\d{1,4000}(\.0*)?")
"""A whole number in a text; Python reads no longer ones."""

Id = int | str


@dataclass(frozen=True)
class Instances:
    """Images and categories by their ids."""

    place: str
    """Of the json, for messages."""
    files: dict[Id, str]
    """Of the images, in the order of their rows."""
    categories: dict[Id, str]
    """Their names, in the order of their ids."""
    pairs: frozenset[tuple[Id, Id]]
    """An image and a category that is in it."""

    def labels(
        self, column: Mapping[Id, int | None], num_classes: int
    ) -> UInt8[np.ndarray, "images classes"]:
        """1 where a class is in an image.

        Args:
            column: of each category's id; None for one that is no class.
            num_classes: columns there are.
        """
        row = {image: at for at, image in enumerate(self.files)}
        labels = np.zeros((len(row), num_classes), dtype=np.uint8)
        for image, category in self.pairs:
            index = column[category]
            if index is not None:
                labels[row[image], index] = 1
        return labels


def read_instances(root: Store, key: str, as_listed: bool = False) -> Instances:
    """The instances that a json holds; one without annotations says that there are none.

    Args:
        root: home of the json.
        key: of the json.
        as_listed: images in the json's order; else by their ids, numbers first.

    Raises:
        ValueError: it is something else, or an entry cannot be read; it is named.
        FileNotFoundError: there is none.
    """
    place = f"{root.uri}/{key}"
    try:
        content = parse_json(read_bytes(root, key))
    except ValueError as error:
        raise ValueError(f"{place} is no valid JSON: {error}.") from error
    files: dict[Id, str] = {}
    for entry, image in _entries(content, "images", place):
        number, file = _id(image, "id", entry), _file(image, entry)
        other = files.setdefault(number, file) != file
        require(not other, f"{entry} has the id of another image.")
    categories: dict[Id, str] = {}
    for entry, category in _entries(content, "categories", place):
        number, name = _id(category, "id", entry), category.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{entry} has no name.")
        other = categories.setdefault(number, name) != name
        require(not other, f"{entry} has the id of another category.")
    pairs = set()
    for entry, instance in _entries(content, "annotations", place):
        image, category = _id(instance, "image_id", entry), _id(instance, "category_id", entry)
        require(
            image in files and category in categories,
            f"{entry} names an image or a category that is not listed.",
        )
        pairs.add((image, category))
    rows = files if as_listed else _sorted(files)
    return Instances(place, rows, _sorted(categories), frozenset(pairs))


def holds_instances(root: Store, key: str) -> bool:
    """Whether a json is one of instances."""
    try:
        content = parse_json(root.read(key))
    except ValueError:
        return False
    return isinstance(content, dict) and all(name in content for name in INSTANCE_LISTS)


def _entries(content: Any, field: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of one of its lists, each with its place."""
    entries = content.get(field) if isinstance(content, dict) else None
    if field == "annotations" and entries is None:
        return
    if not isinstance(entries, list):
        raise ValueError(f"{place} must be MS-COCO instances with a list {field!r}.")
    for at, entry in enumerate(entries):
        here = f"{place}: {field}[{at}]"
        require(isinstance(entry, dict), f"{here} must be a mapping, got {str(entry)[:60]}.")
        yield here, entry


def _id(entry: Mapping[str, Any], field: str, place: str) -> Id:
    """The same one for 7, 7.0, "7" and "007"."""
    value = entry.get(field)
    if isinstance(value, str):
        value = value.strip()
        if WHOLE.fullmatch(value):
            return int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int | str) or isinstance(value, bool) or value == "":
        raise ValueError(
            f"{place}: {field} must be a whole number or a text, got {str(value)[:60]!r}."
        )
    return value


def _file(image: Mapping[str, Any], place: str) -> str:
    """Of an image; LVIS names the address in its place."""
    for field in ("file_name", "coco_url"):
        value = image.get(field)
        if isinstance(value, str) and value.strip():
            return value if field == "file_name" else value.partition("?")[0].rpartition("/")[2]
    raise ValueError(f"{place} has no file_name.")


def _sorted(values: dict[Id, str]) -> dict[Id, str]:
    """By the ids: numbers, then texts."""
    return {key: values[key] for key in sorted(values, key=lambda k: (isinstance(k, str), k))}
