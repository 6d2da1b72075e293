import dataclasses

import fake_clip
import numpy as np
import pytest
import torch
from fake_clip import FakeClip, images, training_features, unit

from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import class_concept as module
from t2ipal.methods.class_concept import ClassConceptConfig, ClassConceptScorer
from t2ipal.training.loop import TrainingConfig, fit

NAMES, WIDTH = fake_clip.NAMES, fake_clip.WIDTH


def recognizer(data=None, **changes):
    method = ClassConceptConfig(NAMES, **changes).build(FakeClip())
    return fit(method, data or training_features(), TrainingConfig(num_epochs=0)).recognizer


def captions(features, labels) -> TrainingFeatures:
    """Captions of these features alone, without an image."""
    mask = torch.ones(len(features), 1, dtype=torch.bool)
    texts = FeatureSet(features, features.unsqueeze(1), mask, labels)
    return TrainingFeatures(texts, None, torch.full((len(features), 1), -1))


def slow_scores(texts, labels, test, global_sharpness, local_sharpness, num_rounds):
    """Numpy, one image, one location, one caption at a time."""
    texts, labels = texts.double().numpy(), labels.numpy()
    concepts = []
    for index in range(labels.shape[1]):
        mean = np.mean([texts[i] for i in range(len(texts)) if labels[i, index]], axis=0)
        concepts.append(mean / np.linalg.norm(mean))

    def as_captions(features, sharpness):
        """v <- softmax(f v^T / a) v, normalized, from v = the texts."""
        asked = texts
        for _ in range(num_rounds):
            mixtures = []
            for feature in features:
                weights = np.array([np.exp(sharpness * feature @ one) for one in asked])
                mixture = sum(w * one for w, one in zip(weights / weights.sum(), asked))
                mixtures.append(mixture / np.linalg.norm(mixture))
            asked = mixtures
        return asked

    scores = np.zeros((len(test), len(concepts)))
    for row in range(len(test)):
        (whole,) = as_captions([test.global_features[row].double().numpy()], global_sharpness)
        locations = as_captions([*test.local_features[row].double().numpy()], local_sharpness)
        for index, concept in enumerate(concepts):
            found = np.array([location @ concept for location in locations])
            weights = np.exp(found) / np.exp(found).sum()
            scores[row, index] = whole @ concept + (weights * found).sum()
    return scores


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_against_loops(num_rounds):
    data, test = training_features(), images(8, seed=3)
    settings = dict(global_sharpness=20.0, local_sharpness=7.0, num_rounds=num_rounds)
    expected = slow_scores(data.texts.global_features, data.texts.labels, test, **settings)
    found = recognizer(data, **settings).scores(test)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_one_caption_a_class_and_an_endless_sharpness_pick_that_caption():
    """Every feature becomes the caption nearest to it: scores are cosines of captions."""
    texts = unit(len(NAMES), WIDTH, seed=1)
    model = recognizer(
        captions(texts, torch.eye(len(NAMES))),
        global_sharpness=1e6,
        local_sharpness=1e6,
        num_rounds=1,
    )
    assert torch.allclose(model.scorer.concepts, texts, atol=1e-6)
    test = images(20)
    cosines = texts @ texts.T
    whole = cosines[(test.global_features @ texts.T).argmax(dim=1)]
    places = cosines[(test.local_features @ texts.T).argmax(dim=2)]
    local = (places.softmax(dim=1) * places).sum(dim=1)
    assert torch.allclose(model.scores(test), whole + local, atol=1e-5)
    again = dataclasses.replace(model.scorer.config, num_rounds=3)  # the nearest one stays it
    scorer = dataclasses.replace(model.scorer, config=again)
    assert torch.allclose(scorer.scores(test), model.scores(test), atol=1e-5)


def test_no_sharpness_is_the_mean_caption_everywhere():
    data, test = training_features(), images(5)
    found = recognizer(data, global_sharpness=1e-9, local_sharpness=1e-9).scores(test)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)


def test_order_of_locations_and_captions_changes_nothing():
    data, test = training_features(), images(20)
    model = recognizer(data)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = dataclasses.replace(test, local_features=test.local_features[:, order])
    assert torch.allclose(model.scores(moved), model.scores(test), atol=1e-6)
    heatmap = model.scorer.heatmap(test.local_features)
    assert torch.allclose(heatmap[..., order], model.scorer.heatmap(moved.local_features))
    assert torch.allclose(heatmap.sum(dim=-1), torch.ones(20, len(NAMES)))
    mixed = dataclasses.replace(data, texts=data.texts.rows(torch.arange(39, -1, -1)))
    assert torch.allclose(recognizer(mixed).scores(test), model.scores(test), atol=1e-5)


def test_blocks_give_what_one_block_gives(monkeypatch):
    model, test = recognizer(), images(11)
    whole = model.scores(test)
    for values in (1, 9 * 40 * 3, 9 * 40 * 11):  # one image a block, three, all of them
        monkeypatch.setattr(module, "BLOCK_VALUES", values)
        assert torch.allclose(model.scores(test), whole, atol=1e-6)


def test_a_class_without_a_caption_is_named():
    data = training_features()
    labels = data.texts.labels.clone()
    labels[:, [1, 3]] = 0
    texts = dataclasses.replace(data.texts, labels=labels)
    with pytest.raises(ValueError, match=r"caption of every class, got none of: boat, tvmonitor\."):
        recognizer(dataclasses.replace(data, texts=texts))


def test_max_captions_thins_the_bank_and_not_the_concepts():
    data = training_features()
    few, everything = recognizer(data, max_captions=7).scorer, recognizer(data).scorer
    assert isinstance(few, ClassConceptScorer)
    assert torch.equal(few.concepts, everything.concepts)
    rows = [0, 5, 11, 17, 22, 28, 34]  # spread evenly over 40
    assert torch.equal(few.bank, data.texts.global_features[rows])
    assert torch.equal(everything.bank, data.texts.global_features)


def test_it_finds_what_captions_name():
    """The fake world's captions and images share directions, so chance is left far behind."""
    from t2ipal.evaluation.evaluate import evaluate

    test = images(200, seed=77)
    chance = 100 * float(test.labels.mean())
    assert evaluate(recognizer(), test).mAP > chance + 15


def test_images_of_the_run_play_no_part():
    data = training_features()
    without = dataclasses.replace(data, images=None)
    test = images(10)
    assert torch.equal(recognizer(data).scores(test), recognizer(without).scores(test))


def test_it_is_not_trained():
    method = ClassConceptConfig(NAMES).build(FakeClip())
    with pytest.raises(RuntimeError, match="prepare must be called with the captions before"):
        method.export()
    with pytest.raises(RuntimeError, match="has no loss"):
        method.loss(None, None)
    with pytest.raises(ValueError, match="without anything to train needs num_epochs 0, got 3"):
        fit(method, training_features(), TrainingConfig(num_epochs=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_sharpness": 0.0}, "global_sharpness must be > 0, got 0.0"),
        ({"local_sharpness": -1.0}, "local_sharpness must be > 0, got -1.0"),
        ({"num_rounds": 0}, "num_rounds must be > 0, got 0"),
        ({"max_captions": 0}, "max_captions must be > 0, got 0"),
        ({"class_names": ()}, "class_names must name a class, got none"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        ClassConceptConfig(**{"class_names": NAMES, **changes})
