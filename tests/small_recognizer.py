"""Recognizers of a tiny CLIP as jobs/train.py leaves them, untrained; and photographs for them."""

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_clip import VIT, write_tiny_clip

from t2ipal.config import override
from t2ipal.features.backbone import load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.store import Store
from t2ipal.training.recipes import recipe

NAMES = ("bird", "boat", "pottedplant", "dog")


def write_recognizers(store: Store, clip: Path, num_seeds: int = 2, names=NAMES) -> None:
    """Writes t2ipal-seed0 and so on; and the CLIP to a local folder where it is not there yet."""
    if not clip.exists():
        write_tiny_clip(clip, VIT)
    backbone = load_backbone(BackboneConfig(model=str(clip)))
    start = recipe("t2ipal", "pictovoc", names, names)
    config = override(start, {"method.context_length": 4}).method
    for seed in range(num_seeds):
        config.build(backbone, seed).export().save(store, f"t2ipal-seed{seed}")


def write_photographs(store: Store, count: int = 7) -> None:
    """Noise of several sizes, and two files that are no photographs whatever they are called."""
    import io

    rng = np.random.default_rng(0)
    for index in range(count):
        size = (40 + 7 * index, 60, 3) if index % 2 else (50, 33 + index, 3)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(buffer, "PNG")
        store.write(f"{index}.png", buffer.getvalue())
    store.write("3-broken.JPG", b"no picture")
    store.write("notes.txt", b"none at all")
    store.write("below/deep.png", store.read("0.png"))
