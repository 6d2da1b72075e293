"""Labelled photographs of the user's own: beside a csv, with COCO's instances, or a folder a class.

Looked for in this order; the first that is there counts, and what was found is said in words.
"""

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from t2ipal.config import require, unknown
from t2ipal.evaluation.label_tables import ClassNames, read_labels
from t2ipal.evaluation.photographs import (
    INSTANCE_LISTS,
    PhotographSet,
    checked,
    instance_labels,
    read_instances,
)
from t2ipal.features.photographs import is_photograph
from t2ipal.store import Store, split_uri

LABELS_CSV = "labels.csv"
LAYOUTS = (
    f"{LABELS_CSV} or a single csv (columns file and labels, or file and a column of 0 and 1 for "
    "each class), a json of COCO instances (beside the photographs or in annotations/), a folder "
    "for each class"
)
"""In the order in which they are looked for."""


def own_photographs(
    uri: str, class_names: Sequence[str], endpoint_url: str | None = None
) -> tuple[PhotographSet, str]:
    """The photographs, labelled for a recognizer's classes, and what was found there in words.

    Args:
        uri: folder, or the csv or json in it that holds the labels; local or s3://.
        class_names: of the recognizer.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        FileNotFoundError: no labelled photographs there, or some that are named are missing.
        ValueError: labels that cannot be read, or of classes that the recognizer does not know.
    """
    require(len(class_names) > 0, f"The labels in {uri} need class names to be of, got none.")
    names = ClassNames(tuple(class_names))
    root, given = _root(uri, endpoint_url)
    keys = root.list()
    key = given or _find_table(root, keys) or _find_instances(root, keys)
    if key is None:
        photographs, said = _folders(root, keys, names)
    else:
        read = _csv if key.lower().endswith(".csv") else _instances
        photographs, said = read(root, key, keys, names)
    return photographs, said if given else f"{said} Looked for, in this order: {LAYOUTS}."


def _root(uri: str, endpoint_url: str | None) -> tuple[Store, str | None]:
    """The folder of the photographs, and the key of the labels where they were named."""
    if not uri.lower().endswith((".csv", ".json")):
        folder = uri if "://" in uri else os.path.expanduser(uri)
        return Store(folder, endpoint_url), None
    folder, name = split_uri(uri)
    if folder.endswith("/annotations"):  # as COCO's are, beside the folders of the photographs
        return Store(folder.rpartition("/")[0], endpoint_url), f"annotations/{name}"
    return Store(folder, endpoint_url), name


def _csv(
    root: Store, key: str, keys: Sequence[str], names: ClassNames
) -> tuple[PhotographSet, str]:
    labels, said = read_labels(_text(root, key), names, f"{root.uri}/{key}")
    photographs = _labelled(root, keys, labels, names)
    return photographs, _said(photographs, f"{root.uri}/{key}", said)


def _text(root: Store, key: str) -> str:
    try:
        return root.read(key).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{root.uri}/{key} must be text in UTF-8: {error}.") from error


def _find_table(root: Store, keys: Sequence[str]) -> str | None:
    """The csv of the labels, where there is one."""
    tables = [key for key in keys if "/" not in key and key.lower().endswith(".csv")]
    if not tables or LABELS_CSV in tables:
        return LABELS_CSV if tables else None
    called = f"call the one with the labels {LABELS_CSV}, or give its path"
    require(
        len(tables) == 1,
        f"{root.uri} holds {len(tables)} csv files ({', '.join(tables[:5])}): {called}.",
    )
    header = _text(root, tables[0]).partition("\n")[0].split(",")
    require(
        not {"scores", "status"} <= {*header},
        f"{root.uri}/{tables[0]} holds predictions, and whoever measures them on themselves learns "
        f"nothing: {called}.",
    )
    return tables[0]


