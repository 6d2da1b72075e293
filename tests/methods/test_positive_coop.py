import dataclasses
import math

import numpy as np
import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images
from labelled_images import labelled_images, unknown_turned
from torch.nn import functional

from t2ipal.methods.positive_coop import PositiveCoOpConfig
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.stacked import Stack

TRAINING = TrainingConfig(num_epochs=3, batch_size=16, lr=0.02)


def config(**changes) -> PositiveCoOpConfig:
    return PositiveCoOpConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def test_embeddings_are_a_text_and_vectors():
    model = config().build(FakeClip(), 2)
    assert {name for name, _ in model.named_parameters()} == {"prompts.contexts", "vectors"}
    assert model.prompts.contexts.shape == (1, len(NAMES), 16, 12)
    assert 0.8 < model.vectors.std() < 1.2
    scorer, (text,) = model.scorer(), model.prompts()
    assert torch.equal(scorer.positive, functional.normalize(text + model.vectors[0], dim=-1))
    assert torch.equal(scorer.negative, functional.normalize(model.vectors[1], dim=-1))
    with torch.no_grad():
        model.vectors[0] = 0
    assert torch.allclose(model.scorer().positive, text, atol=1e-6)  # no vector, a text alone


def test_scores_against_loops():
    recognizer, test = config().build(FakeClip(), 1).export(), images(4)
    scorer = recognizer.scorer
    for row in range(4):
        for index in range(len(NAMES)):
            above, below = (
                np.array([float(place @ side[index]) for place in test.local_features[row]])
                for side in (scorer.positive, scorer.negative)
            )
            weights = np.exp(20 * above) / np.exp(20 * above).sum()
            expected = 100 * (weights * (above - below)).sum()
            assert recognizer.scores(test)[row, index].item() == pytest.approx(expected, abs=1e-3)


def test_contexts_learn_at_a_hundredth_of_the_vectors_rate():
    vectors, contexts = config().build(FakeClip()).parameter_groups(TrainingConfig(lr=0.002))
    assert vectors["peak_lr"] == 0.002 and contexts["peak_lr"] == pytest.approx(2e-5)
    assert len(vectors["params"]) == len(contexts["params"]) == 1
    scales = config(learned_scales=True).build(FakeClip()).parameter_groups(TrainingConfig())
    assert len(scales[0]["params"]) == 2


def test_gradients_reach_contexts_and_vectors_alone():
    clip, data = FakeClip(), labelled_images()
    model = config().build(clip)
    before = clip.embedding.clone()
    start = {name: values.detach().clone() for name, values in model.named_parameters()}
    history = fit(model, data, TRAINING).history
    assert all(math.isfinite(record.loss) for record in history)
    assert all(not torch.equal(start[name], now) for name, now in model.named_parameters())
    assert torch.equal(clip.embedding, before) and not clip.embedding.requires_grad


def test_unknown_labels_change_nothing():
    data = labelled_images()
    fits = [
        fit(config(known_labels=0.4).build(FakeClip()), each, TRAINING).recognizer.scorer
        for each in (data, unknown_turned(data, 0.4))
    ]
    assert torch.equal(fits[0].positive, fits[1].positive)
    assert torch.equal(fits[0].negative, fits[1].negative)


def test_portions_and_seeds_are_stacked():
    data, test = labelled_images(), images(20, seed=9)
    recipes = [
        Recipe(config(known_labels=share), dataclasses.replace(TRAINING, seed=seed, data_seed=0))
        for share, seed in ((0.1, 0), (1.0, 1))
    ]
    methods = [each.method.build(FakeClip(), each.training.seed) for each in recipes]
    stack = Stack(methods, [each.training for each in recipes], data)
    for _ in range(stack.num_epochs):
        stack.train_epoch()
    for each, scores in zip(recipes, stack.scores(test)):
        alone = fit(each.method.build(FakeClip(), each.training.seed), data, each.training)
        torch.testing.assert_close(scores, alone.recognizer.scores(test), rtol=0, atol=2e-3)


def test_the_recipe_is_the_papers():
    settings = recipe("positive_coop", "coco2014", NAMES, PROMPT_NAMES)
    assert (settings.method.scale, settings.method.learned_scales) == (100, False)
    assert (settings.training.lr, settings.training.batch_size) == (2e-3, 32)
