"""Augmented views of an image, for methods that learn from few labelled ones.

DualCoOp's cutout and RandAugment, and a flip. A view depends on the image's pixels, the seed and
the view's number alone: not on its neighbors, its row or the machine.
"""

import functools
import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from t2ipal.torchvision_repair import repair_torchvision

CUTOUT = 0.5
"""Side of the square that is cut out, as a share of the image's; DualCoOp's."""


def augmented(
    image: UInt8[np.ndarray, "height width 3"], seed: int, view: int
) -> UInt8[np.ndarray, "height width 3"]:
    """One view of an image, of the same size; view 0 is the image as it is."""
    if view == 0:
        return image
    named = f"{seed} {view} ".encode() + np.ascontiguousarray(image).tobytes()
    number = int.from_bytes(hashlib.sha256(named).digest()[:8], "little")
    # The transforms draw from torch's own generator, which is put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)
        pixels = torch.tensor(image).permute(2, 0, 1)
        changed = _transforms()(pixels)
    return np.ascontiguousarray(changed.permute(1, 2, 0).numpy())


@functools.cache
def _transforms() -> Any:
    repair_torchvision()
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomHorizontalFlip(), v2.Lambda(_cut_out), v2.RandAugment()])


def _cut_out(pixels: UInt8[Tensor, "3 height width"]) -> UInt8[Tensor, "3 height width"]:
    """With a square of one color, in part outside where it is at the edge."""
    bounds = []
    for side in pixels.shape[1:]:
        half, center = int(CUTOUT * side / 2 + 0.5), int(torch.randint(side, ()))
        bounds.append(slice(max(center - half, 0), center + half))
    covered = pixels.clone()
    covered[:, bounds[0], bounds[1]] = torch.randint(256, (3, 1, 1), dtype=torch.uint8)
    return covered
