import dataclasses
import math

import numpy as np
import pytest
import torch
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, images
from labelled_images import labelled_images, unknown_turned
from torch.nn import functional

from t2ipal.methods.dualcoop import DualCoOpConfig
from t2ipal.training.loop import TrainingConfig, fit
from t2ipal.training.recipes import Recipe, recipe
from t2ipal.training.stacked import Stack

TRAINING = TrainingConfig(num_epochs=3, batch_size=16, lr=5e-4)
FORMS = {
    "rerun": {},
    "original": {"learned_scales": False, "scale": 100.0},
}


def config(**changes) -> DualCoOpConfig:
    return DualCoOpConfig(**{"class_names": NAMES, "prompt_names": PROMPT_NAMES, **changes})


def slow_logits(scorer, one, sharpness, scale):
    """Of one image, one class and one location at a time."""
    logits = []
    locations = one.local_features[0].double().numpy()
    for positive, negative in zip(scorer.positive.double(), scorer.negative.double()):
        above = np.array([place @ positive.numpy() for place in locations])
        below = np.array([place @ negative.numpy() for place in locations])
        weights = np.exp(sharpness * above) / np.exp(sharpness * above).sum()
        logits.append(scale * sum(w * (a - b) for w, a, b in zip(weights, above, below)))
    return np.array(logits)


@pytest.mark.parametrize("form", FORMS)
def test_scores_and_loss_against_loops(form):
    model, test = config(**FORMS[form]).build(FakeClip(), 1), images(6, seed=3)
    recognizer, total = model.export(), 0.0
    for row in range(6):
        one = test.rows(slice(row, row + 1))
        logits = slow_logits(recognizer.scorer, one, 20, model.config.scale)
        assert np.allclose(recognizer.scores(one)[0].numpy(), logits, atol=1e-4)
        for p, label in zip(1 / (1 + np.exp(-logits)), one.labels[0].tolist()):
            q = max(p - 0.05, 0)
            total += -(1 - p) * math.log(p) if label else -(q**2) * math.log(1 - q)
    assert model.loss(test, None).total.item() == pytest.approx(total / 6, rel=1e-4)


def test_limits():
    """Equal embeddings score 0; a sharpness without end takes one location, none the mean."""
    scorer, test = config(learned_scales=False).build(FakeClip()).export().scorer, images(6)
    same = dataclasses.replace(scorer, negative=scorer.positive)
    assert torch.equal(same.scores(test), torch.zeros(6, len(NAMES)))
    difference = scorer.positive - scorer.negative
    even = dataclasses.replace(scorer, region_sharpness=torch.tensor(0.0))
    mean = 50 * test.local_features.mean(dim=1) @ difference.T
    assert torch.allclose(even.scores(test), mean, atol=1e-4)
    sharp = dataclasses.replace(scorer, region_sharpness=torch.tensor(1e7))
    best = (test.local_features @ scorer.positive.T).argmax(dim=1, keepdim=True)
    peak = 50 * (test.local_features @ difference.T).gather(1, best).squeeze(1)
    assert torch.allclose(sharp.scores(test), peak, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_all_that_is_learned_and_nothing_else(form):
    clip, data = FakeClip(), labelled_images()
    model = config(**FORMS[form]).build(clip)
    before = clip.embedding.clone(), data.images.local_features.clone()
    start = {name: values.detach().clone() for name, values in model.named_parameters()}
    assert ("log_scales" in start) == (form == "rerun")
    history = fit(model, data, TRAINING).history
    assert all(math.isfinite(record.loss) for record in history)
    assert all(not torch.equal(start[name], now) for name, now in model.named_parameters())
    assert torch.equal(clip.embedding, before[0]) and not clip.embedding.requires_grad
    assert torch.equal(data.images.local_features, before[1])


def test_scales_start_where_the_config_says():
    scorer = config(region_sharpness=7.0, scale=30.0).build(FakeClip()).export().scorer
    assert scorer.region_sharpness.item() == pytest.approx(7)
    assert scorer.scale.item() == pytest.approx(30)


def test_unknown_labels_change_nothing():
    data = labelled_images()
    fits = [
        fit(config(known_labels=0.4).build(FakeClip()), each, TRAINING).recognizer.scorer
        for each in (data, unknown_turned(data, 0.4))
    ]
    assert torch.equal(fits[0].positive, fits[1].positive)
    assert torch.equal(fits[0].negative, fits[1].negative)
    whole = fit(config().build(FakeClip()), data, TRAINING).recognizer.scorer
    assert not torch.allclose(whole.positive, fits[0].positive)


@pytest.mark.parametrize("form", FORMS)
def test_portions_and_seeds_are_stacked(form):
    data, test = labelled_images(), images(20, seed=9)
    recipes = [
        Recipe(
            config(**{**FORMS[form], "known_labels": share, "clip": clip, "gamma_negative": gamma}),
            dataclasses.replace(TRAINING, seed=seed, data_seed=0),
        )
        for share, clip, gamma, seed in (
            (0.1, 0.05, 2.0, 0),
            (0.5, 0.0, 1.0, 1),
            (1.0, 0.1, 3.0, 2),
        )
    ]
    methods = [each.method.build(FakeClip(), each.training.seed) for each in recipes]
    stack = Stack(methods, [each.training for each in recipes], data)
    losses = [stack.train_epoch() for _ in range(stack.num_epochs)]
    for k, (each, scores) in enumerate(zip(recipes, stack.scores(test))):
        alone = fit(each.method.build(FakeClip(), each.training.seed), data, each.training)
        known = [record.loss for record in alone.history]
        assert [loss[k].item() for loss in losses] == pytest.approx(known, rel=1e-4)
        torch.testing.assert_close(scores, alone.recognizer.scores(test), rtol=0, atol=2e-3)


def test_the_mean_location_is_one_more_location():
    """The original's regions: any local features will do, with their mean in front or without."""
    test = images(5)
    mean = functional.normalize(test.local_features.mean(dim=1, keepdim=True), dim=-1)
    more = dataclasses.replace(test, local_features=torch.cat([mean, test.local_features], dim=1))
    recognizer = config(**FORMS["original"]).build(FakeClip()).export()
    assert recognizer.scores(more).shape == (5, len(NAMES))
    assert recognizer.scorer.heatmap(more.local_features).shape == (5, len(NAMES), 10)


def test_recipes_are_the_papers():
    rerun, original = (
        recipe(name, "coco2014", NAMES, PROMPT_NAMES) for name in ("dualcoop", "dualcoop_original")
    )
    assert (rerun.method.scale, rerun.method.learned_scales) == (50, True)
    assert (rerun.training.batch_size, rerun.training.lr) == (64, 2e-3)
    assert (original.method.scale, original.method.learned_scales) == (100, False)
    assert (original.training.batch_size, original.training.num_epochs) == (32, 50)
    assert recipe("dualcoop", "voc2007", NAMES, PROMPT_NAMES).training.lr == 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_names": ("bird",)}, "Every class needs one prompt name, got 1 for 5"),
        ({"clip": -0.1}, r"clip must be in 0\.\.1, got -0\.1"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)
