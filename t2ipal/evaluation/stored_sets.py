"""Features of a test set: computed once, stored part by part, and scored from there in a stream.

A part's name tells its backbone and a digest of its images: what changed is computed again, and
nothing else. Nothing of a test set but its labels is ever in memory as a whole.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from t2ipal.evaluation.photographs import PhotographSet
from t2ipal.evaluation.reading import (
    Unreadable,
    read_photograph,
    require_few,
    tell_left_out,
)
from t2ipal.evaluation.test_sets import TestFeatures, TestSet
from t2ipal.features.backbone import Backbone
from t2ipal.features.config import FeatureAccess
from t2ipal.features.extraction import (
    BATCH_SIZE,
    batched,
    concatenated,
    feature_folder,
    image_set,
    stored_columns,
)
from t2ipal.features.table import (
    BACKBONE,
    FETCHERS,
    FeatureFiles,
    held_if_small,
    map_shard,
)
from t2ipal.features.views import augmented
from t2ipal.store import Entry, LocalCopies, Names, Store, write_arrays

FOLDER = "test_features"
IMAGES_PER_PART = 1024
ON_RAY = 2 * IMAGES_PER_PART
"""Photographs that one process sees alone."""
READERS = 8
"""Photographs of a part that are read at once: a bucket answers to many as fast as to one."""
UNREADABLE, AGAIN = "unreadable", "again"
"""Names, in a part's head, of what could not be read, and that it may be there another time."""
VERSION = 1
"""Another one where the same photograph is seen otherwise than before."""


@dataclass(frozen=True)
class SetPart:
    """Some images of a test set, one after another."""

    key: str
    """Where their features are stored."""
    first: int
    """Row of the first one."""
    photographs: tuple[str, ...]
    """Their keys; none for scenes."""
    last: int
    """The row after the last one."""
    view: int = 0
    """0: the images as they are; else the number of their augmented view."""
    seed: int = 0
    """Of the augmented views."""


Source = Store | NDArray[np.uint8]
"""Home of the photographs, or the scenes themselves."""
Workers = Callable[[Store, Backbone, Source, Sequence[SetPart]], Iterator[int]]
"""`in_process`, or `t2ipal.engine.test_sets.on_ray`: yields how many images each part has."""


class PartExtractor:
    """Computes and stores parts of a test set with one backbone."""

    def __init__(self, place: Store, backbone: Backbone, source: Source):
        self.place, self.backbone, self.source = place, backbone, source

    def __call__(self, part: SetPart) -> int:
        """Computes and stores one part; returns how many images it has."""
        count, kind = part.last - part.first, self.backbone.config.feature_format
        kept: list[str] = []
        unreadable: list[tuple[str, str]] = []
        columns: list[dict[str, np.ndarray]] = []
        again = False
        with ThreadPoolExecutor(READERS) as readers:
            for some in batched(range(count), BATCH_SIZE):
                pixels = []
                for at, seen in zip(some, readers.map(partial(self._read, part), some)):
                    if isinstance(seen, Exception):
                        unreadable.append((part.photographs[at], str(seen)))
                        again |= isinstance(seen, OSError)
                    else:
                        pixels.append(seen)
                        kept.append(str(at))
                if pixels:
                    pixels = [augmented(image, part.seed, part.view) for image in pixels]
                    features = image_set(self.backbone, pixels, torch.zeros(len(pixels), 1))
                    columns.append(stored_columns(features, kind))
        arrays = concatenated(columns)
        facts = {BACKBONE: self.backbone.fingerprint, UNREADABLE: json.dumps(unreadable)}
        write_arrays(self.place, part.key, arrays, kept, facts | ({AGAIN: "1"} if again else {}))
        return count

    def _read(self, part: SetPart, at: int) -> NDArray[np.uint8] | Exception:
        """One image as the backbone sees it, or why it cannot be read."""
        if not isinstance(self.source, Store):
            return self.source[part.first + at]
        size = self.backbone.photograph_size_px
        return read_photograph(self.source, part.photographs[at], size)


def in_process(
    place: Store, backbone: Backbone, source: Source, parts: Sequence[SetPart]
) -> Iterator[int]:
    """Computes every part here, without Ray; yields the number of images of each."""
    yield from map(PartExtractor(place, backbone, source), parts)


def stored_features(
    test: TestSet,
    backbone: Backbone,
    place: Store,
    *,
    parts: Sequence[SetPart] | None = None,
    workers: Workers = in_process,
    access: FeatureAccess | None = None,
    max_unreadable_fraction: float = 1.0,
    progress: bool = False,
) -> TestFeatures:
    """Features of a test set, read from where they are stored; what is missing is computed first.

    Args:
        test: the test set.
        backbone: sees the images.
        place: where the features are stored, under `test_features/`.
        parts: of `set_parts`, where somebody has asked for them already.
        workers: who computes.
        access: how the features are read.
        max_unreadable_fraction: of photographs.
        progress: show a bar of images.

    Raises:
        ValueError: more photographs cannot be read, or none can.
    """
    access = access or FeatureAccess()
    parts = set_parts(test, backbone) if parts is None else parts
    stored = stored_parts(
        test, backbone, place, parts, workers, access, max_unreadable_fraction, progress
    )
    labels = torch.from_numpy(test.labels[stored.rows] > 0)
    features = held_if_small(stored.files, labels, access.feature_memory_gb * 1e9)
    photographs = test.images if isinstance(test.images, PhotographSet) else None
    difficult = None if photographs is None else photographs.difficult[stored.rows].astype(bool)
    return TestFeatures(
        test.name,
        test.class_names,
        features,
        difficult if difficult is not None and difficult.any() else None,
        [],
        stored.unreadable,
    )


