"""A photograph of any kind that people have, as upright RGB and as CLIP sees it.

Bytes in, pixels out; what cannot be read is refused with a few words that tell why. An ordinary
RGB photograph's pixels are those of Pillow's `convert("RGB")`. Color profiles are not applied.
"""

import io
from contextlib import suppress

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from t2ipal.config import require
from t2ipal.features.towers import resize_and_crop

ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
"""Of files that are taken for photographs, in any case."""
MAX_PIXELS = 178_956_970
"""Of a photograph, which Pillow itself keeps to, and of one that is resized: 537 MB as RGB. Files
may be made to fill a machine's memory."""
GRAY_STEPS = 65535
"""Of a 16-bit gray value."""


def is_photograph(key: str) -> bool:
    """Whether a file's name ends as one of a photograph does; hidden files are none."""
    name, dot, ending = key.rpartition("/")[2].rpartition(".")
    return bool(dot) and ending.lower() in ENDINGS and not name.startswith(".") and name != ""


def load_photograph(data: bytes, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """A photograph's bytes as CLIP sees it: shorter side to `size_px` (bicubic), center cropped.

    Raises:
        ValueError: it cannot be read; the message is the reason alone, without a file's name.
    """
    return center_square(open_photograph(data), size_px)


def center_square(image: Image.Image, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as CLIP sees it."""
    (height, width), (top, left) = resize_and_crop(image.height, image.width, size_px)
    require(
        height * width <= MAX_PIXELS,
        f"too long and thin: {image.width} x {image.height} pixels",
    )
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


def open_photograph(data: bytes) -> Image.Image:
    """The first picture of a file, upright as its EXIF says, in 8-bit RGB, on white.

    Raises:
        ValueError: it cannot be read; the message is the reason alone.
    """
    require(len(data) > 0, "empty file")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image = _upright(_to_rgb(opened), opened)
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # a decoder raises what it likes on bytes that it was not made for
        text = " ".join(str(error).split()) or type(error).__name__
        reason = "truncated" if "truncated" in text.lower() else f"damaged: {text}"
        raise ValueError(reason) from error
    require(min(image.size) > 0, f"no pixels: {image.width} x {image.height}")
    return image


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    # Pillow raises many kinds of errors on EXIF that is damaged; the pixels may be whole.
    with suppress(Exception):
        if opened.getexif().get(0x0112, 1) != 1:  # Orientation
            return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image), image.mode)).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray, mode: str) -> UInt8[np.ndarray, "height width"]:
    """Gray of more than 8 bits scaled to 0..255, where Pillow's own conversion clips it to white.

    16 bits keep their scale. Values beyond, and floats beyond 0..1, have none that is known: the
    largest one becomes white.
    """
    gray = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    white = float(GRAY_STEPS if mode.startswith("I") else 1)
    return np.rint(gray * (255 / max(white, float(gray.max())))).astype(np.uint8)
