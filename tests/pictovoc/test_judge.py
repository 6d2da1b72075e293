"""What the judge says of images, whoever it is."""

import numpy as np
import pytest
import torch

from t2ipal.pictovoc import judge

FOUND = np.zeros((3, 20), dtype=bool)
FOUND[0, [0, 3]] = FOUND[2, 0] = True
LABELS = [(0, 1), (1,), (0,)]


def test_found_share():
    share, by_class = judge.found_share(FOUND, LABELS)
    assert share == pytest.approx(2 / 4)
    assert by_class == {"aeroplane": 1.0, "bicycle": 0.0}


def test_judged_share(monkeypatch):
    class Judge:
        def probs(self, images):
            return np.where(FOUND, 0.6, 0.4)

    monkeypatch.setattr(judge, "load_judge", lambda folder: Judge())
    images = np.zeros((3, 64, 64, 3), np.uint8)
    share, by_class, found = judge.judged_share(None, images, LABELS)
    assert (share, by_class) == judge.found_share(FOUND, LABELS)
    assert np.array_equal(found, FOUND)


def test_each_image_is_judged_by_itself_at_the_size_of_the_scenes():
    torch.manual_seed(0)
    model = judge.Judge().eval()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    large = rng.integers(0, 256, (96, 64, 3), dtype=np.uint8)
    together = model.probs([small, large, small])
    assert np.allclose(together[0], together[2]) and np.allclose(together[:1], model.probs([small]))
    pixels = torch.from_numpy(large).permute(2, 0, 1)[None].float() / 127.5 - 1
    scaled = torch.nn.functional.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
    with torch.no_grad():
        assert np.allclose(together[1], model(scaled).sigmoid()[0].numpy(), atol=1e-6)
