"""A hash of what an image looks like, to find the same picture again."""

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn import functional


def perceptual_hash(images: UInt8[Tensor, "batch height width 3"]) -> Int[Tensor, " batch"]:
    """56 bits that survive scaling and JPEG: is each of 8 x 8 places darker than the next one?

    Known as dHash; as numbers below 2^56.
    """
    gray = images.float().mean(dim=3).unsqueeze(1)
    small = functional.adaptive_avg_pool2d(gray, (8, 8))[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).long()
    return (bits << torch.arange(bits.shape[1])).sum(dim=1)
