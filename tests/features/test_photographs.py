"""Every kind of photograph that people have, made here with Pillow."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from t2ipal.features import photographs
from t2ipal.features.photographs import load_photograph, open_photograph
from t2ipal.features.towers import resize_and_crop

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco" / "val2017"
needs_coco = pytest.mark.skipif(not COCO.is_dir(), reason=f"no MS-COCO data in {COCO}")
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(data):
    return np.asarray(open_photograph(data).image).tolist()


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
    assert open_photograph(encoded(image, "JPEG", exif=b"Exif\0\0garbage")).image.size == (4, 2)


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
        image = open_photograph(encoded(Image.new("CMYK", (8, 8), ink), "JPEG")).image
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_of_several(image_format):
    frames = [Image.new("RGB", (2, 2), color) for color in (RED, BLUE)]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    seen = np.array(pixels(data))
    assert seen.shape == (2, 2, 3) and np.abs(seen - RED).max() <= 2


def test_what_cannot_be_read_says_why():
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
    with pytest.raises(ValueError, match="too large: more than 178,956,970 pixels"):
        open_photograph(encoded(Image.new("1", (15_000, 15_000))))
    with pytest.raises(ValueError):  # for which Pillow would start Ghostscript
        open_photograph(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


@pytest.mark.parametrize("size", [(1, 1), (1, 30_001), (30_001, 1), (3, 501), (805, 5)])
def test_the_middle_of_a_long_photograph(size):
    """Resized whole, one of 1 x 30,001 pixels would have 1,500 megapixels."""
    image = Image.new("RGB", size, BLUE)
    image.putpixel((size[0] // 2, size[1] // 2), RED)
    data = encoded(image)
    assert load_photograph(data, 224)[112, 112].tolist() == [*RED]
    difference = load_photograph(data, 16).astype(int) - plain(data, 16)
    assert np.abs(difference).max() <= 1


def scene(width, height):
    """Smooth colors, as a photograph has."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("pixels", "side"), [(60_800, 304), (20_000, 152), (4_000, 76), (10, 38)])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_sides(monkeypatch, pixels, side, progressive):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(scene(304, 200), "JPEG", quality=95, progressive=progressive, exif=exif)
    whole = load_photograph(data, 16)
    monkeypatch.setattr(photographs, "LARGE_PIXELS", pixels)
    photograph = open_photograph(data)
    assert (photograph.width, photograph.height) == (200, 304)
    assert photograph.image.height == side
    assert np.abs(load_photograph(data, 16).astype(int) - whole).mean() < 2


def test_larger_ones_than_pillow_takes(monkeypatch):
    """As from a telephone of 200 megapixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    monkeypatch.setattr(photographs, "MAX_PIXELS", 2_000)
    monkeypatch.setattr(photographs, "LARGE_PIXELS", 1_000)
    image = scene(80, 60)
    assert open_photograph(encoded(image, "JPEG")).image.size == (20, 15)
    cases = [("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("TIFF", {})]
    for image_format, options in cases:
        with pytest.raises(ValueError, match=r"^too large: more than 2,000 pixels$"):
            open_photograph(encoded(image, image_format, **options))
    monkeypatch.setattr(photographs, "MAX_JPEG_PIXELS", 4_000)
    with pytest.raises(ValueError, match=r"^too large: more than 4,000 pixels$"):
        open_photograph(encoded(image, "JPEG"))


def test_the_size_of_a_file_is_told():
    for image_format in ("JPEG", "PNG", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = 8
        photograph = open_photograph(encoded(scene(30, 20), image_format, exif=exif))
        assert (photograph.width, photograph.height) == photograph.image.size == (20, 30)


def test_gray_of_16_bits_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 3
    gray = Image.fromarray(np.array([[0, 65535]], np.uint16))
    for image_format in ("PNG", "TIFF"):
        assert pixels(encoded(gray, image_format, exif=exif)) == [[[*WHITE], [0] * 3]]


def test_color_profiles_are_not_applied():
    """As CLIP was trained, and the published numbers were measured."""
    image = Image.new("RGB", (1, 1), (200, 30, 30))
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes(), b"none"):
        assert pixels(encoded(image, icc_profile=profile)) == [[[200, 30, 30]]]


def test_every_beginning_of_a_file_is_a_reason_or_a_picture():
    """A decoder may raise anything on what it was not made for; none of it comes through."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        data = encoded(Image.fromarray(noise), kind)
        for end in range(0, len(data), 3):
            try:
                assert open_photograph(data[:end]).image.mode == "RGB"
            except ValueError as error:
                assert str(error)
