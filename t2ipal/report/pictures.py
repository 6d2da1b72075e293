"""Images as data URIs, and heatmaps laid over them."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from t2ipal.config import require

SHOWN_PX = 224
"""Longest side of an embedded image: sharp at the 110 to 180 CSS pixels that the page gives it."""

_MAGMA = np.array(
    [
        [0, 0, 4],
        [28, 16, 68],
        [79, 18, 123],
        [129, 37, 129],
        [181, 54, 122],
        [229, 80, 100],
        [251, 135, 97],
        [254, 194, 135],
        [252, 253, 191],
    ]
)
"""Matplotlib's magma at nine even steps."""


def data_uri(image: UInt8[np.ndarray, "height width 3"]) -> str:
    """The image as a JPEG data URI, as `as_shown` scales it."""
    buffer = io.BytesIO()
    _scaled(image).save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_shown(
    image: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """The image scaled smoothly so that its longest side is `SHOWN_PX`."""
    return np.array(_scaled(image))


def heat_color(share: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Magma at `share` in 0 to 1: red, green and blue in 0 to 255."""
    steps = np.linspace(0, 1, len(_MAGMA))
    return np.stack([np.interp(share, steps, channel) for channel in _MAGMA.T], axis=-1)


def overlay(
    image: UInt8[np.ndarray, "height width 3"], heatmap: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """The heatmap, from its lowest to its highest value, in color over the image in gray."""
    scaled = _scaled(image)
    heat = np.asarray(heatmap, dtype=np.float32)
    require(
        heat.ndim == 2 and bool(np.isfinite(heat).all()),
        f"A heatmap must be finite numbers [rows, columns], got shape {heat.shape}.",
    )
    span = float(heat.max() - heat.min())
    heat = (heat - heat.min()) / span if span > 0 else np.zeros_like(heat)
    smooth = np.asarray(Image.fromarray(heat).resize(scaled.size, Image.Resampling.BICUBIC))
    smooth = np.clip(smooth, 0, 1)
    gray = np.asarray(scaled.convert("L"), dtype=np.float32)[..., None]
    # Where heat is low the picture stays readable; where it is high the color speaks.
    weight = 0.3 + 0.42 * smooth[..., None]
    mixed = (1 - weight) * gray + weight * heat_color(smooth)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _scaled(image: UInt8[np.ndarray, "height width 3"]) -> Image.Image:
    image = np.asarray(image)
    require(
        image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0,
        f"An image must be uint8 [height, width, 3], got {image.dtype} {list(image.shape)}.",
    )
    picture = Image.fromarray(image)
    factor = SHOWN_PX / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
