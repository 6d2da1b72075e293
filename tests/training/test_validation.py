import dataclasses

import pytest
import torch
from fake_clip import training_features

from t2ipal.training.validation import split_captions


def test_split_holds_captions_out_with_all_their_images():
    data = training_features(100, k=3)
    train, validation = split_captions(data, 0.2, seed=0)
    kept = set(train.image_of_caption[train.image_of_caption >= 0].tolist())
    all_rows = set(data.image_of_caption[data.image_of_caption >= 0].tolist())
    held = all_rows - kept
    assert len(validation) == len(held)
    expected = data.images.global_features[sorted(held)]
    order = lambda features: features[features[:, 0].argsort()]  # noqa: E731
    assert torch.equal(order(validation.global_features), order(expected))
    assert not {row % 100 for row in held} & {row % 100 for row in kept}
    with_images = int((data.image_of_caption >= 0).any(dim=1).sum())
    assert len(data.texts) - len(train.texts) == round(0.2 * with_images)
    again = split_captions(data, 0.2, seed=0)[1]
    assert torch.equal(again.global_features, validation.global_features)
    other = split_captions(data, 0.2, seed=1)[1]
    assert not torch.equal(other.global_features[:5], validation.global_features[:5])


def test_split_has_every_class_on_the_validation_side():
    data = training_features(40)
    labels = data.texts.labels.clone()
    labels[:, 0] = 0
    labels[[3, 4], 0] = 1  # a rare class
    data = dataclasses.replace(data, texts=dataclasses.replace(data.texts, labels=labels))
    for seed in range(8):
        train, _ = split_captions(data, 0.1, seed)
        assert train.texts.labels[:, 0].sum() == 1


def test_split_leaves_every_class_a_caption_to_train_on():
    data = training_features(40)
    labels = data.texts.labels.clone()
    labels[:, 0] = 0
    labels[[3, 4], 0] = 1  # a rare class
    data = dataclasses.replace(data, texts=dataclasses.replace(data.texts, labels=labels))
    for seed in range(8):
        train, validation = split_captions(data, 0.9, seed)
        assert (train.texts.labels.sum(dim=0) > 0).all()
        assert train.texts.labels[:, 0].sum() == 1  # the other one is held out
        assert (validation.labels.sum(dim=0) > 0).all()


def test_split_never_takes_a_class_its_last_held_out_caption():
    """All captions are drawn, and one comes back: not the only one that names two classes."""
    data = training_features(8)
    labels = torch.zeros(8, 5)
    labels[1:, 2:] = 1
    labels[3, :2] = 1  # the only caption of these
    images_of = torch.arange(8)[:, None]
    texts = dataclasses.replace(data.texts, labels=labels)
    data = dataclasses.replace(data, texts=texts, image_of_caption=images_of)
    for seed in range(8):
        train, _ = split_captions(data, 0.99, seed)
        assert len(train.texts) == 1
        assert train.texts.labels[0].tolist() == [0, 0, 1, 1, 1]


def test_bad_input():
    data = training_features(40)
    with pytest.raises(ValueError, match="held-out captions needs their synthetic images"):
        split_captions(dataclasses.replace(data, images=None), 0.1, 0)
