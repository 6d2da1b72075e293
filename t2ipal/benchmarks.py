"""Test sets of the literature and the numbers published on them.

Owns the folder layouts of VOC2007, MS-COCO and NUS-WIDE; reads labels and paths, never a pixel.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from t2ipal.captions.vocabulary import load_vocabulary
from t2ipal.config import one_of, require

TEST_SETS = ("voc2007", "coco2014", "coco2017", "nuswide")


@dataclass(frozen=True, eq=False)
class TestSet:
    """Images with the classes they hold."""

    name: str
    """One of TEST_SETS."""
    vocabulary: str
    """Name of the vocabulary whose classes these are."""
    class_names: tuple[str, ...]
    """In the order of the label columns."""
    image_paths: tuple[str, ...]
    """One file per row of the labels."""
    labels: UInt8[np.ndarray, "images classes"]
    """1 where the class is in the image."""
    difficult: UInt8[np.ndarray, "images classes"]
    """1 where all objects of the class are marked difficult (VOC alone); the label is 0 there."""


def load_test_set(name: str, root: str | Path) -> TestSet:
    """A test set from the folder it is unpacked to.

    Args:
        name: "voc2007" (root is VOCdevkit, or the VOC2007 in it), "coco2014" or "coco2017" (root
            holds val2014 and annotations/instances_val2014.json), "nuswide" (root holds ImageList,
            TrainTestLabels and Flickr).
        root: that folder.

    Raises:
        ValueError: an unknown name, or files that do not fit together.
        FileNotFoundError: a file that must be there is not.
    """
    one_of("test set", name, TEST_SETS)
    folder = Path(root)
    if name == "voc2007":
        return _voc2007(folder)
    if name == "nuswide":
        return _nuswide(folder)
    year = name.removeprefix("coco")
    return coco_test_set(
        folder / "annotations" / f"instances_val{year}.json", folder / f"val{year}", name
    )


def coco_test_set(instances: str | Path, images: str | Path, name: str = "coco2014") -> TestSet:
    """MS-COCO from one instances file: unlabelled images included, classes by id, crowds count.

    Args:
        instances: the json of instances.
        images: the folder of its images.
        name: what to call it.
    """
    instances = Path(instances)
    try:
        content = json.loads(_read(instances))
    except json.JSONDecodeError as error:
        raise ValueError(f"{instances} is no valid JSON: {error}.") from error
    for field in ("images", "annotations", "categories"):
        require(
            isinstance(content, dict) and isinstance(content.get(field), list),
            f"{instances} must be MS-COCO instances with a list {field!r}.",
        )
    categories = sorted(content["categories"], key=lambda category: category["id"])
    class_names = tuple(category["name"] for category in categories)
    known = load_vocabulary("coco2014").class_names
    require(
        class_names == known,
        f"{instances} must hold MS-COCO's {len(known)} categories,"
        f" got {len(class_names)}: {', '.join(class_names[:3])} ...",
    )
    column = {category["id"]: at for at, category in enumerate(categories)}
    rows = sorted(content["images"], key=lambda image: image["id"])
    row = {image["id"]: at for at, image in enumerate(rows)}
    labels = np.zeros((len(rows), len(class_names)), dtype=np.uint8)
    for at, instance in enumerate(content["annotations"]):
        require(
            instance.get("image_id") in row and instance.get("category_id") in column,
            f"{instances}: annotations[{at}] names an image or a category that is not listed.",
        )
        labels[row[instance["image_id"]], column[instance["category_id"]]] = 1
    paths = [Path(images) / image["file_name"] for image in rows]
    return _test_set(name, "coco2014", class_names, paths, labels, np.zeros_like(labels))


def _voc2007(root: Path) -> TestSet:
    folder = root / "VOC2007" if (root / "VOC2007").is_dir() else root
    class_names = load_vocabulary("voc2007").class_names
    image_ids = _read(folder / "ImageSets" / "Main" / "test.txt").split()
    labels = np.zeros((len(image_ids), len(class_names)), dtype=np.uint8)
    difficult = np.zeros_like(labels)
    for row, image_id in enumerate(image_ids):
        path = folder / "Annotations" / f"{image_id}.xml"
        try:
            annotation = ElementTree.fromstring(_read(path))
        except ElementTree.ParseError as error:
            raise ValueError(f"{path} is no valid XML: {error}.") from error
        for item in annotation.iter("object"):
            class_name = (item.findtext("name") or "").strip()
            one_of(f"class in {path}", class_name, class_names)
            hard = (item.findtext("difficult") or "0").strip() == "1"
            (difficult if hard else labels)[row, class_names.index(class_name)] = 1
    difficult[labels == 1] = 0
    paths = [folder / "JPEGImages" / f"{image_id}.jpg" for image_id in image_ids]
    return _test_set("voc2007", "voc2007", class_names, paths, labels, difficult)


def _nuswide(root: Path) -> TestSet:
    class_names = load_vocabulary("nuswide").class_names
    # The list was written on Windows: "actor\0001_2124494179.jpg".
    listed = _read(root / "ImageList" / "TestImagelist.txt").split("\n")
    names = [line.strip().replace("\\", "/") for line in listed if line.strip()]
    folders = (root / "TrainTestLabels", root / "Groundtruth" / "TrainTestLabels")
    folder = next((path for path in folders if path.is_dir()), folders[0])
    labels = np.zeros((len(names), len(class_names)), dtype=np.uint8)
    for column, class_name in enumerate(class_names):
        path = folder / f"Labels_{class_name}_Test.txt"
        values = _read(path).split()
        require(
            len(values) == len(names) and all(value in ("0", "1") for value in values),
            f"{path} must hold {len(names)} lines of 0 or 1, one an image of TestImagelist.txt,"
            f" got {len(values)}.",
        )
        labels[:, column] = [value == "1" for value in values]
    paths = [root / "Flickr" / name for name in names]
    return _test_set("nuswide", "nuswide", class_names, paths, labels, np.zeros_like(labels))


def _test_set(
    name: str,
    vocabulary: str,
    class_names: tuple[str, ...],
    paths: Sequence[Path],
    labels: UInt8[np.ndarray, "images classes"],
    difficult: UInt8[np.ndarray, "images classes"],
) -> TestSet:
    require(len(paths) > 0, f"Test set {name!r} lists no image.")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"Test set {name!r} lacks {len(missing)} of {len(paths)} images, first {missing[0]}."
        )
    return TestSet(name, vocabulary, class_names, tuple(map(str, paths)), labels, difficult)


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {path}; the test set must be unpacked as its authors pack it."
        )
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class PublishedResult:
    """One published number."""

    setting: str
    """zero_shot, partial_labels, partial_labels_mean, few_shot or novel_classes."""
    method: str
    backbone: str
    """CLIP's image encoder; empty where the table does not say."""
    test_set: str
    """A vocabulary name."""
    mAP: float
    """Percent."""
    amount: int | None = None
    """Percent of known labels, or shots."""


