"""What each class has, is or is for: the world's likeness of AWA2's table of attributes.

A scene has the attributes of its objects; so do captions, through the classes that they name.
"""

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike

from t2ipal.config import require
from t2ipal.pictovoc.scenes import CLASS_NAMES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "wheels": ("aeroplane", "bicycle", "bus", "car", "motorbike", "train"),
    "two wheels": ("bicycle", "motorbike"),
    "wings": ("aeroplane", "bird"),
    "windows": ("aeroplane", "bus", "car", "train"),
    "many passengers": ("aeroplane", "boat", "bus", "train"),
    "saddle": ("bicycle", "horse", "motorbike"),
    "four legs": ("cat", "cow", "dog", "horse", "sheep"),
    "paws": ("cat", "dog"),
    "hooves": ("cow", "horse", "sheep"),
    "fur": ("cat", "cow", "dog", "horse"),
    "furniture": ("chair", "diningtable", "sofa"),
    "seat": ("chair", "sofa"),
    "found indoors": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
    "glass": ("bottle", "tvmonitor"),
}
"""Attribute -> the classes that have it, in the order of the vocabulary `pictovoc_attributes`."""
MATRIX: UInt8[np.ndarray, "classes attributes"] = np.array(
    [[name in classes for classes in ATTRIBUTES.values()] for name in CLASS_NAMES], dtype=np.uint8
)
"""1 where a class has an attribute."""


def attribute_labels(labels: ArrayLike) -> UInt8[np.ndarray, "rows attributes"]:
    """Labels of the 20 classes, of images or captions, as labels of the attributes."""
    classes = np.asarray(labels) > 0
    require(
        classes.ndim == 2 and classes.shape[1] == len(CLASS_NAMES),
        f"labels must be [rows, {len(CLASS_NAMES)} classes], got shape {classes.shape}.",
    )
    return (classes.astype(np.uint8) @ MATRIX > 0).astype(np.uint8)