@dataclass(frozen=True)
class StoredParts:
    """Parts that are all stored, and what their rows are of."""

    files: FeatureFiles
    rows: NDArray[np.int64]
    """Image in the test set of each row of the files."""
    views: NDArray[np.int64]
    """Which view of it that is."""
    unreadable: tuple[Unreadable, ...]


def stored_parts(
    test: TestSet,
    backbone: Backbone,
    place: Store,
    parts: Sequence[SetPart],
    workers: Workers,
    access: FeatureAccess,
    max_unreadable_fraction: float,
    progress: bool,
) -> StoredParts:
    """Computes the parts that are missing, as `stored_features` and `labelled_features` do."""
    photographs = test.images if isinstance(test.images, PhotographSet) else None
    source: Source = test.images if photographs is None else photographs.store  # type: ignore
    copies = access.copies() if place.is_bucket else None
    there, heads = _look(place, parts, copies)
    missing = [part for part in parts if heads.get(part.key, AGAIN_AT_LEAST).again]
    total = sum(part.last - part.first for part in missing)
    with tqdm(
        total=total, desc="test set", unit="image", disable=not (progress and missing)
    ) as bar:
        for count in workers(place, backbone, source, missing) if missing else ():
            bar.update(count)
    if missing:
        there, heads = _look(place, parts, copies)
        lost = [part.key for part in parts if part.key not in heads]
        if lost:
            raise FileNotFoundError(
                f"{lost[0]} in {place.uri} is gone since it was written. Run the command again."
            )
    found = (each for part in parts for each in heads[part.key].unreadable)
    unreadable = tuple(dict.fromkeys(found))  # each once, whatever the number of views
    if photographs is not None:
        if unreadable:
            require_few(photographs, unreadable, max_unreadable_fraction)
        tell_left_out(photographs, unreadable)
    kept = [(part, heads[part.key].row_keys) for part in parts]
    some = [(part, keys) for part, keys in kept if keys]
    counts = [len(keys) for _, keys in some]
    files = FeatureFiles(
        place,
        [(part.key, there[part.key]) for part, _ in some],
        np.cumsum([0, *counts]),
        Names([key for _, keys in some for key in keys]),
        access,
        backbone.fingerprint,
    )
    rows = np.array([part.first + int(key) for part, keys in some for key in keys], np.int64)
    views = np.repeat([part.view for part, _ in some], counts).astype(np.int64)
    return StoredParts(files, rows, views, unreadable)


@contextlib.contextmanager
def feature_place(*places: Store) -> Iterator[tuple[Store, bool]]:
    """The first of some stores that can be written, and True; else a folder that goes again."""
    for place in places:
        try:
            place.require_writable(f"{FOLDER}/.try")
        except OSError:
            continue
        yield place, True
        return
    with tempfile.TemporaryDirectory(prefix="t2ipal-test-set-") as folder:
        yield Store(folder), False


def worth_starting_ray(parts: Sequence[SetPart], place: Store) -> bool:
    """Whether so many photographs are to be seen that several workers are sooner done."""
    there = place.entries(f"{FOLDER}/")
    return sum(len(part.photographs) for part in parts if part.key not in there) > ON_RAY


def set_parts(test: TestSet, backbone: Backbone, root: str = FOLDER) -> list[SetPart]:
    """The parts of a test set, named after their images; features lie in a folder below `root`."""
    folder = feature_folder(backbone).replace("features", root, 1)
    photographs = test.images if isinstance(test.images, PhotographSet) else None
    versions = {} if photographs is None else _versions(photographs)
    parts = []
    for first in range(0, len(test.labels), IMAGES_PER_PART):
        last = min(first + IMAGES_PER_PART, len(test.labels))
        keys: tuple[str, ...] = ()
        digest = hashlib.sha256(f"{VERSION}".encode())
        if photographs is None:
            digest.update(np.ascontiguousarray(test.images[first:last]))  # type: ignore
        else:
            keys = photographs.keys[first:last]
            named = [photographs.store.uri, *([key, versions.get(key, "")] for key in keys)]
            digest.update(json.dumps(named).encode())
        parts.append(SetPart(f"{folder}/{digest.hexdigest()[:32]}.safetensors", first, keys, last))
    return parts


def _versions(photographs: PhotographSet) -> dict[str, str]:
    """What a listing tells of each photograph; of those that are not there it tells nothing."""
    first, last = min(photographs.keys), max(photographs.keys)
    same = (at for at, (one, other) in enumerate(zip(first, last)) if one != other)
    prefix = first[: next(same, min(len(first), len(last)))]  # of all that lie between them too
    return {key: entry.version for key, entry in photographs.store.entries(prefix).items()}


@dataclass(frozen=True)
class _Head:
    """What is known of a stored part without its features."""

    row_keys: list[str]
    unreadable: list[Unreadable]
    again: bool
    """Whether a photograph of it may be there, or readable, another time."""


AGAIN_AT_LEAST = _Head([], [], True)
"""What a part that is not stored stands for."""


def _look(
    place: Store, parts: Sequence[SetPart], copies: LocalCopies | None
) -> tuple[dict[str, Entry], dict[str, _Head]]:
    """What a listing tells of the stored parts, and their heads; many are looked at at once."""
    there = place.entries(f"{os.path.dirname(parts[0].key)}/")

    def look(part: SetPart) -> _Head:
        stored = map_shard(place, part.key, there[part.key], copies)
        unreadable = json.loads(stored.facts.get(UNREADABLE, "[]"))
        return _Head(
            stored.row_keys or [],
            [Unreadable(*each) for each in unreadable],
            AGAIN in stored.facts,
        )

    stored = [part for part in parts if part.key in there]
    with ThreadPoolExecutor(FETCHERS) as pool:
        return there, dict(zip([part.key for part in stored], pool.map(look, stored)))