# T2I-PAL's paper, Table I (RN50, with TaI-DPT's and CLIP's numbers), Table XII and text (RN101),
# Table VIII (synthetic images only) and IX (one image per caption); the last two rows from those
# papers.
_ZERO_SHOT: tuple[tuple[str, str, float | None, float | None, float | None], ...] = (
    ("ZSCLIP", "RN50", 76.2, 47.3, 36.4),
    ("ZSCLIP + local", "RN50", 77.3, 49.7, 37.4),
    ("TaI", "RN50", 86.0, 61.1, 44.9),
    ("TaI-DPT", "RN50", 88.3, 65.1, 46.5),
    ("T2I-PAL", "RN50", 88.8, 66.1, 45.5),
    ("T2I-PAL", "RN101", 91.5, 71.4, 47.4),
    ("T2I-PAL, synthetic images only", "RN101", 90.8, None, None),
    ("T2I-PAL, 1 image per caption", "RN101", 91.1, None, None),
    ("PIAA", "ViT-B/16", 92.5, 74.6, 50.6),
    ("TagCLIP", "ViT-B/16", 92.8, 68.8, None),
)
# T2I-PAL's paper, Table II: 10 to 90 percent known labels, then the mean.
_PARTIAL_LABELS: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    ("coco2014", "SARB", (71.2, 75.0, 77.1, 78.3, 78.9, 79.6, 79.8, 80.5, 80.5, 77.9)),
    ("coco2014", "DualCoOp (rerun)", (81.0, 82.3, 82.9, 83.4, 83.5, 83.9, 84.0, 84.1, 84.3, 83.3)),
    (
        "coco2014",
        "DualCoOp + TaI-DPT",
        (81.5, 82.6, 83.3, 83.7, 83.9, 84.0, 84.2, 84.4, 84.5, 83.6),
    ),
    (
        "coco2014",
        "DualCoOp + T2I-PAL",
        (82.7, 83.0, 84.5, 84.6, 84.8, 85.0, 85.6, 85.8, 85.9, 84.7),
    ),
    ("voc2007", "SARB", (83.5, 88.6, 90.7, 91.4, 91.9, 92.2, 92.6, 92.8, 92.9, 90.7)),
    ("voc2007", "DualCoOp (rerun)", (91.4, 93.8, 93.8, 94.3, 94.6, 94.7, 94.8, 94.9, 94.9, 94.1)),
    ("voc2007", "DualCoOp + TaI-DPT", (93.3, 94.6, 94.8, 94.9, 95.1, 95.0, 95.1, 95.3, 95.5, 94.8)),
    ("voc2007", "DualCoOp + T2I-PAL", (93.7, 94.8, 94.8, 94.9, 94.9, 95.2, 95.5, 95.5, 95.5, 95.0)),
    ("nuswide", "DualCoOp (rerun)", (54.0, 56.2, 56.9, 57.4, 57.9, 57.9, 57.6, 58.2, 58.8, 57.2)),
    ("nuswide", "DualCoOp + TaI-DPT", (56.4, 57.9, 57.8, 58.1, 58.5, 58.8, 58.6, 59.1, 59.4, 58.3)),
    ("nuswide", "DualCoOp + T2I-PAL", (56.7, 57.9, 57.9, 58.3, 58.7, 59.2, 59.3, 59.3, None, 58.5)),
)
# T2I-PAL's paper, Table IV: CoOp + T2I-PAL at 1, 2, 4, 8, 16 shots of all classes.
_FEW_SHOT = (
    ("coco2014", "CoOp + T2I-PAL", (71.6, 71.8, 73.1, 73.5, 74.1)),
    ("voc2007", "CoOp + T2I-PAL", (91.7, 92.1, 92.2, 92.3, 92.9)),
)
# T2I-PAL's paper, Table III: 16 novel classes of MS-COCO, by shots.
_NOVEL_CLASSES = (
    ("LaSO", 1, 45.3),
    ("LaSO", 5, 58.1),
    ("ML-FSL", 1, 54.4),
    ("ML-FSL", 5, 63.6),
    ("TaI-DPT", 0, 59.2),
    ("T2I-PAL", 0, 66.3),
)

PUBLISHED: tuple[PublishedResult, ...] = (
    *(
        PublishedResult("zero_shot", method, backbone, test_set, value)
        for method, backbone, *values in _ZERO_SHOT
        for test_set, value in zip(("voc2007", "coco2014", "nuswide"), values, strict=True)
        if value is not None
    ),
    *(
        PublishedResult("partial_labels", method, "", test_set, value, percent)
        for test_set, method, values in _PARTIAL_LABELS
        for percent, value in zip(range(10, 100, 10), values)
        if value is not None
    ),
    *(
        PublishedResult("partial_labels_mean", method, "", test_set, values[-1])
        for test_set, method, values in _PARTIAL_LABELS
        if values[-1] is not None
    ),
    *(
        PublishedResult("few_shot", method, "", test_set, value, shots)
        for test_set, method, values in _FEW_SHOT
        for shots, value in zip((1, 2, 4, 8, 16), values, strict=True)
    ),
    *(
        PublishedResult("novel_classes", method, "", "coco2014", value, shots)
        for method, shots, value in _NOVEL_CLASSES
    ),
)
"""Every number, with its setting; compare only rows of one backbone."""
