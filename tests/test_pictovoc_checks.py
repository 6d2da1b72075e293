import numpy as np
import pytest
from tiny_clip import write_tiny_clip

from t2ipal.captions import load_vocabulary
from t2ipal.features import BackboneConfig, load_backbone
from t2ipal.pictovoc import checks
from t2ipal.pictovoc.rendering import RenderingSynthesizer
from t2ipal.pictovoc.scenes import CLASS_NAMES
from t2ipal.synthesis import SynthesisConfig


def test_judged_share(monkeypatch):
    class Judge:
        def probs(self, images):
            probs = np.zeros((3, 20), dtype=np.float32)
            probs[0, [0, 3]], probs[1, 1], probs[2, 0] = 0.9, 0.4, 0.6
            return probs

    monkeypatch.setattr(checks, "load_judge", lambda folder: Judge())
    images = np.zeros((3, 64, 64, 3), np.uint8)
    share, by_class, found = checks.judged_share(None, images, [(0, 1), (1,), (0,)])
    assert share == pytest.approx(2 / 4)
    assert by_class == {"aeroplane": 1.0, "bicycle": 0.0}
    assert np.argwhere(found).tolist() == [[0, 0], [0, 3], [2, 0]]


def test_names_are_the_vocabularys():
    vocabulary = load_vocabulary("voc2007")
    assert vocabulary.class_names == CLASS_NAMES
    assert vocabulary.prompt_names == checks.PROMPT_NAMES


def test_zero_shot_scores(tmp_path):
    backbone = load_backbone(BackboneConfig(model=str(write_tiny_clip(tmp_path))))
    images = checks.test_features(backbone, 4)
    scores = checks.zero_shot_scores(backbone, images)
    text = backbone.encode_texts(["a photo of a tv monitor."]).global_features[0]
    assert scores.shape == (4, 20)
    assert scores[2, 19] == pytest.approx(float(images.pooled_features[2] @ text), abs=1e-5)


def test_rendering_draws_what_a_caption_names():
    render = RenderingSynthesizer(SynthesisConfig(seed=4))
    batch = {
        "caption_id": np.array(["a", "b", "a"]),
        "caption": np.array(["a dog on a boat", "a red house", "a dog on a boat"]),
        "k": np.array([0, 0, 1]),
    }
    made, again = render(batch), render(batch)
    assert made["status"].tolist() == ["ok", "failed", "ok"]
    assert made["reason"][1] == "names no class of the world"
    assert made["image"].shape == (3, 64, 64, 3) and made["image"].dtype == np.uint8
    assert np.array_equal(made["image"], again["image"])
    assert not np.array_equal(made["image"][0], made["image"][2])
    assert len(set(made["seed"].tolist())) == 3
