"""Features of a test set: the embedded world's scenes, or photographs in a folder of the user's."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from t2ipal.config import one_of, require
from t2ipal.evaluation.own_photographs import own_photographs
from t2ipal.evaluation.photographs import PhotographSet, coco, nuswide, voc2007
from t2ipal.features.backbone import Backbone
from t2ipal.features.extraction import image_set
from t2ipal.features.photographs import load_photograph
from t2ipal.features.sets import FeatureSet
from t2ipal.pictovoc.worlds import WORLDS, ImagesAndLabels, world_scenes
from t2ipal.store import Store

ChooseRows = Callable[[UInt8[np.ndarray, "images classes"]], list[int]]
"""Which images of a test set to look at, by their labels."""


@dataclass(frozen=True)
class DataSet:
    """One row of the table of data sets."""

    vocabulary: str | None
    """Whose classes it has; None where no vocabulary names them."""
    schedule: str
    """Of `t2ipal.training.recipes.SCHEDULES`, for training on its vocabulary."""
    is_test: bool = True
    """False where settings may be chosen on it."""
    load: Callable[[Store], PhotographSet] | None = None
    """Reads its labels from the folder that holds it; None: the embedded world draws it."""


DATA_SETS: dict[str, DataSet] = {
    "pictovoc": DataSet("voc2007", "pictovoc"),
    "pictovoc_validation": DataSet("voc2007", "pictovoc", is_test=False),
    "pictovoc_shifted": DataSet("voc2007", "pictovoc"),
    "pictovoc_novel": DataSet("pictovoc_novel", "pictovoc"),
    "pictovoc_colors": DataSet("pictovoc_colors", "pictovoc"),
    "pictovoc_counts": DataSet(None, "pictovoc"),
    "voc2007": DataSet("voc2007", "voc2007", load=voc2007),
    "coco2014": DataSet("coco2014", "coco2014", load=partial(coco, year=2014)),
    "coco2017": DataSet("coco2014", "coco2014", load=partial(coco, year=2017)),
    "nuswide": DataSet("nuswide", "nuswide", load=nuswide),
}
"""Every data set by the name that options take; `pictovoc_*` are `t2ipal.pictovoc.worlds`."""


def schedule_of(name: str) -> str:
    """The schedule for training on the vocabulary of a data set.

    Raises:
        ValueError: there is no such data set; the nearest one is named.
    """
    one_of("data set", name, DATA_SETS)
    return DATA_SETS[name].schedule


@dataclass(frozen=True)
class TestFeatures:
    """A test set as the recognizers see it."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    class_names: tuple[str, ...]
    features: FeatureSet
    difficult: NDArray[np.bool_] | None
    """Entries that VOC calls difficult; None where there is no such thing."""
    previews: list[NDArray[np.uint8]]
    """The first images, as the backbone sees them."""
    origin: str = ""
    """Where labels of the user's own were found, for people; empty for `DATA_SETS`."""


def test_set_features(
    name: str,
    root: str | None,
    backbone: Backbone,
    class_names: Sequence[str] = (),
    endpoint_url: str | None = None,
    num_previews: int = 64,
    choose: ChooseRows | None = None,
) -> TestFeatures:
    """Features and labels of one of `DATA_SETS`, or of labelled photographs of the user's own.

    Args:
        name: of a data set, or a folder: a local path, or s3://bucket/prefix.
        root: folder of a real data set.
        backbone: sees the images.
        class_names: that the recognizers know, for a folder of the user's.
        endpoint_url: server of an S3 store that is not on AWS.
        num_previews: images to keep as they are seen.
        choose: tells from the labels which images to look at, and no others are read; None: all.

    Raises:
        ValueError: an unknown test set, a real one without `root`, or one without a chosen image.
        FileNotFoundError: `root` does not hold it.
    """
    if is_own(name):
        require(root is None, f"The folder {name} is the test set: leave --test-root out.")
        photographs, origin = own_photographs(name, class_names, endpoint_url)
        # Whole, so that jobs/report.py finds it again from wherever it is started.
        place = name if "://" in name else os.path.abspath(os.path.expanduser(name))
        return _seen(place, _chosen(photographs, choose), backbone, num_previews, origin)
    one_of("test set", name, DATA_SETS)
    load = DATA_SETS[name].load
    if load is None:
        scenes = world_scenes(name)
        rows = slice(None) if choose is None else choose(scenes[1])
        scenes = scenes[0][rows], scenes[1][rows]
        features = scene_features(backbone, scenes)
        previews = list(scenes[0][:num_previews])
        return TestFeatures(name, WORLDS[name].class_names, features, None, previews)
    require(root is not None, f"Test set {name} needs its folder: give --test-root.")
    photographs = _chosen(load(Store(str(root), endpoint_url)), choose)
    return _seen(name, photographs, backbone, num_previews)


def _chosen(photographs: PhotographSet, choose: ChooseRows | None) -> PhotographSet:
    """Those of the photographs that are to be looked at."""
    if choose is None:
        return photographs
    rows = choose(photographs.labels)
    return dataclasses.replace(
        photographs,
        keys=tuple(photographs.keys[row] for row in rows),
        labels=photographs.labels[rows],
        difficult=photographs.difficult[rows],
    )


def is_own(name: str) -> bool:
    """Whether a test set's name means a folder, or a file of labels, of the user's own.

    `DATA_SETS` come first: for a folder called `voc2007` write `./voc2007`.
    """
    if name in DATA_SETS:
        return False
    return "/" in name or name.startswith((".", "~")) or Path(name).exists()


def _seen(
    name: str,
    photographs: PhotographSet,
    backbone: Backbone,
    num_previews: int,
    origin: str = "",
) -> TestFeatures:
    """Photographs as the backbone sees them."""
    previews: list[NDArray[np.uint8]] = []
    features = image_set(
        backbone,
        _keeping(_opened(photographs, backbone.photograph_size_px), previews, num_previews),
        torch.from_numpy(photographs.labels).float(),
    )
    difficult = photographs.difficult.astype(bool)
    return TestFeatures(
        name,
        photographs.class_names,
        features,
        difficult if difficult.any() else None,
        previews,
        origin,
    )


def _opened(photographs: PhotographSet, size_px: int) -> Iterator[NDArray[np.uint8]]:
    for key in photographs.keys:
        try:
            yield load_photograph(photographs.store.read(key), size_px)
        except ValueError as error:
            raise ValueError(
                f"A photograph of the test set cannot be used: {photographs.store.uri}/{key} "
                f"({error}). Mend it, or remove it together with its labels."
            ) from error


def _keeping(
    images: Iterable[NDArray[np.uint8]], kept: list[NDArray[np.uint8]], count: int
) -> Iterator[NDArray[np.uint8]]:
    """The images one by one; the first ones are also put into a list."""
    for image in images:
        if len(kept) < count:
            kept.append(image)
        yield image


def scene_features(backbone: Backbone, scenes: ImagesAndLabels) -> FeatureSet:
    """Features and labels of scenes."""
    return image_set(backbone, scenes[0], torch.from_numpy(scenes[1]).float())