def _find_instances(root: Store, keys: Sequence[str]) -> str | None:
    """The one json of instances, where there is one."""
    jsons = [
        key
        for key in keys
        if key.lower().endswith(".json") and key.rpartition("/")[0] in ("", "annotations")
    ]
    found = [key for key in jsons if _is_instances(root, key)]
    require(
        len(found) < 2,
        f"{root.uri} holds {len(found)} files of COCO instances ({', '.join(found[:5])}): give the "
        "path of the one to use.",
    )
    return next(iter(found), None)


def _is_instances(root: Store, key: str) -> bool:
    try:
        content = json.loads(root.read(key))
    except ValueError:
        return False
    return isinstance(content, dict) and all(name in content for name in INSTANCE_LISTS)


def _instances(
    root: Store, key: str, keys: Sequence[str], names: ClassNames
) -> tuple[PhotographSet, str]:
    place = f"{root.uri}/{key}"
    content = read_instances(root, key)
    column = {c["id"]: names.column(str(c["name"])) for c in content["categories"]}
    known = {index for index in column.values() if index is not None}
    if not known:
        first = str(content["categories"][0]["name"]) if content["categories"] else ""
        raise unknown(f"class in {place}", first, names.class_names)
    files, labels = instance_labels(content, column, len(names.class_names), place)
    named: dict[str, set[int]] = {}
    for file, row in zip(files, labels):
        named.setdefault(file, set()).update(np.flatnonzero(row).tolist())
    photographs = _labelled(root, keys, named, names)
    others = [str(c["name"]) for c in content["categories"] if column[c["id"]] is None]
    said = f"COCO instances, {len(known)} of {len(column)} categories are classes here"
    if others:
        said += f"; left out: {', '.join(others[:5])}{' ...' if others[5:] else ''}"
    return photographs, _said(photographs, place, said)


def _folders(root: Store, keys: Sequence[str], names: ClassNames) -> tuple[PhotographSet, str]:
    found = [key for key in keys if key.count("/") == 1 and is_photograph(key)]
    if not found:
        raise FileNotFoundError(f"No labelled photographs in {root.uri}. Looked for: {LAYOUTS}.")
    labels = {
        key: {names.require(key.partition("/")[0], f"the folders of {root.uri}")} for key in found
    }
    photographs = _labelled(root, keys, labels, names)
    folders = len({key.partition("/")[0] for key in found})
    return photographs, _said(photographs, root.uri, f"{folders} folders, one class each")


def _labelled(
    root: Store, keys: Sequence[str], labels: Mapping[str, set[int]], names: ClassNames
) -> PhotographSet:
    merged: dict[str, set[int]] = {}  # one photograph may be named in two ways
    for key, columns in zip(_found(root, keys, list(labels)), labels.values()):
        merged.setdefault(key, set()).update(columns)
    matrix = np.zeros((len(merged), len(names.class_names)), dtype=np.uint8)
    for row, columns in zip(matrix, merged.values()):
        row[list(columns)] = 1
    return checked(root, names.class_names, list(merged), matrix, np.zeros_like(matrix))


def _found(root: Store, keys: Sequence[str], files: Sequence[str]) -> list[str]:
    """Keys of files that are named by their path, or by the end of it where that is unique."""
    known = set(keys)
    by_name: dict[str, list[str]] = {}
    for key in keys:
        by_name.setdefault(key.rpartition("/")[2], []).append(key)
    found = []
    for file in files:
        key = file.replace("\\", "/").removeprefix(f"{root.uri}/").removeprefix("./")
        if key not in known:
            ends = [k for k in by_name.get(key.rpartition("/")[2], ()) if k.endswith(f"/{key}")]
            require(
                len(ends) < 2,
                f"{file} in {root.uri} may be {' or '.join(ends[:3])}: write the path.",
            )
            key = ends[0] if ends else key
        found.append(key)
    return found


def _said(photographs: PhotographSet, place: str, how: str) -> str:
    empty = int((photographs.labels.sum(axis=1) == 0).sum())
    without = f", {empty} of them without a class" if empty else ""
    return f"Test set: {len(photographs.keys)} photographs{without}, labelled by {place} ({how})."
