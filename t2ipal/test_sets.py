"""Features of a test set: the embedded world's scenes, or photographs in a folder of the user's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from t2ipal.benchmarks import load_test_set
from t2ipal.config import require
from t2ipal.extraction import batched, image_set, load_photograph
from t2ipal.features import Backbone, FeatureSet
from t2ipal.pictovoc import checks
from t2ipal.pictovoc.scenes import CLASS_NAMES, TEST_SCENES


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


def test_set_features(
    name: str, root: str | None, backbone: Backbone, num_previews: int = 64
) -> TestFeatures:
    """Features and labels of `pictovoc`, or of a benchmark's photographs under `root`.

    Raises:
        ValueError: an unknown test set, or a real one without `root`.
        FileNotFoundError: `root` does not hold it.
    """
    if name == "pictovoc":
        images, _ = checks.test_scenes(TEST_SCENES)
        features = checks.test_features(backbone)
        return TestFeatures(name, CLASS_NAMES, features, None, list(images[:num_previews]))
    require(root is not None, f"Test set {name} needs its folder: give --test-root.")
    photographs = load_test_set(name, str(root))
    size = backbone.image_size_px
    previews = [load_photograph(path, size) for path in photographs.image_paths[:num_previews]]
    parts = [
        image_set(
            backbone, [load_photograph(path, size) for path in paths], torch.zeros(len(paths), 1)
        )
        for paths in batched(map(Path, photographs.image_paths), 512)
    ]
    labels = torch.from_numpy(photographs.labels).float()
    pooled = torch.cat([part.pooled_features for part in parts if part.pooled_features is not None])
    joined = [
        torch.cat([getattr(p, n) for p in parts]) for n in ("global_features", "local_features")
    ]
    features = FeatureSet(joined[0], joined[1], None, labels, pooled)
    difficult = photographs.difficult.astype(bool)
    return TestFeatures(
        name, photographs.class_names, features, difficult if difficult.any() else None, previews
    )
