"""Every kind of photograph that people have, made here with Pillow."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2ipal.features import photographs
from t2ipal.features.photographs import is_photograph, load_photograph, open_photograph
from t2ipal.features.towers import resize_and_crop

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco" / "val2017"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(data):
    return np.asarray(open_photograph(data)).tolist()


def plain(data, size_px):
    """What Pillow alone makes of an ordinary photograph."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    (height, width), (top, left) = resize_and_crop(image.height, image.width, size_px)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


@needs_coco
@pytest.mark.parametrize("size_px", [64, 224])
def test_ordinary_photographs_are_as_they_were(size_px):
    for path in sorted(COCO.glob("*.jpg")):
        data = path.read_bytes()
        assert np.array_equal(load_photograph(data, size_px), plain(data, size_px)), path


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_a_drawn_photograph_is_as_it_was(image_format):
    noise = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    assert np.array_equal(load_photograph(data, 32), plain(data, 32))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[RED, BLUE]]),
        (2, [[BLUE, RED]]),
        (3, [[BLUE, RED]]),
        (4, [[RED, BLUE]]),
        (5, [[RED], [BLUE]]),
        (6, [[RED], [BLUE]]),
        (7, [[BLUE], [RED]]),
        (8, [[BLUE], [RED]]),
    ],
)
def test_exif_turns_it_upright(image_format, orientation, expected):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(image, image_format, exif=exif, **options)
    assert pixels(data) == [[list(color) for color in row] for row in expected]


def test_damaged_exif_leaves_the_pixels():
    image = Image.new("RGB", (4, 2), RED)
    assert open_photograph(encoded(image, "JPEG", exif=b"Exif\0\0garbage")).size == (4, 2)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(image_format):
    gray = np.array([[0, 257 * 100, 65535, 300]], dtype=np.uint16)
    data = encoded(Image.fromarray(gray), image_format)
    assert Image.open(io.BytesIO(data)).mode in ("I;16", "I")
    assert pixels(data) == [[[v] * 3 for v in (0, 100, 255, 1)]]


def test_a_dark_16_bit_photograph_stays_dark():
    gray = np.array([[0, 255, 514]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(gray))) == [[[0] * 3, [1] * 3, [2] * 3]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1000, 100_000, -5]], np.int32), (0, 3, 255, 0)),
        (np.array([[0, 0.5, 1, -1, np.nan]], np.float32), (0, 128, 255, 0, 0)),
        (np.array([[0, 10, 20]], np.float32), (0, 128, 255)),
    ],
)
def test_more_than_16_bits(values, expected):
    data = encoded(Image.fromarray(values), "TIFF")
    assert pixels(data) == [[[v] * 3 for v in expected]]


def test_transparency_is_on_white():
    rgba = Image.new("RGBA", (3, 1), (*RED, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 51))
    assert pixels(encoded(rgba)) == [[[*RED], [*WHITE], [204] * 3]]
    gray = Image.new("LA", (2, 1), (10, 255))
    gray.putpixel((1, 0), (10, 0))
    assert pixels(encoded(gray)) == [[[10] * 3, [*WHITE]]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*RED, *BLUE])
    palette.putpixel((1, 0), 1)
    assert pixels(encoded(palette)) == [[[*RED], [*BLUE]]]
    assert pixels(encoded(palette, transparency=1)) == [[[*RED], [*WHITE]]]
    assert pixels(encoded(palette, "GIF", transparency=0)) == [[[*WHITE], [*BLUE]]]
    keyed = Image.new("RGB", (2, 1), RED)
    keyed.putpixel((1, 0), BLUE)
    assert pixels(encoded(keyed, transparency=BLUE)) == [[[*RED], [*WHITE]]]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_and_black_and_white(mode):
    assert pixels(encoded(Image.new(mode, (1, 1), 255))) == [[[*WHITE]]]


def test_cmyk():
    for ink, expected in (((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED)):
        image = open_photograph(encoded(Image.new("CMYK", (8, 8), ink), "JPEG"))
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(image_format):
    frames = [Image.new("RGB", (2, 2), color) for color in (RED, BLUE)]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert pixels(data) == [[[*RED]] * 2] * 2


def test_what_cannot_be_read_says_why(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg, png = (encoded(Image.fromarray(noise), kind) for kind in ("JPEG", "PNG"))
    flipped = png[:60] + bytes([png[60] ^ 255]) + png[61:]
    cases = {
        "empty file": b"",
        "not an image": b"hello, I am a text",
        "truncated": jpeg[: len(jpeg) // 2],
        "damaged: ": flipped,
        "not an image|no pixels|damaged": png[:16] + struct.pack(">I", 0) + png[20:],
    }
    for reason, data in cases.items():
        with pytest.raises(ValueError, match=f"^({reason})"):
            open_photograph(data)
    thin = encoded(Image.new("L", (1, 30_000)))
    with pytest.raises(ValueError, match="too long and thin: 1 x 30000 pixels"):
        load_photograph(thin, 224)
    assert load_photograph(thin, 8).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="too large: more than 178,956,970 pixels"):
        open_photograph(encoded(Image.new("1", (15_000, 15_000))))


def test_every_beginning_of_a_file_is_a_reason_or_a_picture():
    """A decoder may raise anything on what it was not made for; none of it comes through."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        data = encoded(Image.fromarray(noise), kind)
        for end in range(0, len(data), 3):
            try:
                assert open_photograph(data[:end]).mode == "RGB"
            except ValueError as error:
                assert str(error)


def test_names_of_photographs():
    for name in ("a.jpg", "b/c.JPEG", "d.Tiff", "x.y.webp"):
        assert is_photograph(name), name
    for name in ("a.txt", "jpg", "photos.jpg/notes", "a.jpg.part", "b/._a.jpg", ".png"):
        assert not is_photograph(name), name
    assert photographs.ENDINGS[0] == "jpg"
