"""What the judge says of images, whoever it is."""

import numpy as np
import pytest

from t2ipal.pictovoc import judge


def test_judged_share(monkeypatch):
    class Judge:
        def probs(self, images):
            probs = np.zeros((3, 20), dtype=np.float32)
            probs[0, [0, 3]], probs[1, 1], probs[2, 0] = 0.9, 0.4, 0.6
            return probs

    monkeypatch.setattr(judge, "load_judge", lambda folder: Judge())
    images = np.zeros((3, 64, 64, 3), np.uint8)
    share, by_class, found = judge.judged_share(None, images, [(0, 1), (1,), (0,)])
    assert share == pytest.approx(2 / 4)
    assert by_class == {"aeroplane": 1.0, "bicycle": 0.0}
    assert np.argwhere(found).tolist() == [[0, 0], [0, 3], [2, 0]]
