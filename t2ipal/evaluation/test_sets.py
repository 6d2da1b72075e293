"""Features of a test set: the embedded world's scenes, or photographs in a folder of the user's."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from t2ipal.config import one_of, require
from t2ipal.evaluation.classified_photographs import awa2, flowers102, food101
from t2ipal.evaluation.metrics import Measure
from t2ipal.evaluation.own_photographs import own_photographs
from t2ipal.evaluation.photographs import PhotographSet, coco, nuswide, voc2007
from t2ipal.evaluation.reading import Reader, Unreadable, tell_left_out
from t2ipal.features.backbone import Backbone
from t2ipal.features.extraction import image_set
from t2ipal.features.sets import FeatureSet, FeatureTable
from t2ipal.pictovoc.worlds import WORLDS, ImagesAndLabels, world_scenes
from t2ipal.store import Store


@dataclass(frozen=True)
class DataSet:
    """One row of the table of data sets."""

    vocabulary: str | None
    """Whose classes it has; None where no vocabulary names them."""
    schedule: str
    """Of `t2ipal.training.recipes.SCHEDULES`, for training on its vocabulary."""
    is_test: bool = True
    """False where settings may be chosen on it, or labels learned from."""
    load: Callable[[Store], PhotographSet] | None = None
    """Reads its labels from the folder that holds it; None: the embedded world draws it."""
    measure: Measure = "mAP"
    """What is reported of a recognizer on it."""
    page: str = ""
    """Where its authors publish it."""


VOC_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007/"
COCO_PAGE = "https://cocodataset.org/#download"
NUS_PAGE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"

DATA_SETS: dict[str, DataSet] = {
    "pictovoc": DataSet("voc2007", "pictovoc"),
    "pictovoc_validation": DataSet("voc2007", "pictovoc", is_test=False),
    "pictovoc_train": DataSet("voc2007", "pictovoc", is_test=False),
    "pictovoc_shifted": DataSet("voc2007", "pictovoc"),
    "pictovoc_night": DataSet("voc2007", "pictovoc"),
    "pictovoc_novel": DataSet("pictovoc_novel", "pictovoc"),
    "pictovoc_colors": DataSet("pictovoc_colors", "pictovoc"),
    "pictovoc_counts": DataSet(None, "pictovoc", measure="accuracy"),
    "pictovoc_attributes": DataSet("pictovoc_attributes", "pictovoc"),
    "pictovoc_single": DataSet("voc2007", "pictovoc", measure="accuracy"),
    "voc2007": DataSet("voc2007", "voc2007", load=voc2007, page=VOC_PAGE),
    "voc2007_trainval": DataSet(
        "voc2007", "voc2007", False, partial(voc2007, side="trainval"), page=VOC_PAGE
    ),
    "coco2014": DataSet("coco2014", "coco2014", load=partial(coco, year=2014), page=COCO_PAGE),
    "coco2014_train": DataSet(
        "coco2014", "coco2014", False, partial(coco, year=2014, side="train"), page=COCO_PAGE
    ),
    "coco2017": DataSet("coco2014", "coco2014", load=partial(coco, year=2017), page=COCO_PAGE),
    "coco2017_train": DataSet(
        "coco2014", "coco2014", False, partial(coco, year=2017, side="train"), page=COCO_PAGE
    ),
    "nuswide": DataSet("nuswide", "nuswide", load=nuswide, page=NUS_PAGE),
    "nuswide_train": DataSet(
        "nuswide", "nuswide", False, partial(nuswide, side="Train"), page=NUS_PAGE
    ),
    # Nobody published a schedule for these; VOC2007's is the ancestor's own.
    "flowers102": DataSet(
        "flowers102", "voc2007", load=flowers102, measure="accuracy",
        page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    ),
    "food101": DataSet(
        "food101", "voc2007", load=food101, measure="accuracy",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    "awa2": DataSet("awa2", "voc2007", load=awa2, page="https://cvml.ista.ac.at/AwA2/"),
}  # fmt: skip
"""Every data set by the name that options take; `pictovoc_*` are `t2ipal.pictovoc.worlds`."""


def measure_of(name: str) -> Measure:
    """Which measure a data set has; mAP where it is a folder of the user's own."""
    return DATA_SETS[name].measure if name in DATA_SETS else "mAP"


def schedule_of(name: str) -> str:
    """The schedule for training on the vocabulary of a data set.

    Raises:
        ValueError: there is no such data set; the nearest one is named.
    """
    one_of("data set", name, DATA_SETS)
    return DATA_SETS[name].schedule


