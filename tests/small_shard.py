"""Rows and images of one small shard, in which one sample failed; and all samples of a store."""

import numpy as np

from t2ipal.store import RunSettings, Sample, Store, committed_shards, read_samples
from t2ipal.store.images import encode_image

PLAN = {"settings": "abc", "num_samples": 3}


def some_rows(num_rows=3, failed=(1,)):
    return [
        Sample(
            key=f"00000-{i:05d}",
            caption_id=f"{i}",
            caption=f"a “dog” number {i}",
            labels=(i, 7),
            k=0,
            attempt=0,
            seed=2**64 - 1 - i,
            status="failed" if i in failed else "ok",
            reason="black image" if i in failed else "",
            settings="abc",
            width=0 if i in failed else 24,
            height=0 if i in failed else 16,
        )
        for i in range(num_rows)
    ]


def some_images(num_rows=3, failed=(1,), image_format="jpeg"):
    images = np.random.default_rng(0).integers(0, 255, (num_rows, 16, 24, 3), dtype=np.uint8)
    encoded = [encode_image(image, image_format, 95, "4:2:0") for image in images]
    return [None if i in failed else data for i, data in enumerate(encoded)]


def some_settings(**synthesis):
    return RunSettings(
        synthesis=synthesis,
        vocabulary="pets",
        class_names=("dog", "cat"),
        prompt_names=("dog", "cat"),
        images_per_shard=8,
    )


def all_samples(store: Store) -> list[Sample]:
    """The samples of every committed shard, in the order of their features."""
    return list(read_samples(store, committed_shards(store)))
