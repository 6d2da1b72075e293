"""Features of a test set: the embedded world's scenes, or photographs in a folder of the user's."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from t2ipal.benchmarks import TEST_SETS, load_test_set
from t2ipal.config import one_of, require
from t2ipal.extraction import image_set, load_photograph
from t2ipal.features import Backbone, FeatureSet
from t2ipal.pictovoc import checks
from t2ipal.pictovoc.worlds import WORLDS, world_scenes


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
    """Features and labels of one of `WORLDS`, or of a benchmark's photographs under `root`.

    Raises:
        ValueError: an unknown test set, or a real one without `root`.
        FileNotFoundError: `root` does not hold it.
    """
    one_of("test set", name, (*WORLDS, *TEST_SETS))
    if name in WORLDS:
        scenes = world_scenes(name)
        features = checks.scene_features(backbone, scenes)
        previews = list(scenes[0][:num_previews])
        return TestFeatures(name, WORLDS[name].class_names, features, None, previews)
    require(root is not None, f"Test set {name} needs its folder: give --test-root.")
    photographs = load_test_set(name, str(root))
    size = max(backbone.image_size_px, backbone.config.local_image_size_px or 0)
    previews = [load_photograph(path, size) for path in photographs.image_paths[:num_previews]]
    features = image_set(
        backbone,
        (load_photograph(path, size) for path in photographs.image_paths),
        torch.from_numpy(photographs.labels).float(),
    )
    difficult = photographs.difficult.astype(bool)
    return TestFeatures(
        name, photographs.class_names, features, difficult if difficult.any() else None, previews
    )