@dataclass(frozen=True, eq=False)
class TestSet:
    """Images and what is in them; photographs are not read yet."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    name: str
    class_names: tuple[str, ...]
    labels: NDArray[np.uint8]
    """[images, classes]."""
    images: PhotographSet | NDArray[np.uint8]
    """Photographs, or scenes of the embedded world."""

    def only(self, rows: Sequence[int]) -> "TestSet":
        """The images at these rows."""
        at, images = np.array(rows, dtype=np.int64), self.images
        if isinstance(images, PhotographSet):
            images = replace(
                images,
                keys=tuple(images.keys[row] for row in rows),
                labels=images.labels[at],
                difficult=images.difficult[at],
            )
        else:
            images = images[at]
        return replace(self, labels=self.labels[at], images=images)

    @property
    def origin(self) -> str:
        """What a person should know of the labels, as where those of the user's own were found."""
        return self.images.origin if isinstance(self.images, PhotographSet) else ""


@dataclass(frozen=True)
class TestFeatures:
    """A test set as the recognizers see it."""

    __test__ = False

    name: str
    class_names: tuple[str, ...]
    features: FeatureTable
    difficult: NDArray[np.bool_] | None
    """Entries that VOC calls difficult; None where there is no such thing."""
    previews: list[NDArray[np.uint8]]
    """The first images, as the backbone sees them."""
    unreadable: tuple[Unreadable, ...] = ()
    """Photographs that are not among the features."""

    @property
    def num_listed(self) -> int:
        """Images of the test set, unreadable ones included."""
        return len(self.features) + len(self.unreadable)


def load_test_set(
    name: str,
    root: str | None = None,
    class_names: Sequence[str] = (),
    endpoint_url: str | None = None,
) -> TestSet:
    """One of `DATA_SETS`, or labelled photographs of the user's own.

    Args:
        name: of a data set, or a folder: a local path, or s3://bucket/prefix.
        root: folder of a real data set.
        class_names: that the recognizers know, for a folder of the user's.
        endpoint_url: server of an S3 store that is not on AWS.

    Raises:
        ValueError: an unknown test set, or a real one without `root`; labels that cannot be read.
        FileNotFoundError: `root` does not hold it; tells where it comes from.
    """
    if is_own(name):
        require(root is None, f"The folder {name} is the test set: leave --test-root out.")
        photographs = own_photographs(name, class_names, endpoint_url)
        # Whole, so that jobs/report.py finds it again from wherever it is started.
        name = name if "://" in name else os.path.abspath(os.path.expanduser(name))
        return TestSet(name, photographs.class_names, photographs.labels, photographs)
    one_of("test set", name, DATA_SETS)
    load, page = DATA_SETS[name].load, DATA_SETS[name].page
    if load is None:
        scenes, labels = world_scenes(name)
        return TestSet(name, WORLDS[name].class_names, labels, scenes)
    require(
        root is not None,
        f"Test set {name} needs its folder: give --test-root. It comes from {page}",
    )
    try:
        photographs = load(Store(str(root), endpoint_url))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} {name} comes from {page}") from error
    return TestSet(name, photographs.class_names, photographs.labels, photographs)


def is_own(name: str) -> bool:
    """Whether a test set's name means a folder, or a file of labels, of the user's own.

    `DATA_SETS` come first: for a folder called `voc2007` write `./voc2007`.
    """
    if name in DATA_SETS:
        return False
    return "/" in name or name.startswith((".", "~")) or Path(name).exists()


def test_set_features(
    name: str,
    root: str | None,
    backbone: Backbone,
    class_names: Sequence[str] = (),
    endpoint_url: str | None = None,
    num_previews: int = 64,
) -> TestFeatures:
    """`see` of `load_test_set`."""
    return see(load_test_set(name, root, class_names, endpoint_url), backbone, num_previews)


def see(
    test: TestSet,
    backbone: Backbone,
    num_previews: int = 64,
    max_unreadable_fraction: float = 1.0,
) -> TestFeatures:
    """Features and labels of a test set; photographs that cannot be read are left out, and named.

    Args:
        test: the test set.
        backbone: sees the images.
        num_previews: images to keep as they are seen.
        max_unreadable_fraction: of photographs.

    Raises:
        ValueError: more of them cannot be read, or none can.
    """
    previews: list[NDArray[np.uint8]] = []
    labels = torch.from_numpy(test.labels).float()
    if not isinstance(test.images, PhotographSet):
        features = image_set(backbone, _keeping(test.images, previews, num_previews), labels)
        return TestFeatures(test.name, test.class_names, features, None, previews)
    reader = Reader(test.images, backbone.photograph_size_px, max_unreadable_fraction)
    features = image_set(backbone, _keeping(reader, previews, num_previews), labels)
    tell_left_out(test.images, reader.unreadable)
    difficult = test.images.difficult[reader.rows].astype(bool)
    return TestFeatures(
        test.name,
        test.class_names,
        replace(features, labels=labels[reader.rows]),
        difficult if difficult.any() else None,
        previews,
        tuple(reader.unreadable),
    )


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
