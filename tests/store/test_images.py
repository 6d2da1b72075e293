"""Images as bytes, in each format."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from t2ipal.store.images import ENDINGS, decode_image, encode_image


@pytest.mark.parametrize("image_format", ENDINGS)
def test_an_image_has_the_same_bytes_every_time(image_format):
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8))
    image = np.array(small.resize((96, 64), Image.Resampling.BICUBIC))
    data = encode_image(image, image_format, 90, "4:2:0")
    assert Image.open(io.BytesIO(data)).format == image_format.upper()
    with ThreadPoolExecutor(4) as pool:  # as two threads of a worker do
        copies = pool.map(lambda _: encode_image(image, image_format, 90, "4:2:0"), range(8))
    assert {*copies} == {data}
    difference = np.abs(decode_image(data).astype(int) - image)
    if image_format == "png":
        assert difference.max() == 0
        assert encode_image(image, "png", 1, "4:2:0") == data  # it has no quality
    else:
        assert 0 < difference.mean() < 3
        assert len(encode_image(image, image_format, 50, "4:2:0")) < len(data)


def test_what_no_run_stores_is_not_opened(monkeypatch):
    """Pillow knows formats that start programs, and takes any size that a header tells."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(postscript)
    bomb = encode_image(np.zeros((80, 80, 3), np.uint8), "png", 1, "4:2:0")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000)
    with pytest.raises(ValueError, match="The image is too large: Image size"):
        decode_image(bomb)


def test_colors_of_a_jpeg():
    """Thin lines in color come out better the less their color is subsampled."""
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, ::2, 0] = image[::2, :, 2] = 255

    def error(subsampling):
        data = encode_image(image, "jpeg", 95, subsampling)
        return np.abs(decode_image(data).astype(int) - image).mean()

    assert error("4:2:0") > error("4:2:2") > 2 * error("4:4:4")
