"""Gray of more than 8 bits, as Pillow writes it and as others do."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from t2ipal.features.photograph_pixels import to_8_bits
from t2ipal.features.photographs import load_photograph, open_photograph

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""Sample formats of a TIFF."""


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def grays(data):
    pixels = np.asarray(open_photograph(data).image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].ravel().tolist()


def tiff(values, sample_format=UNSIGNED, bits=None, photometric=1):
    """An uncompressed gray TIFF of one row, in the values' own byte order."""
    end = "<" if values.dtype.newbyteorder("<") == values.dtype else ">"
    entries = [
        (256, 4, len(values)), (257, 4, 1), (258, 3, bits or 8 * values.itemsize), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, values.nbytes),
        (339, 3, sample_format),
    ]  # fmt: skip
    data = {"<": b"II*\0", ">": b"MM\0*"}[end] + struct.pack(end + "I", 8 + values.nbytes)
    data += values.tobytes() + struct.pack(end + "H", len(entries))
    for tag, kind, value in entries:
        value = struct.pack(end + ("HH" if kind == 3 else "I"), *([value, 0][: 5 - kind]))
        data += struct.pack(end + "HHI", tag, kind, 1) + value
    return data + struct.pack(end + "I", 0)


def chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def png(values, color, channels, transparent=b""):
    """A PNG of 16 bits and one row, as Pillow does not write it."""
    head = struct.pack(">IIBBBBB", len(values) // channels, 1, 16, color, 0, 0, 0)
    body = zlib.compress(b"\0" + np.array(values, ">u2").tobytes())
    extra = chunk(b"tRNS", transparent) if transparent else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra
    return start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(image_format):
    gray = np.array([[0, 257 * 100, 65535, 300]], dtype=np.uint16)
    data = encoded(Image.fromarray(gray), image_format)
    assert Image.open(io.BytesIO(data)).mode in ("I;16", "I")
    assert grays(data) == [0, 100, 255, 1]


def test_a_ramp_from_black_to_white_is_one():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype("uint16")
    seen = load_photograph(encoded(Image.fromarray(ramp)), 64)[..., 0]
    assert np.abs(seen - ramp / 257).max() <= 0.5


def test_a_dark_16_bit_photograph_stays_dark():
    gray = np.array([[0, 255, 514]], dtype=np.uint16)
    assert grays(encoded(Image.fromarray(gray))) == [0, 1, 2]


@pytest.mark.parametrize("end", "<>")
@pytest.mark.parametrize(
    ("kind", "sample_format", "values", "expected"),
    [
        ("u2", UNSIGNED, [0, 32896, 65535], [0, 128, 255]),
        ("i2", SIGNED, [-5, 0, 16384, 32767], [0, 0, 128, 255]),
        ("i4", SIGNED, [0, 1000, 100_000, -5], [0, 3, 255, 0]),
        ("i4", SIGNED, [0, 32896, 65535], [0, 128, 255]),
        ("i4", SIGNED, [0, 2570], [0, 10]),
        ("f4", FLOAT, [0, 0.5, 1, -1, np.nan, -np.inf, np.inf], [0, 128, 255, 0, 0, 0, 255]),
        ("f4", FLOAT, [0, 10, 20], [0, 128, 255]),
        ("f4", FLOAT, [0, 0.25], [0, 64]),
        ("f4", FLOAT, [np.nan, np.nan], [0, 0]),
    ],
)
def test_what_a_tiff_holds(end, kind, sample_format, values, expected):
    assert grays(tiff(np.array(values, end + kind), sample_format)) == expected


def test_what_pillow_alone_reads_wrong():
    high = np.array([0, 2**31, 2**32 - 1], "<u4")
    assert grays(tiff(high)) == [0, 128, 255]  # it gives them a sign
    dark = np.array([0, 32768, 65535], "<u2")
    assert grays(tiff(dark, photometric=0)) == [255, 127, 0]  # 0 is white
    packed = np.array([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00], np.uint8)  # 0, 4095, 2048, 0
    data = tiff(packed, bits=12).replace(
        struct.pack("<HHII", 256, 4, 1, 6), struct.pack("<HHII", 256, 4, 1, 4)
    )
    assert grays(data) == [0, 255, 128, 0]


def test_transparent_gray_of_16_bits_is_white():
    assert grays(png([0, 32768, 65535], 0, 1, struct.pack(">H", 32768))) == [0, 255, 255]
    assert grays(png([0, 65535, 32768, 0, 257, 65535], 4, 2)) == [0, 255, 1]


def test_colors_of_16_bits():
    assert grays(png([0, 0, 0, *[32896] * 3, *[65535] * 3], 2, 3)) == [0, 128, 255]
    assert grays(png([0, 0, 0, 65535, 0, 0, 0, 0], 6, 4)) == [0, 255]


def test_many_rows_are_scaled_as_one():
    values = np.arange(700 * 3, dtype=np.int32).reshape(700, 3)
    assert np.array_equal(to_8_bits(values, 1.0), np.rint(values * (255 / 2099)).astype(np.uint8))
