"""Labelled photographs of the user's own: beside a csv, with COCO's instances, or a folder a class.

Looked for in this order; the first that is there counts, and what was found is said in words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from t2ipal.config import require, unknown
from t2ipal.evaluation.class_names import ClassNames
from t2ipal.evaluation.instances import holds_instances, read_instances
from t2ipal.evaluation.label_tables import read_labels
from t2ipal.evaluation.photographs import PhotographSet, photograph_set, shortened
from t2ipal.evaluation.texts import read_text
from t2ipal.features.photograph_kinds import is_photograph
from t2ipal.store import Store, store_and_key

LABELS_CSV = "labels.csv"
TABLES = (".csv", ".tsv")
LAYOUTS = (
    f"{LABELS_CSV} or a single csv (columns file and labels, or file and a column of 0 and 1 for "
    "each class), a json of COCO instances (beside the photographs or in annotations/), a folder "
    "for each class"
)
"""In the order in which they are looked for."""


def own_photographs(
    uri: str, class_names: Sequence[str], endpoint_url: str | None = None
) -> PhotographSet:
    """The photographs, labelled for a recognizer's classes; its `origin` says what was found.

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
        found = _folders(root, keys, names)
    else:
        found = (_csv if key.lower().endswith(TABLES) else _instances)(root, key, names)
    empty = int((found.labels.sum(axis=1) == 0).sum())
    without = f", {empty} of them without a class" if empty else ""
    said = f"Test set: {len(found.keys)} photographs{without}, labelled by {found.origin}."
    said += "" if given else f" Looked for, in this order: {LAYOUTS}."
    return replace(found, origin=said)


def _root(uri: str, endpoint_url: str | None) -> tuple[Store, str | None]:
    """The folder of the photographs, and the key of the labels where they were named."""
    if not uri.lower().endswith((*TABLES, ".json")):
        return Store(uri, endpoint_url), None
    store, name = store_and_key(uri, endpoint_url)
    if store.uri.endswith("/annotations"):  # as COCO's are, beside the folders of the photographs
        return Store(store.uri.rpartition("/")[0], endpoint_url), f"annotations/{name}"
    return store, name


def _csv(root: Store, key: str, names: ClassNames) -> PhotographSet:
    place = f"{root.uri}/{key}"
    labels, said = read_labels(read_text(root, key), names, place)
    return _labelled(root, labels, names, f"{place} ({said})")


def _find_table(root: Store, keys: Sequence[str]) -> str | None:
    """The csv of the labels, where there is one."""
    tables = [key for key in keys if "/" not in key and key.lower().endswith(TABLES)]
    if not tables or LABELS_CSV in tables:
        return LABELS_CSV if tables else None
    called = f"call the one with the labels {LABELS_CSV}, or give its path"
    require(
        len(tables) == 1,
        f"{root.uri} holds {len(tables)} csv files ({', '.join(tables[:5])}): {called}.",
    )
    header = read_text(root, tables[0]).partition("\n")[0].strip().split(",")
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
    found = [key for key in jsons if holds_instances(root, key)]
    require(
        len(found) < 2,
        f"{root.uri} holds {len(found)} files of COCO instances ({', '.join(found[:5])}): give the "
        "path of the one to use.",
    )
    return next(iter(found), None)


def _instances(root: Store, key: str, names: ClassNames) -> PhotographSet:
    content = read_instances(root, key)
    column = {number: names.column(name) for number, name in content.categories.items()}
    known = {index for index in column.values() if index is not None}
    if not known:
        first = next(iter(content.categories.values()), "")
        raise unknown(f"class in {content.place}", first, names.class_names)
    said = f"COCO instances, {len(known)} of {len(column)} categories are classes here"
    others = [content.categories[number] for number, index in column.items() if index is None]
    said += f"; left out: {shortened(others)}" if others else ""
    labels = content.labels(column, len(names.class_names))
    files = list(content.files.values())
    return photograph_set(
        root, names.class_names, files, labels, origin=f"{content.place} ({said})"
    )


def _folders(root: Store, keys: Sequence[str], names: ClassNames) -> PhotographSet:
    """Of folders that are called as classes are: those in the root, or in one folder below it."""
    there = [key for key in keys if is_photograph(key) and "/." not in f"/{key}"]
    within = [key for key in there if "/" in key]
    if not within:
        raise FileNotFoundError(f"No labelled photographs in {root.uri}. Looked for: {LAYOUTS}.")
    labels: dict[str, set[int]] = {}
    above: dict[str, str] = {}
    classes: set[str] = set()
    for key in within:
        folders = key.split("/")[:-1]
        name = next((each for each in folders if names.column(each) is not None), folders[0])
        labels[key] = {names.require(name, f"the folders of {root.uri}")}
        above["/".join(folders[: folders.index(name)])] = key
        classes.add(name)
    require(
        len(above) == 1,
        f"{root.uri} holds folders of classes in several places, as {shortened([*above.values()])}:"
        " give the path of one.",
    )
    said = f"{len(classes)} folders, one class each"
    if len(there) > len(within):
        said += f"; left out: {len(there) - len(within)} photographs beside them"
    return _labelled(root, labels, names, f"{root.uri} ({said})")


def _labelled(
    root: Store, labels: Mapping[str, set[int]], names: ClassNames, origin: str
) -> PhotographSet:
    matrix = np.zeros((len(labels), len(names.class_names)), dtype=np.uint8)
    for row, columns in zip(matrix, labels.values()):
        row[list(columns)] = 1
    return photograph_set(root, names.class_names, list(labels), matrix, origin=origin)
