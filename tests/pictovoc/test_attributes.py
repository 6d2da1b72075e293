import numpy as np
import pytest

from t2ipal.captions import load_vocabulary
from t2ipal.pictovoc.attributes import ATTRIBUTES, MATRIX, attribute_labels
from t2ipal.pictovoc.scenes import CLASS_NAMES


def test_labels_by_hand():
    labels = np.zeros((3, 20))
    labels[0, CLASS_NAMES.index("horse")] = 1
    labels[1, [CLASS_NAMES.index(name) for name in ("car", "bird", "person")]] = 1
    names = np.array([*ATTRIBUTES])
    named = [set(names[row == 1]) for row in attribute_labels(labels)]
    assert named == [
        {"saddle", "four legs", "hooves", "fur"},
        {"wheels", "windows", "wings"},
        set(),
    ]
    with pytest.raises(
        ValueError, match=r"labels must be \[rows, 20 classes\], got shape \(3, 5\)"
    ):
        attribute_labels(labels[:, :5])


def test_each_attribute_asks_something_of_its_own():
    assert MATRIX.shape == (20, len(ATTRIBUTES)) and MATRIX.dtype == np.uint8
    assert len({column.tobytes() for column in MATRIX.T}) == len(ATTRIBUTES)
    assert all({*classes} <= {*CLASS_NAMES} and len(classes) > 1 for classes in ATTRIBUTES.values())
    vocabulary = load_vocabulary("pictovoc_attributes")
    assert vocabulary.class_names == tuple(ATTRIBUTES)
