"""Data sets of photographs as their authors pack them: VOC2007, MS-COCO, NUS-WIDE.

Owns the folder layouts; reads labels and names of files, never a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from t2ipal.captions import load_vocabulary
from t2ipal.config import require
from t2ipal.evaluation.annotations import read_annotation
from t2ipal.evaluation.class_names import ClassNames
from t2ipal.evaluation.finding import Files
from t2ipal.evaluation.instances import read_instances
from t2ipal.evaluation.texts import read_bytes, read_lines
from t2ipal.features.photograph_kinds import is_photograph
from t2ipal.store import Store


@dataclass(frozen=True, eq=False)
class PhotographSet:
    """Photographs in a store with the classes they hold."""

    store: Store
    keys: tuple[str, ...]
    """One object per row of the labels."""
    class_names: tuple[str, ...]
    """In the order of the label columns."""
    labels: UInt8[np.ndarray, "images classes"]
    """1 where the class is in the image."""
    difficult: UInt8[np.ndarray, "images classes"]
    """1 where all objects of the class are marked difficult (VOC alone); the label is 0 there."""
    origin: str = ""
    """What a person should know of the labels; empty where they are as they should be."""


def coco(root: Store, year: int, side: str = "val") -> PhotographSet:
    """MS-COCO's images of a side: `root` holds val2014 and annotations/instances_val2014.json.

    Args:
        root: home of both.
        year: 2014 or 2017.
        side: val; or train, whose rows are in the json's order, by which LaSO's episodes count.

    Raises:
        ValueError: files that do not fit together.
        FileNotFoundError: a file that must be there is not.
    """
    instances = f"annotations/instances_{side}{year}.json"
    known = load_vocabulary("coco2014").class_names
    return coco_photographs(root, instances, f"{side}{year}/", known, as_listed=side == "train")


def coco_photographs(
    root: Store,
    instances: str,
    folder: str,
    class_names: tuple[str, ...],
    as_listed: bool = False,
) -> PhotographSet:
    """Photographs of one instances file: unlabelled ones included, crowds count.

    Args:
        root: holds all of it.
        instances: key of the json of instances.
        folder: prefix of the images' keys.
        class_names: that its categories must have, in any order; others are left out.
        as_listed: rows in the json's order, not by the images' ids.
    """
    content, names = read_instances(root, instances, as_listed), ClassNames(class_names)
    column = {number: names.column(name) for number, name in content.categories.items()}
    lacking = [name for at, name in enumerate(class_names) if at not in column.values()]
    require(
        not lacking,
        f"{content.place} must hold MS-COCO's {len(class_names)} categories, got {len(column)}: "
        f"none is called {shortened(lacking)}.",
    )
    others = [content.categories[number] for number, index in column.items() if index is None]
    return photograph_set(
        root,
        class_names,
        list(content.files.values()),
        content.labels(column, len(class_names)),
        folder=folder,
        origin=f"{content.place} has categories that are no classes here: {shortened(others)}."
        if others
        else "",
    )


def shortened(names: Sequence[str]) -> str:
    """Some names to read, the first ones where there are many."""
    return f"{', '.join(names[:5])}{' ...' if names[5:] else ''}"


def voc2007(root: Store, side: str = "test") -> PhotographSet:
    """VOC2007's images of a side, test or trainval: `root` is VOCdevkit, or the VOC2007 in it."""
    listed = f"ImageSets/Main/{side}.txt"
    folder = "" if root.exists(listed) else "VOC2007/"
    class_names = load_vocabulary("voc2007").class_names
    names = ClassNames(class_names)
    image_ids = _image_ids(read_lines(root, folder + listed))
    labels = np.zeros((len(image_ids), len(class_names)), dtype=np.uint8)
    difficult = np.zeros_like(labels)
    for row, image_id in enumerate(image_ids):
        key = f"{folder}Annotations/{image_id}.xml"
        place = f"{root.uri}/{key}"
        for name, hard in read_annotation(read_bytes(root, key), place):
            (difficult if hard else labels)[row, names.require(name, place)] = 1
    return photograph_set(
        root, class_names, image_ids, labels, difficult, folder=f"{folder}JPEGImages/"
    )


def _image_ids(lines: Sequence[str]) -> list[str]:
    """Names of images, without the folders, endings and columns that other tools write to them."""
    rows = [line.split() for line in lines]
    if all(len(row) == 2 and row[1] in ("-1", "0", "1") for row in rows):  # as a list of one class
        lines = [row[0] for row in rows]
    names = [line.replace("\\", "/").rpartition("/")[2] for line in lines]
    return [name.rpartition(".")[0] if is_photograph(name) else name for name in names]


def nuswide(root: Store, side: str = "Test") -> PhotographSet:
    """NUS-WIDE's images of a side, Test or Train: `root` has ImageList, TrainTestLabels, Flickr."""
    class_names = load_vocabulary("nuswide").class_names
    names = read_lines(root, f"ImageList/{side}Imagelist.txt")
    folders = ("TrainTestLabels/", "Groundtruth/TrainTestLabels/")
    folder = next((each for each in folders if root.list(each)), folders[0])
    labels = np.zeros((len(names), len(class_names)), dtype=np.uint8)
    for column, class_name in enumerate(class_names):
        key = f"{folder}Labels_{class_name}_{side}.txt"
        values = read_lines(root, key)
        require(
            len(values) == len(names) and {*values} <= {"0", "1"},
            f"{root.uri}/{key} must hold {len(names)} lines of 0 or 1, one an image of "
            f"{side}Imagelist.txt, got {len(values)}.",
        )
        labels[:, column] = [value == "1" for value in values]
    return photograph_set(root, class_names, names, labels, folder="Flickr/")


def photograph_set(
    root: Store,
    class_names: tuple[str, ...],
    files: Sequence[str],
    labels: UInt8[np.ndarray, "files classes"],
    difficult: UInt8[np.ndarray, "files classes"] | None = None,
    *,
    folder: str = "",
    origin: str = "",
) -> PhotographSet:
    """The set, where every photograph is there; one that is named twice has the classes of both.

    Args:
        root: home of the photographs.
        class_names: in the order of the columns.
        files: their names, as in `Files.find`.
        labels: of each.
        difficult: of each; None: there is no such thing.
        folder: prefix of their keys, that the names need not have.
        origin: as in the set.

    Raises:
        ValueError: there is none.
        FileNotFoundError: one is missing.
    """
    require(len(files) > 0, f"The test set in {root.uri} lists no image.")
    there = Files(root.uri, (key.removeprefix(folder) for key in root.list(folder)))
    found = [there.find(file) for file in files]
    missing = [f"{folder}{file}" for file, key in zip(files, found) if key is None]
    if missing:
        raise FileNotFoundError(
            f"The test set in {root.uri} lacks {len(missing)} of {len(files)} images, first "
            f"{', '.join(missing[:3])}."
        )
    row = {key: at for at, key in enumerate(dict.fromkeys(found))}
    rows = [row[key] for key in found]
    present = np.zeros((len(row), len(class_names)), dtype=np.uint8)
    hard = np.zeros_like(present)
    np.maximum.at(present, rows, labels)
    if difficult is not None:
        np.maximum.at(hard, rows, difficult)
        hard[present == 1] = 0
    keys = tuple(f"{folder}{key}" for key in row)
    return PhotographSet(root, keys, class_names, present, hard, origin)
