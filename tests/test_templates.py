import fake_clip
import pytest
import torch

from t2ipal.features import FeatureSet
from t2ipal.methods import T2IPAL
from t2ipal.templates import template_captions, with_extra_texts
from t2ipal.training import TrainingConfig, fit


def test_template_captions():
    names, templates = ("bird", "tv monitor"), ("a photo of a {}.", "{}")
    texts, labels = template_captions(names, templates)
    assert texts == ["a photo of a bird.", "a photo of a tv monitor.", "bird", "tv monitor"]
    assert labels.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_extra_texts_have_no_images():
    data = fake_clip.training_features()
    texts = data.texts.rows(slice(0, 5))
    joined = with_extra_texts(data, texts)
    assert len(joined.texts) == 45
    assert (joined.image_of_caption[40:] == -1).all()
    assert torch.equal(joined.image_of_caption[:40], data.image_of_caption)
    assert torch.equal(joined.texts.labels[40:], texts.labels)
    method = T2IPAL(fake_clip.config(), fake_clip.FakeClip())
    training = TrainingConfig(num_epochs=1)
    assert len(fit(method, joined, training).history) == 1
    longer = with_extra_texts(data, fake_clip.texts(7, locations=9))
    assert longer.texts.local_features.shape[:2] == (47, 9)
    assert not longer.texts.mask[:40, 7:].any()
    assert longer.texts.mask[40:, 7:].any()
    bare = FeatureSet(texts.global_features, texts.local_features, None, texts.labels)
    with pytest.raises(ValueError, match="need a mask"):
        with_extra_texts(data, bare)
