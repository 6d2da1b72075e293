"""Data sets of photographs as their authors pack them: VOC2007, MS-COCO, NUS-WIDE.

Owns the folder layouts; reads labels and names of files, never a pixel.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from t2ipal.captions import load_vocabulary
from t2ipal.config import one_of, require
from t2ipal.store import Store

INSTANCE_LISTS = ("images", "annotations", "categories")
"""What MS-COCO's json of instances has."""


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


def coco(root: Store, year: int) -> PhotographSet:
    """MS-COCO's validation images: `root` holds val2014 and annotations/instances_val2014.json.

    Raises:
        ValueError: files that do not fit together.
        FileNotFoundError: a file that must be there is not.
    """
    instances = f"annotations/instances_val{year}.json"
    known = load_vocabulary("coco2014").class_names
    return coco_photographs(root, instances, f"val{year}/", known)


def coco_photographs(
    root: Store, instances: str, folder: str, class_names: tuple[str, ...]
) -> PhotographSet:
    """Photographs of one instances file: unlabelled ones included, classes by id, crowds count.

    Args:
        root: holds all of it.
        instances: key of the json of instances.
        folder: prefix of the images' keys.
        class_names: that its categories must have, in the order of their ids.
    """
    place = f"{root.uri}/{instances}"
    content = read_instances(root, instances)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = tuple(category["name"] for category in categories)
    require(
        names == class_names,
        f"{place} must hold MS-COCO's {len(class_names)} categories,"
        f" got {len(names)}: {', '.join(names[:3])} ...",
    )
    column = {category["id"]: at for at, category in enumerate(categories)}
    files, labels = instance_labels(content, column, len(names), place)
    keys = [folder + file for file in files]
    return checked(root, names, keys, labels, np.zeros_like(labels))


def read_instances(root: Store, key: str) -> dict[str, Any]:
    """A json of instances: lists of images, annotations and categories.

    Raises:
        ValueError: it is something else.
        FileNotFoundError: there is none.
    """
    place = f"{root.uri}/{key}"
    try:
        content = json.loads(_read(root, key))
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no valid JSON: {error}.") from error
    for field in INSTANCE_LISTS:
        require(
            isinstance(content, dict) and isinstance(content.get(field), list),
            f"{place} must be MS-COCO instances with a list {field!r}.",
        )
    return content


def instance_labels(
    content: Mapping[str, Any], column: Mapping[int, int | None], num_classes: int, place: str
) -> tuple[list[str], UInt8[np.ndarray, "images classes"]]:
    """Names of the files by the images' ids, and their labels.

    Args:
        content: of `read_instances`.
        column: of each category's id; None for one that is not asked about.
        num_classes: columns there are.
        place: of the json, for messages.
    """
    rows = sorted(content["images"], key=lambda image: image["id"])
    row = {image["id"]: at for at, image in enumerate(rows)}
    labels = np.zeros((len(rows), num_classes), dtype=np.uint8)
    for at, instance in enumerate(content["annotations"]):
        require(
            instance.get("image_id") in row and instance.get("category_id") in column,
            f"{place}: annotations[{at}] names an image or a category that is not listed.",
        )
        index = column[instance["category_id"]]
        if index is not None:
            labels[row[instance["image_id"]], index] = 1
    return [image["file_name"] for image in rows], labels


def voc2007(root: Store) -> PhotographSet:
    """VOC2007's test images: `root` is VOCdevkit, or the VOC2007 in it."""
    listed = "ImageSets/Main/test.txt"
    folder = "" if root.exists(listed) else "VOC2007/"
    class_names = load_vocabulary("voc2007").class_names
    image_ids = _read(root, folder + listed).split()
    labels = np.zeros((len(image_ids), len(class_names)), dtype=np.uint8)
    difficult = np.zeros_like(labels)
    for row, image_id in enumerate(image_ids):
        key = f"{folder}Annotations/{image_id}.xml"
        try:
            annotation = ElementTree.fromstring(_read(root, key))
        except ElementTree.ParseError as error:
            raise ValueError(f"{root.uri}/{key} is no valid XML: {error}.") from error
        for item in annotation.iter("object"):
            class_name = (item.findtext("name") or "").strip()
            one_of(f"class in {root.uri}/{key}", class_name, class_names)
            hard = (item.findtext("difficult") or "0").strip() == "1"
            (difficult if hard else labels)[row, class_names.index(class_name)] = 1
    difficult[labels == 1] = 0
    keys = [f"{folder}JPEGImages/{image_id}.jpg" for image_id in image_ids]
    return checked(root, class_names, keys, labels, difficult)


def nuswide(root: Store) -> PhotographSet:
    """NUS-WIDE's test images: `root` holds ImageList, TrainTestLabels and Flickr."""
    class_names = load_vocabulary("nuswide").class_names
    # The list was written on Windows: "actor\\0001_2124494179.jpg".
    listed = _read(root, "ImageList/TestImagelist.txt").split("\n")
    names = [line.strip().replace("\\", "/") for line in listed if line.strip()]
    folders = ("TrainTestLabels/", "Groundtruth/TrainTestLabels/")
    folder = next((each for each in folders if root.list(each)), folders[0])
    labels = np.zeros((len(names), len(class_names)), dtype=np.uint8)
    for column, class_name in enumerate(class_names):
        key = f"{folder}Labels_{class_name}_Test.txt"
        values = _read(root, key).split()
        require(
            len(values) == len(names) and all(value in ("0", "1") for value in values),
            f"{root.uri}/{key} must hold {len(names)} lines of 0 or 1, one an image of "
            f"TestImagelist.txt, got {len(values)}.",
        )
        labels[:, column] = [value == "1" for value in values]
    keys = [f"Flickr/{name}" for name in names]
    return checked(root, class_names, keys, labels, np.zeros_like(labels))


def checked(
    root: Store,
    class_names: tuple[str, ...],
    keys: Sequence[str],
    labels: UInt8[np.ndarray, "images classes"],
    difficult: UInt8[np.ndarray, "images classes"],
) -> PhotographSet:
    """The set, where every photograph is there.

    Raises:
        ValueError: there is none.
        FileNotFoundError: one is missing.
    """
    require(len(keys) > 0, f"The test set in {root.uri} lists no image.")
    folders = {key.partition("/")[0] for key in keys if "/" in key}
    there = {key for folder in folders for key in root.list(f"{folder}/")}
    if any("/" not in key for key in keys):
        there.update(root.list(recursive=False))
    missing = [key for key in keys if key not in there]
    if missing:
        raise FileNotFoundError(
            f"The test set in {root.uri} lacks {len(missing)} of {len(keys)} images, first "
            f"{', '.join(missing[:3])}."
        )
    return PhotographSet(root, tuple(keys), class_names, labels, difficult)


def _read(root: Store, key: str) -> str:
    try:
        return root.read(key).decode()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"No file {root.uri}/{key}; the test set must be unpacked as its authors pack it."
        ) from error
