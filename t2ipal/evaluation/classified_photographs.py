"""Data sets whose photographs show one thing: Flowers102, Food101, and AWA2 by its attributes.

Owns the folder layouts, as the authors pack them; reads labels and names of files, never a pixel.
"""

import io

import numpy as np
from jaxtyping import Int, UInt8

from t2ipal.captions import load_vocabulary
from t2ipal.config import require
from t2ipal.evaluation.class_names import ClassNames
from t2ipal.evaluation.photographs import PhotographSet, photograph_set
from t2ipal.evaluation.texts import read_bytes, read_lines
from t2ipal.features.photograph_kinds import is_photograph
from t2ipal.store import Store


def flowers102(root: Store) -> PhotographSet:
    """Flowers102's test images: `root` holds setid.mat, imagelabels.mat and jpg/.

    Of setid.mat the list tstid is the test side, 6,149 images.
    """
    class_names = load_vocabulary("flowers102").class_names
    numbers = _whole_numbers(root, "setid.mat", "tstid")
    classes = _whole_numbers(root, "imagelabels.mat", "labels")
    place = f"{root.uri}/imagelabels.mat"
    missing = numbers[(numbers < 1) | (numbers > len(classes))]
    require(
        not len(missing),
        f"{place} must label each image of setid.mat, got {len(classes)} labels, none of image "
        f"{missing[:1].sum()}.",
    )
    found = classes[numbers - 1]
    wrong = found[(found < 1) | (found > len(class_names))]
    require(
        not len(wrong),
        f"{place} must hold classes of 1 to {len(class_names)}, got {wrong[:1].sum()}.",
    )
    files = [f"image_{number:05d}.jpg" for number in numbers]
    return photograph_set(root, class_names, files, _one_hot(found - 1, class_names), folder="jpg/")


def food101(root: Store) -> PhotographSet:
    """Food101's test images: `root` holds meta/test.txt, meta/classes.txt and images/."""
    class_names = load_vocabulary("food101").class_names
    names, place = ClassNames(class_names), f"{root.uri}/meta/classes.txt"
    for name in read_lines(root, "meta/classes.txt"):
        names.require(name, place)
    files = read_lines(root, "meta/test.txt")
    place = f"{root.uri}/meta/test.txt"
    columns = [names.require(file.partition("/")[0], place) for file in files]
    return photograph_set(
        root, class_names, files, _one_hot(np.array(columns), class_names), folder="images/"
    )


def awa2(root: Store) -> PhotographSet:
    """AWA2's images of the ten test animals, by the 85 attributes of their animal.

    `root` holds classes.txt, predicates.txt, predicate-matrix-binary.txt, testclasses.txt and
    JPEGImages/.
    """
    attributes = load_vocabulary("awa2").class_names
    names = ClassNames(attributes)
    animals, predicates = _numbered(root, "classes.txt"), _numbered(root, "predicates.txt")
    place = f"{root.uri}/predicates.txt"
    columns = [names.require(name, place) for name in predicates]
    require(
        sorted(columns) == [*range(len(attributes))],
        f"{place} must list AWA2's {len(attributes)} attributes, got {len(columns)}.",
    )
    rows = [line.split() for line in read_lines(root, "predicate-matrix-binary.txt")]
    require(
        len(rows) == len(animals)
        and all(len(row) == len(columns) and {*row} <= {"0", "1"} for row in rows),
        f"{root.uri}/predicate-matrix-binary.txt must hold 0 and 1 for {len(animals)} animals and "
        f"{len(columns)} attributes.",
    )
    matrix = np.zeros((len(animals), len(attributes)), dtype=np.uint8)
    matrix[:, columns] = np.array(rows, dtype=np.uint8).reshape(len(rows), len(columns))
    tested = read_lines(root, "testclasses.txt")
    unknown = [name for name in tested if name not in animals]
    require(not unknown, f"{root.uri}/classes.txt must list {', '.join(unknown[:3])}.")
    prefix = "JPEGImages/"
    files, labels = [], []
    for animal in tested:
        found = sorted(key for key in root.list(f"{prefix}{animal}/") if is_photograph(key))
        if not found:
            raise FileNotFoundError(f"No photograph in {root.uri}/{prefix}{animal}.")
        files += [key.removeprefix(prefix) for key in found]
        labels += [matrix[animals.index(animal)]] * len(found)
    return photograph_set(root, attributes, files, np.array(labels), folder=prefix)


def _whole_numbers(root: Store, key: str, name: str) -> Int[np.ndarray, " numbers"]:
    """One list of a Matlab file.

    Raises:
        ValueError: the file is damaged, or has no such list.
    """
    from scipy.io import loadmat

    place, data = f"{root.uri}/{key}", read_bytes(root, key)
    try:
        values = np.asarray(loadmat(io.BytesIO(data), variable_names=[name])[name]).ravel()
    except Exception as error:  # whatever damaged bytes lead to
        raise ValueError(
            f"{place} must be a Matlab file that holds {name}, got {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    require(
        values.dtype.kind in "iuf" and bool((values == np.floor(values)).all()),
        f"{place}: {name} must be whole numbers.",
    )
    return values.astype(np.int64)


def _numbered(root: Store, key: str) -> list[str]:
    """The names in lines of a number and a name."""
    rows = [line.split() for line in read_lines(root, key)]
    require(
        all(len(row) == 2 and row[0].isdecimal() for row in rows),
        f"{root.uri}/{key} must hold lines of a number and a name.",
    )
    return [row[1] for row in rows]


def _one_hot(
    columns: Int[np.ndarray, " images"], class_names: tuple[str, ...]
) -> UInt8[np.ndarray, "images classes"]:
    return np.eye(len(class_names), dtype=np.uint8)[columns]
