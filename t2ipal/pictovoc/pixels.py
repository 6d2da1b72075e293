"""Pixels of scenes as the models take them, and back."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_pixels(images: UInt8[np.ndarray, "batch side side 3"]) -> Float[Tensor, "batch 3 side side"]:
    """Stable Diffusion's range: -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Float[Tensor, "batch 3 side side"]) -> UInt8[np.ndarray, "batch side side 3"]:
    """Back from -1..1 to uint8 RGB."""
    scaled = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
