"""What sets of images show: what the judge finds of the named classes, and how much a caption's
images differ. The judge knows the embedded world alone.
"""

import json
from typing import Any

import numpy as np
from jaxtyping import Bool

from t2ipal.config import fingerprint
from t2ipal.experiments.rows import Figure
from t2ipal.experiments.sources import Captions, Data
from t2ipal.features.sets import TrainingFeatures
from t2ipal.pictovoc import WEIGHTS_DIR
from t2ipal.pictovoc.judge import found_share, judged_share
from t2ipal.store import Sample, Store, json_bytes, read_images, read_manifest


def judged(store: Store) -> tuple[list[Sample], Bool[np.ndarray, "images classes"]]:
    """Rows of all images of a run, and the classes that the judge finds in each."""
    shards = [marker.shard for marker in read_manifest(store).shards]
    pairs = [pair for shard in shards for pair in read_images(store, shard)]
    samples, images = [sample for sample, _ in pairs], np.stack([image for _, image in pairs])
    return samples, judged_share(WEIGHTS_DIR / "judge", images, named(samples))[-1]


def named(samples: list[Sample]) -> list[tuple[int, ...]]:
    """The classes that each image's caption names."""
    return [sample.labels for sample in samples]


def variance_within(data: TrainingFeatures, count: int) -> float:
    """Share of the variance of CLIP's features that lies between the images of one caption.

    Of both the unbiased estimate: few images of a caption would otherwise seem more alike.

    Args:
        data: a run's captions and images.
        count: of each caption's images, the first ones, at least two; captions that lack one are
            left out.
    """
    assert data.images is not None
    rows = data.image_of_caption[:, :count]
    features = data.images.column("global_features")[rows[(rows >= 0).all(dim=1)]]
    return float(features.var(dim=1).mean(dim=0).sum() / features.flatten(0, 1).var(dim=0).sum())


def _share(data: Data, name: str) -> float:
    """Of the named classes of a set, those that the judge finds; kept, since looking takes long."""
    key = f"judged/{fingerprint(data.described['sets'][name])}.json"
    if not data.store.exists(key):
        samples, found = judged(data.sets[name])
        share, _ = found_share(found, named(samples))
        data.store.write(key, json_bytes({"set": name, "share": share}))
    return json.loads(data.store.read(key))["share"]


def images_shown(item: Figure, contents: Any) -> list[dict[str, Any]]:
    """A card for each set of images."""
    data: Data = contents.data
    if contents.config.on != "pictovoc":
        return []
    cards = []
    for source in item.sources:
        assert isinstance(source, Captions)
        (name,) = source.sets
        lines = [f"the judge finds {_share(data, name):.0%} of the named classes"]
        count = min(data.images[name], contents.points.main_images)
        if count > 1:
            within = variance_within(data.training(source, 0, "main"), count)
            lines.append(f"{within:.1%} of the variance of CLIP's features lies within a caption")
        cards.append({"title": f"{name}, {data.images[name]} a caption", "lines": lines})
    return cards
