"""Pixels of every mode that photographs have as 8-bit RGB, on white.

Owns how gray of more than 8 bits is scaled. Color profiles are not applied: the published numbers
on MS-COCO and VOC2007 are of pixels as they are, and CLIP learned from such.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, TiffImagePlugin

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of a TIFF."""
ROWS = 256
"""That are scaled at once: a large photograph's values as float64 take eight times its bytes."""


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture in 8-bit RGB, on white where it is transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _gray_of_many_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray_of_many_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, or of floats, where Pillow's own conversion clips it to white."""
    values, bits = np.asarray(image), _tag(image, BITS_PER_SAMPLE, 16)
    signed = _tag(image, SAMPLE_FORMAT, 1) == 2
    if values.dtype == np.int32 and bits == 32 and not signed:
        values = values.view(np.uint32)  # which Pillow reads as if they had a sign
    white = 2.0 ** (bits - signed) - 1 if bits <= 16 else 65535.0
    scaled = to_8_bits(values, 1.0 if image.mode == "F" else white)
    if _tag(image, PHOTOMETRIC, 1) == 0:  # 0 is white, which Pillow heeds for 8 bits alone
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def _tag(image: Image.Image, tag: int, otherwise: int) -> int:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return otherwise
    value = image.tag_v2.get(tag, otherwise)
    return value[0] if isinstance(value, tuple) else value


def to_8_bits(values: np.ndarray, white: float) -> UInt8[np.ndarray, "height width"]:
    """Gray values scaled to 0..255, those below 0 to black, no numbers too.

    Where some are greater than `white`, their scale is not known: the greatest becomes white.

    Args:
        values: of any type.
        white: 65535 for 16 bits, 1 for floats.
    """
    white = max(white, float(np.max(values, where=np.isfinite(values), initial=0)))
    scaled = np.empty(values.shape, dtype=np.uint8)
    for top in range(0, len(values), ROWS):
        rows = np.nan_to_num(values[top : top + ROWS], nan=0.0, neginf=0.0).astype(np.float64)
        scaled[top : top + ROWS] = np.rint(rows.clip(0, white) * (255 / white))
    return scaled
