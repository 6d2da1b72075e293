"""A photograph of any kind that people have, as upright RGB and as CLIP sees it.

Bytes in, pixels out; what cannot be read is refused with a few words that tell why. An ordinary
RGB photograph's pixels are those of Pillow's `convert("RGB")`.
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from t2ipal.config import require
from t2ipal.features.photograph_kinds import FORMATS, why_unread
from t2ipal.features.photograph_pixels import to_rgb
from t2ipal.features.towers import resize_and_crop

LARGE_PIXELS = 2**26
"""Of a photograph, 268 MB as Pillow keeps RGB. A larger JPEG is decoded at a half, a quarter or an
eighth of its sides; and one large photograph is decoded at a time."""
MAX_PIXELS = 178_956_970
"""Of one that is decoded whole, which Pillow itself keeps to: files may be made to fill a machine's
memory."""
MAX_JPEG_PIXELS = 2**29
"""Of one whose decoder goes row by row."""
MAX_RATIO = 64
"""Of the sides of a photograph that is resized whole; of a longer one its middle is."""
ORIENTATION = 0x0112
"""Tag of EXIF."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what makes it upright; from 5 on width becomes height."""

_one_large = threading.Lock()


@dataclass(frozen=True)
class Photograph:
    """The first picture of a file."""

    image: Image.Image
    """Upright as its EXIF says, in 8-bit RGB, on white; smaller than the file says where that is a
    large JPEG."""
    width: int
    """In pixels, upright, as the file says."""
    height: int


def load_photograph(data: bytes, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """A photograph's bytes as CLIP sees it: shorter side to `size_px` (bicubic), center cropped.

    Raises:
        ValueError: it cannot be read; the message is the reason alone, without a file's name.
    """
    return center_square(open_photograph(data).image, size_px)


def center_square(image: Image.Image, size_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as CLIP sees it."""
    shorter, longer = sorted(image.size)
    if longer > MAX_RATIO * shorter:  # resized whole, it might fill a machine's memory
        left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
        middle = (left, top, left + shorter, top + shorter)
        return np.array(image.resize((size_px, size_px), Image.Resampling.BICUBIC, middle))
    (height, width), (top, left) = resize_and_crop(image.height, image.width, size_px)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


def open_photograph(data: bytes) -> Photograph:
    """The picture in a file's bytes.

    Raises:
        ValueError: it cannot be read; the message is the reason alone.
    """
    require(len(data) > 0, "empty file")
    with _reasons(data):
        opened = _opened(data)
    width, height = opened.size
    require(min(width, height) > 0, f"no pixels: {width} x {height}")
    by_rows = _is_jpeg(opened) and not opened.info.get("progressive")
    _require_pixels(width * height, MAX_JPEG_PIXELS if by_rows else MAX_PIXELS)
    with _one_large if width * height > LARGE_PIXELS else nullcontext(), _reasons(data):
        is_smaller = _shrink(opened)
        opened.load()
        orientation = _orientation(opened)
        image = to_rgb(opened)
        if orientation in TURNS:
            image = image.transpose(TURNS[orientation])
    if not is_smaller:  # some decoders turn it themselves
        width, height = image.size
    elif orientation >= 5:
        width, height = height, width
    return Photograph(image, width, height)


def _opened(data: bytes) -> Image.Image:
    """The file with its size known and no pixel decoded."""
    # Of EXIF that is damaged, or many pixels: whatever matters is an error.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if data.startswith(b"\xff\xd8"):  # `Image.open` refuses large ones, which can be read
        try:
            return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            raise UnidentifiedImageError from error
    Image.init()
    return Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])


def _shrink(opened: Image.Image) -> bool:
    """Lets a large JPEG be decoded at a fraction of its sides; whether it will be."""
    pixels = opened.width * opened.height
    part = next((part for part in (1, 2, 4) if pixels <= LARGE_PIXELS * part**2), 8)
    if part == 1 or not _is_jpeg(opened):
        return False
    opened.draft(None, (opened.width // part, opened.height // part))
    return True


def _is_jpeg(opened: Image.Image) -> bool:
    return isinstance(opened, JpegImagePlugin.JpegImageFile)


def _orientation(opened: Image.Image) -> int:
    # Pillow raises many kinds of errors on EXIF that is damaged; the pixels may be whole.
    with suppress(Exception):
        return int(opened.getexif().get(ORIENTATION, 1))
    return 1


def _require_pixels(pixels: int, most: int) -> None:
    require(pixels <= most, f"too large: more than {most:,} pixels")


@contextmanager
def _reasons(data: bytes) -> Iterator[None]:
    """Turns what a decoder raises into a few words on its bytes."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ValueError(why_unread(data)) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large: more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # a decoder raises what it likes on bytes that it was not made for
        text = " ".join(str(error).split()) or type(error).__name__
        truncated = "truncated" in text.lower()
        raise ValueError("truncated" if truncated else f"damaged: {text}") from error
