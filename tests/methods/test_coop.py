import dataclasses

import numpy as np
import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images
from labelled_images import labelled_images, unknown_turned

from t2ipal.methods.coop import CoOpConfig, coop_epochs
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import Recipe
from t2ipal.training.stacked import Stack

TRAINING = TrainingConfig(num_epochs=3, batch_size=16, lr=5e-4)


def config(**changes) -> CoOpConfig:
    return CoOpConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def slow_logits(embeddings, one, temperature):
    """Of one image, in numpy: 100 cos, and 100 sum_j softmax_j(cos_j / tau) cos_j."""
    whole, local = [], []
    for embedding in embeddings.double().numpy():
        whole.append(100 * one.global_features[0].double().numpy() @ embedding)
        cosines = np.array([place @ embedding for place in one.local_features[0].double().numpy()])
        weights = np.exp(cosines / temperature) / np.exp(cosines / temperature).sum()
        local.append(100 * (weights * cosines).sum())
    return np.array(whole), np.array(local)


def test_scores_and_loss_against_loops():
    model, test = config(image_temperature=0.05).build(FakeClip(), 1), images(6, seed=3)
    recognizer, total = model.export(), 0.0
    for row in range(6):
        one = test.rows(slice(row, row + 1))
        kinds = slow_logits(recognizer.scorer.embeddings, one, 0.05)
        expected = torch.from_numpy((kinds[0] + kinds[1]) / 2).float()
        assert torch.allclose(recognizer.scores(one)[0], expected, atol=1e-3)
        for logits in kinds:
            for logit, label in zip(logits, one.labels[0].tolist()):
                wrong = -logit if label else logit
                total += np.logaddexp(0, wrong) / len(NAMES)
    assert model.loss(test, None).total.item() == pytest.approx(total / 6, rel=1e-4)


def test_limits():
    """One location that is the whole image gives one logit twice; without local scores, once."""
    test = images(6)
    one = dataclasses.replace(test, local_features=test.global_features.unsqueeze(1))
    both, alone = (config(local_scores=kind).build(FakeClip()).export() for kind in (True, False))
    assert torch.allclose(both.scores(one), alone.scores(one), atol=1e-4)
    cosines = test.global_features @ alone.scorer.embeddings.T
    assert torch.allclose(alone.scores(test), 100 * cosines, atol=1e-4)
    even = config(image_temperature=1e6).build(FakeClip()).export()
    mean = test.local_features.mean(dim=1) @ even.scorer.embeddings.T
    assert torch.allclose(even.scores(test), 50 * (cosines + mean), atol=1e-3)


def test_gradients_reach_the_context_alone():
    clip, data = FakeClip(), labelled_images()
    model = config().build(clip)
    before = clip.embedding.clone(), data.images.local_features.clone()
    assert [name for name, _ in model.named_parameters()] == ["prompts.contexts"]
    assert model.prompts.contexts.shape == (1, 16, 12)
    start = model.prompts.contexts.detach().clone()
    fit(model, data, TRAINING)
    assert not torch.equal(model.prompts.contexts, start)
    assert torch.equal(clip.embedding, before[0]) and not clip.embedding.requires_grad
    assert torch.equal(data.images.local_features, before[1])


def test_the_start_is_drawn_from_the_seed():
    contexts = [config(context_length=20).build(FakeClip(), s).prompts.contexts for s in (0, 0, 1)]
    assert torch.equal(contexts[0], contexts[1]) and not torch.equal(contexts[0], contexts[2])
    assert 0.015 < contexts[0].std() < 0.025
    own = config(class_specific_context=True).build(FakeClip()).prompts.contexts
    assert own.shape == (1, len(NAMES), 16, 12)


def test_unknown_labels_change_nothing():
    data = labelled_images()
    fits = [
        fit(config(known_labels=0.4).build(FakeClip()), each, TRAINING).recognizer.scorer
        for each in (data, unknown_turned(data, 0.4))
    ]
    assert torch.equal(fits[0].embeddings, fits[1].embeddings)
    whole = fit(config().build(FakeClip()), data, TRAINING).recognizer.scorer
    assert not torch.allclose(whole.embeddings, fits[0].embeddings)


def test_portions_and_seeds_are_stacked():
    data, test = labelled_images(), images(20, seed=9)
    recipes = [
        Recipe(
            config(known_labels=share, scale=scale, image_temperature=0.02 * scale / 50),
            dataclasses.replace(TRAINING, seed=seed, data_seed=0),
        )
        for share, scale, seed in ((0.1, 50.0, 0), (0.5, 100.0, 1), (1.0, 70.0, 2))
    ]
    methods = [each.method.build(FakeClip(), each.training.seed) for each in recipes]
    stack = Stack(methods, [each.training for each in recipes], data)
    for _ in range(stack.num_epochs):
        stack.train_epoch()
    for each, scores in zip(recipes, stack.scores(test)):
        alone = fit(each.method.build(FakeClip(), each.training.seed), data, each.training)
        torch.testing.assert_close(scores, alone.recognizer.scores(test), rtol=0, atol=1e-3)


def test_epochs_of_shots():
    assert [coop_epochs(shots) for shots in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    with pytest.raises(ValueError, match="shots must be > 0, got 0"):
        coop_epochs(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": (), "prompt_names": ()}, "class_names must name a class, got none"),
        ({"prompt_names": ("bird",)}, "Every class needs one prompt name, got 1 for 5"),
        ({"scale": 0.0}, "scale must be > 0, got 0.0"),
        ({"known_labels": 1.5}, r"known_labels must be in 0\.\.1, got 1\.5"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)
