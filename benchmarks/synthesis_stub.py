"""A generator that only holds its device, for parts a and b of benchmarks/synthesis.py.

Owns how long it holds it and what its images look like; needs no Ray and no store.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from t2ipal.diffusion.config import SynthesisConfig

Batch = dict[str, Any]
GENERATORS = ("stub", "stub without launch cost", "embedded")


@dataclass(frozen=True)
class PipelineSizes:
    """How much parts a and b make."""

    num_images: int = 512
    """Images of the whole pipeline and of the bare loop in every round: enough that the upload of
    the last shard, which nothing hides, is small."""
    num_obvious: int = 24
    """Images of the obvious pipeline in every round; its rate does not depend on their number."""
    images_per_shard: int = 64
    """Images of one shard."""
    generators: tuple[str, ...] = GENERATORS
    """Generators to measure with: two that only hold their device, and the small Stable
    Diffusion."""
    image_seconds: float = 0.04
    """Seconds that the stub's device needs for each image. With launch_seconds: 0.37 s for an image
    alone and 0.061 s an image for 16, as SD1.5 in 20 guided steps on an H100 (stock diffusers takes
    54 steps a second at batch 1, where launching kernels is what takes long; batches, graphs and
    fusion together bring 9 times as much)."""
    launch_seconds: float = 0.33
    """Seconds of every call of the stub, however small its batch."""
    stub_batch_size: int = 16
    """Images of the stub's micro-batches."""
    stub_size_px: int = 512
    """Side of the stub's images in pixels."""


class HeldDevice:
    """A generator that holds its device as a GPU would: the processor is free meanwhile."""

    def __init__(self, config: SynthesisConfig, launch_seconds: float, image_seconds: float):
        self.launch_seconds, self.image_seconds = launch_seconds, image_seconds
        self.image = photograph(config.image_size_px or 64)

    def __call__(self, batch: Batch) -> Batch:
        """As `Synthesizer`, the same image for all."""
        count = len(batch["k"])
        time.sleep(self.launch_seconds + self.image_seconds * count)
        return {
            **batch,
            "image": np.repeat(self.image[None], count, axis=0),
            "seed": np.zeros(count, dtype=np.uint64),
            "status": np.full(count, "ok"),
            "reason": np.full(count, ""),
        }


def photograph(side: int) -> np.ndarray:
    """Soft shapes with grain: as JPEG and as PNG about as large as a generated image."""
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    soft = np.asarray(shapes.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
    grain = 8 * rng.standard_normal((side, side, 3))
    return (soft + grain).round().clip(0, 255).astype(np.uint8)
