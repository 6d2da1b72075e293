"""An image as the bytes that are stored, and back; owns the formats, knows nothing of stores."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ENDINGS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Format -> ending of its files, as webdataset and open_clip look for them."""
RGBImage = UInt8[np.ndarray, "height width 3"]


def encode_image(image: RGBImage, image_format: str, quality: int, subsampling: str) -> bytes:
    """One image as bytes, the same ones for the same pixels and the same Pillow version.

    Args:
        image: what to encode.
        image_format: jpeg, png (every pixel is kept) or webp (lossy).
        quality: of jpeg and webp, 1 to 100.
        subsampling: of jpeg's colors; webp's are always 4:2:0, png's are whole.
    """
    options = {
        "jpeg": {"quality": quality, "subsampling": subsampling},
        "png": {"compress_level": 6},
        "webp": {"quality": quality, "method": 4},
    }
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format, **options[image_format])
    return buffer.getvalue()


def decode_image(data: bytes) -> RGBImage:
    """The pixels of what `encode_image` gave.

    Raises:
        OSError: it is of no format that is stored; Pillow starts programs for some of its others.
        ValueError: it has more pixels than Pillow reads.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=[name.upper() for name in ENDINGS])
        return np.array(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise ValueError(f"The image is too large: {error}") from error
